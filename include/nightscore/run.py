"""The context of a run: its plan, and the services that its stages use."""

import datetime as dt
from dataclasses import dataclass, field

from nightscore.errors import ConfigurationError, near_miss
from nightscore.lease import Holder, Lease, acquire, this_process
from nightscore.objects import Bucket
from nightscore.plan import Plan, read_plan
from nightscore.progress import LoggedProgress, Progress
from nightscore.records import RunRecords, run_ids
from nightscore.registry.sources.configured import configured_sources
from nightscore.registry.store import Registry
from nightscore.settings import Settings
from nightscore.spec import Spec
from nightscore.warehouse import Warehouse


class RunNotFoundError(ConfigurationError):
    """There are no records of such a run."""


@dataclass(frozen=True)
class Services:
    """The warehouse, the bucket and the registry of one deployment."""

    warehouse: Warehouse
    bucket: Bucket
    registry: Registry


@dataclass(frozen=True)
class Run:
    """One run: what every stage takes. `lease` is None where a run is only looked at."""

    plan: Plan
    services: Services
    progress: Progress = field(default_factory=LoggedProgress)
    lease: Lease | None = None

    @property
    def spec(self) -> Spec:
        """The spec as it was planned."""
        return self.plan.spec

    @property
    def warehouse(self) -> Warehouse:
        """The warehouse."""
        return self.services.warehouse

    @property
    def bucket(self) -> Bucket:
        """The bucket."""
        return self.services.bucket

    @property
    def registry(self) -> Registry:
        """The registry."""
        return self.services.registry

    @property
    def records(self) -> RunRecords:
        """The run's records."""
        return RunRecords(self.bucket, self.spec.name, self.plan.run_id)

    def require_lease(self) -> Lease:
        """Return the lease of the partition, which whoever changes something must have.

        Raises:
            ConfigurationError: the run was opened without one.
        """
        if self.lease is None:
            raise ConfigurationError(f"{self.spec.name}: the run {self.plan.run_id} was opened only to be looked at.")
        return self.lease

    @property
    def snapshot_table(self) -> str:
        """The table of frozen rows."""
        return self.warehouse.staging_table(f"{self.plan.table_prefix}__frozen")

    @property
    def accepted_view(self) -> str:
        """The view of the frozen rows that no rule rejects."""
        return self.warehouse.staging_table(f"{self.plan.table_prefix}__accepted")

    @property
    def staging_table(self) -> str:
        """The table of predictions that are not published yet."""
        return self.warehouse.staging_table(f"{self.plan.table_prefix}__staged")

    @property
    def shadow_staging_table(self) -> str:
        """The table of the challengers' predictions, before they go into the shadow table."""
        return self.warehouse.staging_table(f"{self.plan.table_prefix}__shadow")


def build_services(config: Settings) -> Services:
    """Return the services that the settings name; nothing is contacted yet."""
    import functools

    from nightscore.clients import build_bigquery, build_bigquery_storage, build_storage

    bucket = Bucket(build_storage(config), config.bucket)
    reader = functools.cache(lambda: build_bigquery_storage(config))
    registry = Registry(bucket, signers=config.trusted_signers, sources=configured_sources(config))
    return Services(Warehouse(config, build_bigquery(config), reader), bucket, registry)


def take_lease(
    services: Services,
    pipeline: str,
    partition: dt.date,
    progress: Progress,
    *,
    holder: Holder | None = None,
    wait: float = 0.0,
    take_over: bool = False,
    term: int | None = None,
) -> Lease:
    """Take the lease of a partition for `holder`, by default this process; see `nightscore.lease.acquire`."""
    span = dt.timedelta(seconds=services.warehouse.config.lease_seconds)
    owner = holder or this_process()
    return acquire(
        services.bucket, pipeline, partition, owner, span, wait=wait, take_over=take_over, term=term, tell=progress.note
    )


def open_run(
    services: Services, pipeline: str, run_id: str, progress: Progress | None = None, lease: Lease | None = None
) -> Run:
    """Return the context of a run that was planned before.

    Raises:
        RunNotFoundError: there is no plan of it.
    """
    plan = read_plan(RunRecords(services.bucket, pipeline, run_id))
    if plan is None:
        known = run_ids(services.bucket, pipeline)
        raise RunNotFoundError(f"There is no run {run_id!r} of {pipeline}. {near_miss(run_id, known)}")
    return Run(plan, services, progress or LoggedProgress(), lease)


def utc_now() -> dt.datetime:
    """Return the time, with its zone."""
    return dt.datetime.now(dt.UTC)
