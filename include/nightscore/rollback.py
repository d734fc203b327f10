"""Rolling a partition back: an earlier run's kept staging table is published again. Nothing is scored again."""

import datetime as dt
from collections.abc import Sequence

from nightscore.contents import read_contents
from nightscore.errors import ConfigurationError, TransientError, listed, near_miss
from nightscore.gates.gate import GateStoppedError
from nightscore.lease import Holder, Lease
from nightscore.ledger import record_publications
from nightscore.objects import Json
from nightscore.predictions import columns_of, ensure_table, republish, stage
from nightscore.progress import LoggedProgress, Progress
from nightscore.publications import read_publications
from nightscore.records import ROOT
from nightscore.replacement import begin_publication
from nightscore.run import Run, Services, open_run, take_lease, utc_now
from nightscore.scoring.checksum import Checksum


class RollbackError(ConfigurationError):
    """There is no such publication to go back to, or its rows are no longer kept."""


def roll_back(
    services: Services,
    pipeline: str,
    partition: dt.date,
    *,
    to: str | None = None,
    reason: str | None = None,
    progress: Progress | None = None,
    holder: Holder | None = None,
    wait: float = 0.0,
    take_over: bool = False,
) -> Json:
    """Publish the predictions of an earlier run again, in one MERGE; return the publication's record.

    Args:
        services: the deployment.
        pipeline: the pipeline's name.
        partition: the scoring date.
        to: a run's id or its beginning; by default the run that was live before the present one.
        reason: why; kept with the publication.
        progress: who is told.
        holder: who holds the lease; by default this process.
        wait: seconds to wait for a run that works on the partition.
        take_over: do not wait for it; it can then no longer publish.

    Raises:
        RollbackError: there is no such publication, it is live already, or its rows are no longer kept.
        LeaseHeldError: a run works on the partition.
        GateStoppedError: the published rows were not the staged ones; the partition was put back.
    """
    progress = progress or LoggedProgress()
    published = read_publications(services.bucket, pipeline, partition)
    if not published:
        known = sorted(services.bucket.iter_folders(ROOT))
        hint = "" if pipeline in known else f" {near_miss(pipeline, known)}"
        raise RollbackError(f"{pipeline}: nothing was ever published for {partition}.{hint}")
    lease = take_lease(services, pipeline, partition, progress, holder=holder, wait=wait, take_over=take_over)
    try:
        with lease.renewed():
            run = _target(services, pipeline, partition, to, progress, lease)
            return _publish_again(run, reason)
    finally:
        lease.release()


def _target(
    services: Services, pipeline: str, partition: dt.date, to: str | None, progress: Progress, lease: Lease
) -> Run:
    """Return the run to go back to."""
    published = read_publications(services.bucket, pipeline, partition)
    last, live = published[-1], _live(services, pipeline, published[-1])
    earlier = list(dict.fromkeys(str(item["run_id"]) for item in reversed(published) if item["run_id"] != live))
    if to is not None:
        chosen = _chosen(pipeline, partition, to, list(dict.fromkeys([live, *earlier])))
    elif last["kind"] == "rollback" and last["published_by"] == lease.holder.who:
        chosen = str(last["run_id"])  # an attempt before this one got as far as that
    elif last["kind"] == "rollback" and last["run_id"] == live:
        raise RollbackError(
            f"{pipeline}: {partition} was rolled back to {live} already, at {last['published_at'][:19]} by "
            f"{last['published_by']}. To go elsewhere, name the run (`--to`)."
        )
    elif earlier:
        chosen = earlier[0]
    else:
        raise RollbackError(f"{pipeline}: {live} is the only run that was ever published for {partition}.")
    if to is not None and chosen == live:
        raise RollbackError(f"{pipeline}: the run {live} is what is published for {partition} already.")
    run = open_run(services, pipeline, chosen, progress, lease)
    table = run.warehouse.full_name(run.spec.predictions.table)
    if table != last["table"]:
        raise RollbackError(
            f"{pipeline}: the run {chosen} was published into {table}, and what is live is in {last['table']}. "
            "Score the partition again with the earlier model instead."
        )
    return run


def _live(services: Services, pipeline: str, last: Json) -> str:
    """Return the run whose rows the partition holds; a process may have died before it recorded its publication."""
    run = open_run(services, pipeline, str(last["run_id"]))
    task = str(_gate(run)["task"])
    found = {item.run_id for item in read_contents(run, run.spec.predictions.table, task).held}
    return str(found.pop()) if len(found) == 1 else str(last["run_id"])


def _gate(run: Run) -> Json:
    gate = run.records.read("prediction_gate")
    if gate is None:
        raise RollbackError(f"{run.spec.name}: the records of {run.plan.run_id} are incomplete: {run.records.uri}")
    return gate


def _chosen(pipeline: str, partition: dt.date, to: str, known: Sequence[str]) -> str:
    found = [run_id for run_id in known if run_id.startswith(to)]
    if len(found) == 1 or to in found:
        return to if to in found else found[0]
    if found:
        raise RollbackError(f"{pipeline}: several runs begin with {to!r}: {listed(found)}.")
    raise RollbackError(f"{pipeline}: no run {to!r} was published for {partition}. {near_miss(to, known)}")


def _publish_again(run: Run, reason: str | None) -> Json:
    plan = run.plan
    if plan.expires <= utc_now():
        raise RollbackError(
            f"{plan.spec.name}: the staged predictions of {plan.run_id} were kept until "
            f"{plan.expires:%Y-%m-%d %H:%M} UTC and are gone. Score the partition again, or keep them longer (`keep`)."
        )
    gate = _gate(run)
    task, expected = str(gate["task"]), Checksum.parse(gate["checksum"])
    run.progress.stage_began("publish")
    ensure_table(run, columns_of(plan, task))
    if not stage(run, task, expected).is_exactly(run, expected):
        raise RollbackError(
            f"{plan.spec.name}: the staged predictions of {plan.run_id} are not those that it scored any more, neither "
            f"in {run.staging_table} nor in its parts under {run.records.uri}shards/. Nothing was changed."
        )
    token = begin_publication(run)
    before = read_contents(run, plan.spec.predictions.table, task)
    found = republish(run, task, expected, before, token, kind="rollback", reason=reason)
    run.progress.stage_ended("publish", {**found, "seconds": 0.0})
    if found.get("verdict") == "stop":
        raise GateStoppedError(plan.spec.name, "publish", found, run.records.uri)
    try:
        record_publications(run)
    except TransientError as error:  # the partition is rolled back; a repetition would have nothing left to do
        run.progress.note(f"The table of publications will follow with the next run of the partition. {error}")
    return {
        "pipeline": plan.spec.name,
        "partition": plan.partition.isoformat(),
        "run_id": plan.run_id,
        "model_version": plan.model.label,
        "reason": reason,
        "table_name": plan.spec.predictions.table,
        **found,
    }
