"""The plan: everything a run depends on, decided once and written once.

Shards, retries and resumed runs read `plan.json` and nothing else, so an alias that moves or a spec that is edited
while a run is under way changes nothing until the next run.

A run's id is the partition and the first eight digits of the plan's digest. The digest covers what decides the result
(spec, code, model, challengers, the sources' state) and an ordinal that counts finished runs of exactly the same. So
the same plan again resumes an unfinished run, two processes that plan at once agree on one, and a finished run is
followed by a new one.
"""

import datetime as dt
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from nightscore import __version__
from nightscore.assessment import Assessment, assess
from nightscore.objects import to_json
from nightscore.overrides import require_overrides
from nightscore.publications import last_publication
from nightscore.records import RunRecords, is_finished
from nightscore.registry.store import Registry, Version
from nightscore.settings import user_name
from nightscore.spec import ModelReference, Spec
from nightscore.warehouse import Warehouse

ROWS_PER_SHARD = 2_000_000
MOST_SHARDS = 64
TIME_TRAVEL = dt.timedelta(days=2)  # the least that a BigQuery dataset can be set to keep; the default is 7
EXPIRY_MARGIN = dt.timedelta(hours=12)  # a run that is taken up must not lose its tables under way
SHARDS_OF_A_QUERY = 8  # a query's rows are not counted beforehand: that would bill it twice


class PlannedModel(BaseModel):
    """The version that a run scores with: pinned by its manifest's digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: int
    digest: str
    requested: str

    @property
    def label(self) -> str:
        """`name/version`, as written beside every prediction."""
        return f"{self.name}/{self.version}"


class Plan(BaseModel):
    """What one run will do.

    Attributes:
        run_id: `{partition}-{digest[:8]}`.
        digest: SHA-256 (hex) of what decides the result.
        spec: the spec as it was when the run was planned.
        partition: the scoring date.
        snapshot_time: the moment whose rows are frozen; None for a query, which is frozen when it runs.
        scored_at: the time written beside every prediction.
        expires: when the frozen rows and the staged predictions of the run may go.
        model: the pinned version.
        challengers: the pinned versions that score beside it, into the shadow table.
        left_out: challenger as asked, like `credit_default@challenger` → a sentence why it does not take part.
        columns: name → GoogleSQL type of the frozen columns: keys, partition, inputs and checked columns.
        partition_type: GoogleSQL type of the partition column in the source; frozen, it is a DATE.
        shards: how many parts are scored in parallel.
        rows: rows of the partition when it was planned; None for a query.
        estimated_bytes: what freezing will bill, by dry run, or at most.
        sources: full name → time of last change of the tables the rows come from.
        replaces_rows: rows of the predictions table's partition that a publication will replace.
        dry_run: score and check, publish nothing.
        overrides: names of checks that shall not stop the run.
        accept_warnings: publish with warnings, where the spec would hold the run.
        reason, planned_by, code_version: for people and auditors.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    digest: str
    ordinal: int
    spec: Spec
    partition: dt.date
    snapshot_time: dt.datetime | None
    scored_at: dt.datetime
    expires: dt.datetime
    model: PlannedModel
    challengers: tuple[PlannedModel, ...] = ()
    left_out: dict[str, str] = {}
    columns: dict[str, str]
    partition_type: str
    shards: Annotated[int, Field(ge=1, le=MOST_SHARDS)]
    rows: int | None
    estimated_bytes: int
    sources: dict[str, str]
    replaces_rows: int
    dry_run: bool = False
    overrides: tuple[str, ...] = ()
    accept_warnings: bool = False
    reason: str | None = None
    planned_by: str
    code_version: str

    @property
    def key_types(self) -> dict[str, str]:
        """The keys and their GoogleSQL types."""
        return {key: self.columns[key] for key in self.spec.features.keys}

    @property
    def table_prefix(self) -> str:
        """What the names of the run's tables begin with."""
        return f"{self.spec.name}__{self.run_id.replace('-', '')}"

    @property
    def labels(self) -> dict[str, str]:
        """Labels of the run's BigQuery jobs."""
        return {"nightscore_pipeline": self.spec.name[:63], "nightscore_run": self.run_id}

    def job_key(self, step: str) -> str:
        """Return what makes a step's BigQuery job one and the same however often it is submitted."""
        return f"nightscore_{self.spec.name}_{self.run_id}_{step}"


