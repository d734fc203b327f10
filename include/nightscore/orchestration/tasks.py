"""Bodies of the DAGs' tasks: each opens the run and calls the stage. Everything heavy is imported inside.

XCom carries a run's id and shard numbers; all else is in the run's records, which a retry does not wipe.
"""

import datetime as dt
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nightscore.arguments import parse_partition
from nightscore.errors import ConfigurationError, GateRefusedError, listed

if TYPE_CHECKING:
    from nightscore.assessment import Assessment
    from nightscore.lease import Holder
    from nightscore.run import Run

log = logging.getLogger(__name__)

RUN_KEY = "run"  # Airflow keeps the name run_id for its own
TERM_KEY = "term"
REFUSAL_KEY = "refused"
BEFORE_THE_RUN = ["wait", "plan"]  # tasks that may fail before there is a run
PRODUCER = (
    "The DAG that updates an asset names the partition: it has partitioned runs, or its task says "
    '`outlet_events[asset].add_partitions("2026-11-19")`.'
)


class PartitionError(ConfigurationError):
    """A run has no scoring date, or two."""


class SpecBrokenError(ConfigurationError):
    """The spec of the pipeline cannot be read."""


class NotPublishedError(GateRefusedError):
    """The run ended without a publication."""


def plan(
    pipeline: str,
    params: dict[str, Any] | None = None,
    partition_key: str | None = None,
    dag_run: Any = None,
    ti: Any = None,
) -> list[dict[str, Any]]:
    """Plan the run; return its shards, each with the label that the UI shows, and push its id under the key `run`.

    Airflow maps tasks over return values only, so the shards are what is returned. The log shows the plan as
    `nightscore plan` does, also where it is refused.
    """
    from nightscore.arguments import parse_model
    from nightscore.lease import HANDOVER
    from nightscore.orchestration.metrics import measure
    from nightscore.pipeline import start
    from nightscore.preview import preview
    from nightscore.preview_text import preview_as_text
    from nightscore.progress import LoggedProgress
    from nightscore.run import build_services, utc_now
    from nightscore.settings import pipelines_dir, settings
    from nightscore.specs import load_spec

    measure()
    given = params or {}
    model, dry_run = given.get("model"), bool(given.get("dry_run"))
    services = build_services(settings())

    def show(found: "Assessment") -> None:
        try:
            log.info("%s", preview_as_text(preview(found, services, dry_run=dry_run, start=utc_now())))
        except Exception:  # it is for people: the night does not depend on it
            log.exception("the plan cannot be shown")

    with refusals_noted("plan", ti):
        started = start(
            load_spec(pipeline, pipelines_dir()),
            scoring_date(partition_key, given.get("partition"), dag_run.dag_id, dag_run.run_id),
            services,
            model=parse_model(model) if model else None,
            dry_run=dry_run,
            overrides=given.get("override") or (),
            accept_warnings=bool(given.get("accept_warnings")),
            reason=given.get("reason"),
            planned_by=getattr(dag_run, "triggering_user_name", None) or _holder(dag_run).who,
            progress=LoggedProgress(),
            holder=_holder(dag_run),
            take_over=bool(given.get("take_over")),
            wanted_at=wanted_at(dag_run),
            inspect=show,
        )
    started.require_lease().renew(HANDOVER)
    count = started.plan.shards
    width = len(str(count))
    ti.xcom_push(key=RUN_KEY, value=started.plan.run_id)
    ti.xcom_push(key=TERM_KEY, value=started.require_lease().term)
    return [{"shard": shard, "label": f"shard {shard + 1:0{width}d} of {count}"} for shard in range(count)]


def freeze(pipeline: str, run: str, term: int, dag_run: Any = None) -> None:
    """Run the stage of the same name."""
    from nightscore.pipeline import run_stage
    from nightscore.snapshot import freeze as stage

    with _held(pipeline, run, term, dag_run) as context:
        run_stage(context, stage)


def feature_gate(pipeline: str, run: str, term: int, dag_run: Any = None) -> None:
    """Run the stage of the same name."""
    from nightscore.gates.feature_gate import feature_gate as stage
    from nightscore.orchestration.lineage import report_features
    from nightscore.pipeline import run_stage

    with _held(pipeline, run, term, dag_run) as context:
        try:
            run_stage(context, stage)
        finally:
            report_features(context)


def score(pipeline: str, run: str, term: int, shard: dict[str, Any], dag_run: Any = None) -> None:
    """Score one shard."""
    from airflow.sdk import get_current_context

    from nightscore.scoring.shard import score_shard

    airflow: Any = get_current_context()
    airflow["shard_label"] = shard["label"]
    with _held(pipeline, run, term, dag_run) as context:
        receipt = score_shard(context, int(shard["shard"]))
    rate = "done before" if receipt.get("reused") else f"{receipt['rows_per_second']:,} rows/s"
    log.info("%s: %s rows, %s", shard["label"], f"{receipt['rows']:,}", rate)


