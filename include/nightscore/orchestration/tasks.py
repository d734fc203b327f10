"""Bodies of the DAGs' tasks: each opens the run and calls the stage. Everything heavy is imported inside.

XCom carries a run's id and shard numbers; all else is in the run's records, which a retry does not wipe.
"""

import datetime as dt
import logging
from typing import TYPE_CHECKING, Any

from nightscore.arguments import parse_partition
from nightscore.errors import ConfigurationError, GateRefusedError

if TYPE_CHECKING:
    from nightscore.run import Run

log = logging.getLogger(__name__)

RUN_KEY = "run"  # Airflow keeps the name run_id for its own


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

    Airflow maps tasks over return values only, so the shards are what is returned.
    """
    from nightscore.arguments import parse_model
    from nightscore.pipeline import start
    from nightscore.progress import LoggedProgress
    from nightscore.run import build_services
    from nightscore.settings import pipelines_dir, settings
    from nightscore.specs import load_spec

    given = params or {}
    model = given.get("model")
    started = start(
        load_spec(pipeline, pipelines_dir()),
        scoring_date(partition_key, given.get("partition"), dag_run.dag_id, dag_run.run_id),
        build_services(settings()),
        model=parse_model(model) if model else None,
        dry_run=bool(given.get("dry_run")),
        reason=given.get("reason"),
        progress=LoggedProgress(),
    )
    count = started.plan.shards
    width = len(str(count))
    ti.xcom_push(key=RUN_KEY, value=started.plan.run_id)
    return [{"shard": shard, "label": f"shard {shard + 1:0{width}d} of {count}"} for shard in range(count)]


def freeze(pipeline: str, run: str) -> None:
    """Run the stage of the same name."""
    from nightscore.pipeline import run_stage
    from nightscore.snapshot import freeze as stage

    run_stage(_open(pipeline, run), stage)


def feature_gate(pipeline: str, run: str) -> None:
    """Run the stage of the same name."""
    from nightscore.gates.feature_gate import feature_gate as stage
    from nightscore.pipeline import run_stage

    run_stage(_open(pipeline, run), stage)


def score(pipeline: str, run: str, shard: dict[str, Any]) -> None:
    """Score one shard."""
    from airflow.sdk import get_current_context

    from nightscore.scoring.shard import score_shard

    context: Any = get_current_context()
    context["shard_label"] = shard["label"]
    receipt = score_shard(_open(pipeline, run), int(shard["shard"]))
    log.info("%s: %s rows, %s rows/s", shard["label"], f"{receipt['rows']:,}", f"{receipt['rows_per_second']:,}")


def prediction_gate(pipeline: str, run: str) -> None:
    """Sum the shards' receipts up as the record of scoring, and run the stage of the same name."""
    from nightscore.gates.prediction_gate import prediction_gate as stage
    from nightscore.pipeline import run_stage
    from nightscore.pipeline import score as scored

    context = _open(pipeline, run)
    run_stage(context, scored)
    run_stage(context, stage)


def publish(pipeline: str, run: str, outlet_events: Any = None, partition_key: str | None = None) -> None:
    """Publish, and say so in the asset's event: partition, rows, model version. A dry run is skipped."""
    from airflow.sdk.exceptions import AirflowSkipException

    from nightscore.orchestration.factory import predictions_asset
    from nightscore.pipeline import run_stage
    from nightscore.predictions import publish as stage

    context = _open(pipeline, run)
    record = run_stage(context, stage)
    if not record["published"]:
        raise AirflowSkipException("Dry run: nothing was published.")
    event = outlet_events[predictions_asset(context.spec)]
    event.extra = {
        "partition": context.plan.partition.isoformat(),
        "rows": record["rows"],
        "model_version": context.plan.model.label,
        "run_id": run,
    }
    if partition_key is None:  # a run that was given its date as a parameter
        event.add_partitions(context.plan.partition.isoformat())


def record(pipeline: str, ti: Any = None) -> None:
    """Sum the run up; fail when nothing was published, so that the DAG run's state says so.

    Raises:
        NotPublishedError: a stage before failed.
    """
    from nightscore.pipeline import finish

    run = ti.xcom_pull(task_ids="plan", key=RUN_KEY)
    if run is None:
        raise NotPublishedError(f"{pipeline}: the run was not planned, so nothing was published; see the task plan.")
    summary = finish(_open(pipeline, run))
    if summary["status"] in ("refused", "failed"):
        why = "; ".join(summary["stopped_by"]) or "a task before this one failed; see its log"
        raise NotPublishedError(f"{pipeline}: nothing was published for {summary['partition']}: {why}")


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
    return parse_partition(text)


def _open(pipeline: str, run_id: str) -> "Run":
    from nightscore.run import build_services, open_run
    from nightscore.settings import settings

    return open_run(build_services(settings()), pipeline, run_id)