def plan(
    spec: Spec,
    partition: dt.date,
    warehouse: Warehouse,
    registry: Registry,
    *,
    model: ModelReference | None = None,
    dry_run: bool = False,
    overrides: Sequence[str] = (),
    accept_warnings: bool = False,
    reason: str | None = None,
    planned_by: str | None = None,
    inspect: Callable[[Assessment], Assessment] = lambda found: found,
) -> tuple[Plan, bool]:
    """Decide a run, or find the unfinished run that was decided the same way.

    Args:
        spec: the pipeline.
        partition: the scoring date.
        warehouse: where the rows are.
        registry: where the models are.
        model: another model than the spec's.
        dry_run: score and check, publish nothing.
        overrides: names of checks that shall not stop the run.
        accept_warnings: publish with warnings, where the spec would hold the run.
        reason: why it is run by hand.
        planned_by: who runs it; by default the user of this process.
        inspect: is given what was found, and returns what is judged: the same, or with further reasons.

    Returns:
        The plan as it is stored, and whether an earlier process stored it.

    Raises:
        GateRefusedError: there is nothing to score, or more than a limit allows.
        OverrideError: an override names no check that can be overridden, or there is no reason.
        ConfigurationError: a table, column or model is missing or does not fit.
    """
    require_overrides(spec, overrides, reason)
    found = inspect(assess(spec, partition, warehouse, registry, model=model))
    version, source = found.require_ready()
    challengers = tuple(_pinned(pinned, asked) for asked, pinned in found.challengers.items())
    decided = _latest_decision(registry, spec.name, partition, found.target.live_since)
    identity = {
        "pipeline": spec.name,
        "partition": partition.isoformat(),
        "spec": spec.digest,
        "code": __version__,
        "model": version.digest,
        "sources": source.modified,
        "dry_run": dry_run,
    }
    if challengers:
        identity["challengers"] = [pinned.digest for pinned in challengers]
    if overrides:
        identity["overrides"] = sorted(overrides)
    if accept_warnings:
        identity["accept_warnings"] = True

    def build(ordinal: int, digest: str) -> Plan:
        return Plan(
            run_id=f"{partition}-{digest[:8]}",
            digest=digest,
            ordinal=ordinal,
            spec=source.spec,
            partition=partition,
            snapshot_time=source.snapshot_time,
            scored_at=source.now,
            expires=source.now + spec.keep,
            model=_pinned(version, str(model or spec.model)),
            challengers=challengers,
            left_out=found.left_out,
            columns=source.columns,
            partition_type=source.partition_type,
            shards=shards_of(spec, source.rows),
            rows=source.rows,
            estimated_bytes=source.bytes,
            sources=source.modified,
            replaces_rows=found.target.rows or 0,
            dry_run=dry_run,
            overrides=tuple(sorted(overrides)),
            accept_warnings=accept_warnings,
            reason=reason,
            planned_by=planned_by or user_name(),
            code_version=__version__,
        )

    return _agree(registry, spec.name, partition, identity, source.now, decided, build)


def read_plan(records: RunRecords) -> Plan | None:
    """Return the stored plan of a run, or None when there is no such run."""
    content = records.read("plan")
    return None if content is None else Plan.model_validate(content)


def _pinned(version: Version, requested: str) -> PlannedModel:
    return PlannedModel(
        name=version.manifest.name, version=version.manifest.version, digest=version.digest, requested=requested
    )


def shards_of(spec: Spec, rows: int | None) -> int:
    """Return how many parts are scored in parallel."""
    return spec.limits.shards or _shards(rows)


def _shards(rows: int | None) -> int:
    """Return one shard for every two million rows, at most 64.

    >>> [_shards(1), _shards(2_000_001), _shards(10**9), _shards(None)]
    [1, 2, 64, 8]
    """
    return SHARDS_OF_A_QUERY if rows is None else max(1, min(MOST_SHARDS, math.ceil(rows / ROWS_PER_SHARD)))


def _latest_decision(
    registry: Registry, pipeline: str, partition: dt.date, live_since: dt.datetime | None
) -> dt.datetime | None:
    """Return when what is published was planned, or when somebody rolled the partition back, if that was later."""
    last = last_publication(registry.bucket, pipeline, partition)
    if last is None or last["kind"] != "rollback":
        return live_since
    rolled_back = dt.datetime.fromisoformat(last["published_at"])
    return rolled_back if live_since is None else max(rolled_back, live_since)


def _agree(
    registry: Registry,
    pipeline: str,
    partition: dt.date,
    identity: dict[str, Any],
    now: dt.datetime,
    decided: dt.datetime | None,
    build: Callable[[int, str], Plan],
) -> tuple[Plan, bool]:
    """Write the plan of the first ordinal that is free, or return an unfinished one that can still be completed."""
    ordinal = 0
    while True:
        text = json.dumps({**identity, "ordinal": ordinal}, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        records = RunRecords(registry.bucket, pipeline, f"{partition}-{digest[:8]}")
        stored = read_plan(records)
        if stored is None:
            draft = build(ordinal, digest)
            content = json.loads(to_json(draft.model_dump(mode="json")))
            written = records.write_once("plan", content)
            return Plan.model_validate(written), written != content
        if not is_finished(records) and _can_be_completed(stored, records, now, decided):
            return stored, True
        ordinal += 1


def _can_be_completed(stored: Plan, records: RunRecords, now: dt.datetime, decided: dt.datetime | None) -> bool:
    """Return whether an unfinished run may be taken up.

    Not one whose frozen rows are about to go, or can no longer be frozen; nor one that a later run has overtaken, or a
    rollback; nor one that reads a query or a view, of which nobody can tell whether what lies behind it has changed.
    """
    if stored.snapshot_time is None or now > stored.expires - EXPIRY_MARGIN:
        return False
    if decided is not None and decided > stored.scored_at:
        return False
    return records.read("freeze") is not None or now < stored.snapshot_time + TIME_TRAVEL
