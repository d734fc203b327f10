"""Building one Airflow DAG from one spec. Imported while DAGs are parsed: nothing heavy may be reached from here."""

import copy
import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from airflow.sdk import (
    DAG,
    Asset,
    AssetAlias,
    AssetAny,
    CronPartitionTimetable,
    ExceptionRetryPolicy,
    Param,
    PartitionedAssetTimetable,
    RetryAction,
    RetryRule,
    TriggerRule,
    get_parsing_context,
    task,
)
from airflow.sdk.definitions.param import ParamsDict

from nightscore.names import DAG_PREFIX, MODEL_NAME, PIPELINE_NAME, SOURCE_MODEL_NAME, SOURCES
from nightscore.orchestration import deadlines, lifecycle, tasks
from nightscore.orchestration.pods import executor_config
from nightscore.orchestration.waiting import WaitForData
from nightscore.spec import Resources, Schedule, Spec
from nightscore.specs import PipelineNotFoundError, SpecError, iter_specs, load_spec

START = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)  # backfills reach back to here
TAG = "nightscore"
WITHOUT_PARTITION = "events_without_partition"

# A refused gate or a wrong spec is as wrong the second time; a server that was away may be back.
RETRIES = ExceptionRetryPolicy(
    rules=[
        RetryRule(
            exception=["nightscore.errors.GateRefusedError", "nightscore.errors.ConfigurationError"],
            action=RetryAction.FAIL,
            reason="the same data and the same spec give the same answer",
        ),
        RetryRule(
            exception="nightscore.errors.LeaseLostError",
            action=RetryAction.FAIL,
            reason="another run has taken the partition over",
        ),
        RetryRule(
            exception="nightscore.errors.TransientError",
            action=RetryAction.RETRY,
            retry_delay=dt.timedelta(seconds=30),
            reason="a server or the network failed",
        ),
    ]
)

PARAMS = {
    "partition": Param(
        None,
        type=["null", "string"],
        format="date",
        title="Scoring date",
        description="Only for a run without a partition key; a scheduled run or a backfill has one.",
        section="What",
    ),
    "model": Param(
        None,
        type=["null", "string"],
        pattern=f"^(({'|'.join(SOURCES)}):{SOURCE_MODEL_NAME}|{MODEL_NAME})@[a-z0-9_-]+$",
        title="Model",
        description="NAME@ALIAS or NAME@VERSION, or mlflow:NAME@ALIAS; empty: the spec's model.",
        section="What",
    ),
    "dry_run": Param(
        False,
        type="boolean",
        title="Dry run",
        description="Freeze, check and score, but publish nothing.",
        section="How",
    ),
    "accept_warnings": Param(
        False,
        type="boolean",
        title="Accept warnings",
        description="Publish with warnings, where the spec holds such a run.",
        section="How",
    ),
    "override": Param(
        None,
        type=["null", "array"],
        items={"type": "string"},
        title="Override",
        description="CHECK or CHECK:COLUMN that shall not stop this run, one a line; needs a reason.",
        section="How",
    ),
    "take_over": Param(
        False,
        type="boolean",
        title="Take over",
        description="Do not wait for another run of the same partition; it can then no longer publish.",
        section="How",
    ),
    "reason": Param(
        None, type=["null", "string"], title="Reason", description="Kept in the run's records.", section="How"
    ),
}

ROLLBACK_PARAMS = {
    "pipeline": Param(
        type="string",
        pattern=f"^{PIPELINE_NAME}$",
        title="Pipeline",
        description="Its name: the folder's, without score_.",
        section="What",
    ),
    "partition": Param(type="string", format="date", title="Scoring date", section="What"),
    "to": Param(
        None,
        type=["null", "string"],
        title="Run",
        description="The run to go back to, like 2026-11-19-06aae3cf; empty: the one that was live before.",
        section="What",
    ),
    "reason": Param(type="string", minLength=1, title="Reason", description="Kept for good.", section="How"),
    "take_over": PARAMS["take_over"],
}