def prediction_gate(pipeline: str, run: str, term: int, dag_run: Any = None) -> None:
    """Sum the shards' receipts up as the record of scoring, and run the stage of the same name."""
    from nightscore.gates.prediction_gate import prediction_gate as stage
    from nightscore.pipeline import run_stage
    from nightscore.pipeline import score as scored

    with _held(pipeline, run, term, dag_run) as context:
        run_stage(context, scored)
        run_stage(context, stage)


def publish(
    pipeline: str, run: str, term: int, dag_run: Any = None, outlet_events: Any = None, partition_key: str | None = None
) -> None:
    """Publish, and say so in the asset's event: partition, rows, model version. A dry run is skipped."""
    from airflow.sdk.exceptions import AirflowSkipException

    from nightscore.orchestration.factory import predictions_asset
    from nightscore.orchestration.lineage import report_publication
    from nightscore.pipeline import run_stage
    from nightscore.predictions import publish as stage

    with _held(pipeline, run, term, dag_run) as context:
        record = run_stage(context, stage)
    if not record["published"]:
        raise AirflowSkipException("Dry run: nothing was published.")
    report_publication(context, record["rows"])
    event = outlet_events[predictions_asset(context.spec)]
    event.extra = {
        "partition": context.plan.partition.isoformat(),
        "rows": record["rows"],
        "model_version": context.plan.model.label,
        "run_id": run,
    }
    if partition_key is None:  # a run that was given its date as a parameter
        event.add_partitions(context.plan.partition.isoformat())


def shadow(pipeline: str, run: str, term: int, dag_run: Any = None) -> None:
    """Run the stage of the same name."""
    from nightscore.pipeline import run_stage
    from nightscore.shadow import shadow as stage

    with _held(pipeline, run, term, dag_run) as context:
        run_stage(context, stage)


def evidence(pipeline: str, run: str, term: int, dag_run: Any = None) -> None:
    """Run the stage of the same name."""
    from nightscore.monitoring.night import evidence as stage
    from nightscore.pipeline import run_stage

    with _held(pipeline, run, term, dag_run) as context:
        run_stage(context, stage)


def record(
    pipeline: str,
    ti: Any = None,
    dag_run: Any = None,
    params: dict[str, Any] | None = None,
    partition_key: str | None = None,
) -> None:
    """Sum the run up; fail when nothing was published, so that the DAG run's state says so.

    Raises:
        NotPublishedError: a stage before failed.
    """
    from nightscore.pipeline import finish

    run, term = (ti.xcom_pull(task_ids="plan", key=key) for key in (RUN_KEY, TERM_KEY))
    if run is None:
        _announce_unplanned(pipeline, ti, dag_run, partition_key, (params or {}).get("partition"))
        raise NotPublishedError(
            f"{pipeline}: the run was not planned, so nothing was published; see its first red task."
        )
    with _held(pipeline, run, term, dag_run) as context:
        summary = finish(context)
    context.require_lease().release()
    if summary["status"] in ("refused", "failed"):
        why = "; ".join(summary["stopped_by"]) or "a task before this one failed; see its log"
        raise NotPublishedError(f"{pipeline}: nothing was published for {summary['partition']}: {why}")


def roll_back(params: dict[str, Any] | None = None, dag_run: Any = None, outlet_events: Any = None) -> None:
    """Publish an earlier run's predictions again, and say so in the event of the predictions' asset."""
    from nightscore.orchestration.factory import ROLLED_BACK, asset_of
    from nightscore.orchestration.lineage import report_publication
    from nightscore.progress import LoggedProgress
    from nightscore.rollback import roll_back as publish_again
    from nightscore.run import build_services, open_run
    from nightscore.settings import settings

    given, services = params or {}, build_services(settings())
    found = publish_again(
        services,
        given["pipeline"],
        parse_partition(given["partition"]),
        to=given.get("to"),
        reason=given["reason"],
        progress=LoggedProgress(),
        holder=_holder(dag_run),
        take_over=bool(given.get("take_over")),
    )
    log.info("%s %s: rolled back to %s", found["pipeline"], found["partition"], found["run_id"])
    report_publication(open_run(services, found["pipeline"], found["run_id"]), found["rows"])
    event = {key: found[key] for key in ("partition", "rows", "model_version", "run_id", "reason")}
    outlet_events[ROLLED_BACK].add(asset_of(found["table_name"]), extra=event)


def fail_for_spec(message: str) -> None:
    """Fail with the fault of a spec.

    Raises:
        SpecBrokenError: always.
    """
    raise SpecBrokenError(message)


def scoring_date(key: str | None, given: str | None, dag_id: str, run_id: str) -> dt.date:
    """Return the date that a DAG run scores: its partition key, or the date of the form.

    Raises:
        PartitionError: there is neither, or they differ, or it is not a date.
    """
    if key and given and key != given:
        raise PartitionError(f"{dag_id}: the run {run_id} has the partition key {key} and the scoring date {given}.")
    text = key or given
    if not text:
        raise PartitionError(
            f"{dag_id}: the run {run_id} has no partition. Trigger it with a partition key or a scoring date, "
            "like 2026-11-19."
        )
    try:
        return parse_partition(text)
    except ConfigurationError as error:
        raise PartitionError(f"{dag_id}: the run {run_id} has no scoring date: {error} {PRODUCER}") from error


def fail_for_event(after: dict[str, list[str]], triggering_asset_events: Any = None) -> None:
    """Fail with what an asset's event lacked; `after` is table → the pipelines that its events start.

    Raises:
        PartitionError: always; Airflow starts this only for events without a partition key.
    """
    events = {asset.name: list(found) for asset, found in (triggering_asset_events or {}).items()}
    tables = [name for name in after if name in events] or list(after)
    waiting = listed(sorted({pipeline for table in tables for pipeline in after[table]}))
    days = sorted(
        {event.extra["partition"] for found in events.values() for event in found if "partition" in event.extra}
    )
    about = f" It is about {listed(days)}: trigger the pipelines for that, if they are to run again." if days else ""
    raise PartitionError(
        f"An event of {listed(tables)} came without a partition key, so no run of {waiting} began.{about} {PRODUCER}"
    )


@contextmanager
def refusals_noted(task: str, ti: Any) -> Iterator[None]:
    """Leave a note for the task `record` when what the block runs refuses the data: it then is no failure."""
    try:
        yield
    except GateRefusedError:
        ti.xcom_push(key=REFUSAL_KEY, value=task)
        raise


def wanted_at(dag_run: Any) -> dt.datetime | None:
    """Return when a DAG run should have begun; None of a backfill, whose moment is years ago or none at all."""
    found = None if str(dag_run.run_type).endswith("backfill") else dag_run.run_after
    return found if isinstance(found, dt.datetime) else None


def _announce_unplanned(pipeline: str, ti: Any, dag_run: Any, key: str | None, given: str | None) -> None:
    from nightscore.orchestration.metrics import measure
    from nightscore.run_events import announce_unplanned
    from nightscore.settings import settings

    try:
        partition = scoring_date(key, given, dag_run.dag_id, dag_run.run_id)
    except PartitionError as error:  # nothing can be said about a night that has no date
        log.info("no event is written: %s", error)
        return
    measure()
    notes = [ti.xcom_pull(task_ids=task, key=REFUSAL_KEY) for task in BEFORE_THE_RUN]
    announce_unplanned(settings(), pipeline, partition, refused_at=next(filter(None, notes), None))


@contextmanager
def _held(pipeline: str, run_id: str, term: int, dag_run: Any) -> "Iterator[Run]":
    """Yield a run under the lease of its Airflow run, which is renewed meanwhile and left for the next task.

    Raises:
        LeaseLostError: another run has had the lease since this one was planned.
    """
    from nightscore.lease import HANDOVER
    from nightscore.logs import bound
    from nightscore.orchestration.metrics import measure
    from nightscore.progress import LoggedProgress
    from nightscore.run import build_services, open_run, take_lease
    from nightscore.run_events import logged
    from nightscore.settings import settings

    measure()
    services = build_services(settings())
    found = open_run(services, pipeline, run_id)
    # Airflow's own lines have its run under `run_id`, which is ours in this block.
    with logged(found), bound(airflow_run_id=dag_run.run_id):
        lease = take_lease(
            services, pipeline, found.plan.partition, LoggedProgress(), holder=_holder(dag_run), term=term
        )
        with lease.renewed():
            yield open_run(services, pipeline, run_id, lease=lease)
        lease.renew(HANDOVER)


def _holder(dag_run: Any) -> "Holder":
    from nightscore.lease import Holder

    by = getattr(dag_run, "triggering_user_name", None)
    who = f"the run {dag_run.run_id} of {dag_run.dag_id} in Airflow" + (f", triggered by {by}" if by else "")
    return Holder(id=f"airflow/{dag_run.dag_id}/{dag_run.run_id}", who=who)