LIFECYCLE_PARAMS = {
    "model": Param(
        type="string", pattern=f"^{MODEL_NAME}$", title="Model", description="Its name in the registry.", section="What"
    ),
    "version": Param(
        "challenger",
        type="string",
        pattern=f"^([1-9][0-9]*|{MODEL_NAME})$",
        title="Version",
        description="The version to promote: a number, or the alias that points to it.",
        section="What",
    ),
    "alias": Param(
        "champion", type="string", pattern=f"^{MODEL_NAME}$", title="Alias", description="What moves.", section="What"
    ),
    "reason": ROLLBACK_PARAMS["reason"],
}

# Which predictions table a rollback changes is known only when it runs.
ROLLED_BACK = AssetAlias(name="nightscore-rolled-back", group="nightscore")


def iter_dags(folder: Path) -> Iterator[DAG]:
    """Yield the DAG of every pipeline; in a task's process only the one that the task belongs to.

    A broken spec becomes a DAG that fails every night with the spec's fault: a pipeline that silently vanished would be
    missed by nobody until its predictions are.
    """
    wanted = get_parsing_context().dag_id
    after: dict[str, list[str]] = {}
    for spec in _specs_for(wanted, folder):
        if wanted != WITHOUT_PARTITION:
            yield make_broken_dag(spec) if isinstance(spec, SpecError) else make_dag(spec)
        if isinstance(spec, Spec) and spec.schedule is not None and spec.schedule.after is not None:
            after.setdefault(spec.schedule.after, []).append(spec.name)
    if after and wanted in (None, WITHOUT_PARTITION):
        yield make_event_dag(after)


def _specs_for(dag_id: str | None, folder: Path) -> Iterator[Spec | SpecError]:
    """Yield the specs that a DAG is made of, or all: a task's process reads no other pipeline's files."""
    if dag_id in (None, WITHOUT_PARTITION):
        yield from iter_specs(folder)
        return
    if not str(dag_id).startswith(DAG_PREFIX):  # a DAG of another file
        return
    try:
        yield load_spec(str(dag_id).removeprefix(DAG_PREFIX), folder)
    except SpecError as error:
        yield error
    except PipelineNotFoundError:
        return


def make_dag(spec: Spec) -> DAG:
    """Return the DAG of a pipeline: one task per stage, one mapped task per shard."""
    resources = spec.resources or Resources()
    with DAG(
        spec.dag_id,
        schedule=timetable(spec.schedule) if spec.schedule is not None else None,
        start_date=START,
        catchup=False,
        max_active_runs=4,
        description=spec.description.strip().split("\n")[0][:250] or f"Scores {spec.source}.",
        doc_md=_documentation(spec),
        tags={TAG, f"model:{spec.model.name}"[:100]},
        default_args={
            "owner": spec.owner,
            "retries": 3,
            "retry_delay": dt.timedelta(seconds=30),
            "retry_exponential_backoff": 2.0,
            "max_retry_delay": dt.timedelta(minutes=10),
            "retry_policy": RETRIES,
            "executor_config": executor_config(resources.rest),
        },
        deadline=deadlines.alert_of(spec),
    ) as dag:
        planned: Any = task(task_id="plan")(tasks.plan)(spec.name)
        if spec.features.wait is not None:
            WaitForData(task_id="wait", pipeline=spec.name) >> planned
        run, term = planned[tasks.RUN_KEY], planned[tasks.TERM_KEY]
        frozen = task(task_id="freeze")(tasks.freeze)(spec.name, run, term)
        checked = task(task_id="feature_gate")(tasks.feature_gate)(spec.name, run, term)
        scored = (
            task(
                task_id="score",
                map_index_template="{{ shard_label | default('') }}",
                executor_config=executor_config(resources.score),
                max_active_tis_per_dagrun=spec.limits.parallel_shards,
            )(tasks.score)
            .partial(pipeline=spec.name, run=run, term=term)
            .expand(shard=planned)
        )
        proven = task(task_id="prediction_gate")(tasks.prediction_gate)(spec.name, run, term)
        published = task(task_id="publish", outlets=[predictions_asset(spec)])(tasks.publish)(spec.name, run, term)
        recorded = task(task_id="record", trigger_rule=TriggerRule.ALL_DONE)(tasks.record)(spec.name)
        frozen >> checked >> scored >> proven >> published >> recorded
        if spec.model.challengers:
            # A publication that was skipped is a dry run, and challengers then have their say in its record.
            rule = TriggerRule.NONE_FAILED
            shadowed = task(task_id="shadow", trigger_rule=rule)(tasks.shadow)(spec.name, run, term)
            compared = task(task_id="evidence")(tasks.evidence)(spec.name, run, term)
            published >> shadowed >> compared >> recorded
            if spec.promotion is not None:
                # A leaf decides on the state of the night, and a proposal that cannot be made must not.
                compared >> lifecycle.Propose(task_id="propose", pipeline=spec.name) >> recorded
    # After the tasks, which are given their DAG's params all the same: each would copy them, and Airflow would check
    # every copy against its schema whenever it looks at one; that was nine tenths of the time for serialising. And past
    # the DAG's own check, which finds the same for each of a thousand DAGs. Params keep what a run was given, so every
    # DAG has its own.
    object.__setattr__(dag, "params", ParamsDict({name: copy.copy(param) for name, param in PARAMS.items()}))
    return dag


def timetable(schedule: Schedule) -> CronPartitionTimetable | PartitionedAssetTimetable:
    """Return what starts a pipeline's runs and names their partitions: the clock, or another table's asset."""
    if schedule.after is not None:
        return PartitionedAssetTimetable(assets=asset_of(schedule.after))
    return CronPartitionTimetable(
        str(schedule.cron), timezone=schedule.timezone, run_offset=schedule.offset, key_format="%Y-%m-%d"
    )


def make_event_dag(after: dict[str, list[str]]) -> DAG:
    """Return the DAG that fails when an event comes without a partition key; `after` is table → pipelines.

    A partitioned DAG is not started by such an event, and Airflow says so in its audit log alone. A DAG that is not
    partitioned is started by these events, and by no others.
    """
    with DAG(
        WITHOUT_PARTITION,
        schedule=AssetAny(*(asset_of(table) for table in after)),
        start_date=START,
        catchup=False,
        max_active_runs=1,
        is_paused_upon_creation=False,
        description="Fails when a table's event names no partition.",
        doc_md=(
            "These tables' events start pipelines. Such an event must have a partition key, the scoring date; for one "
            "that has none, this DAG fails and says which pipelines were not started.\n\n"
            + "\n".join(f"* `{table}`: {', '.join(names)}" for table, names in after.items())
        ),
        tags={TAG},
        default_args={"owner": TAG, "retries": 0},
    ) as dag:
        task(task_id="name_the_partition")(tasks.fail_for_event)(after)
    return dag


def make_broken_dag(error: SpecError) -> DAG:
    """Return a DAG that fails every night with what is wrong with its spec."""
    with DAG(
        f"{DAG_PREFIX}{error.pipeline}",
        schedule=CronPartitionTimetable("0 2 * * *", timezone="UTC", run_offset=-1, key_format="%Y-%m-%d"),
        start_date=START,
        catchup=False,
        max_active_runs=1,
        description="This pipeline's spec is broken.",
        doc_md=f"**The spec of this pipeline is broken:**\n\n```\n{error}\n```",
        tags={TAG, "broken-spec"},
    ) as dag:
        task(task_id="plan", retries=0)(tasks.fail_for_spec)(str(error))
    return dag


def make_rollback_dag() -> DAG:
    """Return the DAG that rolls a partition back; it has no schedule, only a form."""
    with DAG(
        "roll_back",
        schedule=None,
        start_date=START,
        catchup=False,
        max_active_runs=4,
        description="Publishes the kept predictions of an earlier run again.",
        doc_md=(
            "Publishes the kept predictions of an earlier run again, in one statement; nothing is scored. Trigger it "
            "with a pipeline, a scoring date and a reason; without a run, it goes back to the one that was live "
            "before.\n\nFrom a terminal: `nightscore rollback PIPELINE --partition DATE --reason WHY`."
        ),
        params=ROLLBACK_PARAMS,
        tags={TAG},
        default_args={"owner": TAG, "retries": 3, "retry_delay": dt.timedelta(seconds=30), "retry_policy": RETRIES},
    ) as dag:
        task(task_id="roll_back", outlets=[ROLLED_BACK])(tasks.roll_back)()
    return dag


def make_lifecycle_dag() -> DAG:
    """Return the DAG that promotes a version of a model; a form starts it, or a pipeline whose challenger is due."""
    with DAG(
        lifecycle.DAG_ID,
        schedule=None,
        start_date=START,
        catchup=False,
        max_active_runs=16,
        is_paused_upon_creation=False,
        description="Promotes a version of a model: evidence, policy, a human's approval.",
        doc_md=(
            "Gathers the evidence of all nights on which the version and the champion scored the same rows, judges it "
            "by `promotion` of every pipeline that uses the model, and asks for approval under *Required Actions*. "
            "Approved, the alias moves, and its history holds the approver and the evidence's digest. No answer in "
            "time is a no.\n\n**`gather` is red:** a policy is not met; its log names the rule. Nobody was asked.\n\n"
            "**`promote` is red:** the alias was moved meanwhile, or the version is not what was registered; the log "
            "says which.\n\nFrom a terminal: `nightscore models promote MODEL VERSION --reason WHY`; back again: "
            "`nightscore models rollback MODEL --reason WHY`."
        ),
        params=LIFECYCLE_PARAMS,
        tags={TAG},
        default_args={"owner": TAG, "retries": 3, "retry_delay": dt.timedelta(seconds=30), "retry_policy": RETRIES},
    ) as dag:
        gathered = task(task_id="gather")(lifecycle.gather)()
        approved = lifecycle.Approve(task_id="approve")
        gathered >> approved >> task(task_id="promote")(lifecycle.promote)()
    return dag


def predictions_asset(spec: Spec) -> Asset:
    """Return the asset that a publication updates; DAGs that read the predictions schedule on it by its name."""
    return asset_of(spec.predictions.table)


def asset_of(table: str) -> Asset:
    """Return the asset of a predictions table."""
    return Asset(name=table, group="nightscore")


def _documentation(spec: Spec) -> str:
    rows = {
        "features": spec.source,
        "model": str(spec.model),
        "predictions": spec.predictions.table,
        "keys": ", ".join(spec.features.keys),
        "row rules": ", ".join(spec.features.reject) or "none",
        "owner": spec.owner,
        "spec": f"`dags/pipelines/{spec.name}/pipeline.yaml`",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    triage = (
        "**A gate is red:** nothing was published and the earlier predictions stand; its log names the check, what was "
        "seen and how many rows. Retrying gives the same answer; mend the data or the spec and start a new run.\n\n"
        "**Anything else is red:** a server failed or the spec is wrong; the log says which. Clear the task, or "
        "trigger the partition again: what was done is not done twice. From a terminal: "
        f"`nightscore run {spec.name} --partition DATE`.\n\n"
        f"{_about_waiting(spec)}"
        "**Another run works on the partition:** the message names it. Let it end, or trigger with *Take over*.\n\n"
        "**What was published is wrong:** publish the earlier predictions again, by the DAG `roll_back` or by "
        f"`nightscore rollback {spec.name} --partition DATE --reason WHY`."
    )
    return f"{spec.description}\n\n| | |\n|---|---|\n{table}\n\n### When a night fails\n\n{triage}"


def _about_waiting(spec: Spec) -> str:
    if spec.features.wait is None:
        return ""
    until = ", ".join(f"`{text}`" for text in spec.features.wait.until)
    return (
        f"**`wait` is red:** the data did not come in time; the log says what was last seen of {until}. Trigger the "
        "partition again when it is there.\n\n"
    )
