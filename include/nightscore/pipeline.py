"""The pipeline: the order of the stages is read here, and nowhere else.

Every stage takes the run and returns its record. This module writes the record, once; a stage that has one is not run
again, which is how a killed run resumes.
"""

import datetime as dt
import time
from collections.abc import Callable, Sequence
from typing import Any

from nightscore.assessment import Assessment
from nightscore.errors import LeaseLostError, NightscoreError
from nightscore.gates.expectations import expectation_faults
from nightscore.gates.feature_gate import feature_gate
from nightscore.gates.gate import GateStoppedError
from nightscore.gates.prediction_gate import prediction_gate
from nightscore.lease import Holder, Lease
from nightscore.ledger import record, summarise
from nightscore.logs import bound
from nightscore.monitoring.night import evidence
from nightscore.objects import Json
from nightscore.plan import Plan, plan
from nightscore.predictions import publish
from nightscore.progress import LoggedProgress, Progress
from nightscore.run import Run, Services, take_lease
from nightscore.run_events import announce_end, announce_plan, announce_stage, logged, watch_deadline
from nightscore.scoring.shard import score_shard
from nightscore.shadow import shadow
from nightscore.snapshot import freeze
from nightscore.spec import ModelReference, Spec


def score(run: Run) -> Json:
    """Score every shard in this process; return the sum of the receipts."""
    receipts = [score_shard(run, shard) for shard in range(run.plan.shards)]
    return {
        "rows": sum(int(receipt["rows"]) for receipt in receipts),
        "shards": len(receipts),
        "reused_shards": sum(1 for receipt in receipts if receipt.get("reused")),
    }


STAGES: tuple[Callable[[Run], Json], ...] = (freeze, feature_gate, score, prediction_gate, publish, shadow, evidence)


def stages_of(run: Run) -> tuple[Callable[[Run], Json], ...]:
    """Return the stages of a run: without challengers there is nothing to put into their table, nor to compare."""
    return tuple(stage for stage in STAGES if stage not in (shadow, evidence) or run.plan.challengers)


def run_stage(run: Run, stage: Callable[[Run], Json]) -> Json:
    """Run one stage unless its record is there; write the record and return it.

    Raises:
        GateStoppedError: the stage refused, now or when it ran before.
        LeaseLostError: another run has taken the partition over.
    """
    name = stage.__name__
    found = run.records.read(name)
    if found is None:
        run.require_lease().require()
        watch_deadline(run)
        run.progress.stage_began(name)
        started, clock = dt.datetime.now(dt.UTC), time.monotonic()
        content = stage(run)
        timing = {"started_at": started.isoformat(), "seconds": round(time.monotonic() - clock, 3)}
        announce_stage(run, name, content)
        found = run.records.write_once(name, {**content, **timing})
    else:
        found = {**found, "reused": True}
    run.progress.stage_ended(name, found)
    if found.get("verdict") == "stop":
        raise GateStoppedError(run.spec.name, name, found, run.records.uri)
    return found


def finish(run: Run) -> Json:
    """Write the run's summary; a run that a retry can still complete stays open and only says where it stands."""
    run.progress.stage_began("record")
    found = run.records.read("run")
    if found is None:
        found = record(run)
        watch_deadline(run)
        announce_end(run, found)
        if found["status"] != "failed":
            found = run.records.write_once("run", found)
    run.progress.stage_ended("record", found)
    return found


def start(
    spec: Spec,
    partition: dt.date,
    services: Services,
    *,
    model: ModelReference | None = None,
    dry_run: bool = False,
    overrides: Sequence[str] = (),
    accept_warnings: bool = False,
    reason: str | None = None,
    planned_by: str | None = None,
    progress: Progress | None = None,
    holder: Holder | None = None,
    wait: float = 0.0,
    take_over: bool = False,
    wanted_at: dt.datetime | None = None,
    inspect: Callable[[Assessment], None] = lambda _: None,
) -> Run:
    """Take the partition's lease, and plan a run or take up the unfinished one; return its context.

    Args:
        spec: the pipeline.
        partition: the scoring date.
        services: the deployment.
        model: another model than the spec's.
        dry_run: score and check, publish nothing.
        overrides: names of checks that shall not stop the run; need a reason.
        accept_warnings: publish with warnings, where the spec would hold the run.
        reason: why it is run by hand.
        planned_by: who runs it; by default the user of this process.
        progress: who is told.
        holder: who holds the lease; by default this process.
        wait: seconds to wait for a run that works on the partition.
        take_over: do not wait for it; it can then no longer publish.
        wanted_at: when the schedule wanted the run, with its zone.
        inspect: is given what was found, before it is judged.

    Raises:
        LeaseHeldError: another run works on the partition.
        NightscoreError: it cannot be planned; the lease was given back.
    """
    with bound(pipeline=spec.name, partition=partition.isoformat()):
        return _start(
            spec,
            partition,
            services,
            progress or LoggedProgress(),
            model=model,
            dry_run=dry_run,
            overrides=overrides,
            accept_warnings=accept_warnings,
            reason=reason,
            planned_by=planned_by,
            holder=holder,
            wait=wait,
            take_over=take_over,
            wanted_at=wanted_at,
            inspect=inspect,
        )


def _start(
    spec: Spec,
    partition: dt.date,
    services: Services,
    progress: Progress,
    *,
    holder: Holder | None,
    wait: float,
    take_over: bool,
    wanted_at: dt.datetime | None,
    inspect: Callable[[Assessment], None],
    **decisions: Any,
) -> Run:
    progress.stage_began("plan")
    lease = take_lease(services, spec.name, partition, progress, holder=holder, wait=wait, take_over=take_over)

    def judged(found: Assessment) -> Assessment:
        found = found.with_reasons(expectation_faults(spec))
        inspect(found)
        return found

    try:
        with lease.renewed():
            decided, resumed = plan(
                spec,
                partition,
                services.warehouse,
                services.registry,
                inspect=judged,
                **decisions,
            )
            run = Run(decided, services, progress, lease)
            if resumed:
                _write_resume(run, lease)
            announce_plan(run, resumed=resumed, wanted_at=wanted_at)
    except BaseException:
        lease.release()
        raise
    progress.stage_ended("plan", _planned(decided, resumed=resumed))
    return run


def run_pipeline(run: Run) -> Json:
    """Run a planned run from end to end in this process; return its summary.

    Raises:
        GateRefusedError: a gate stopped the run; its summary is written.
        NightscoreError: anything else that went wrong; planning again takes the run up where it stopped.
    """
    lease = run.require_lease()
    with logged(run):
        try:
            with lease.renewed():
                try:
                    for stage in stages_of(run):
                        run_stage(run, stage)
                except GateStoppedError:
                    finish(run)
                    raise
                return finish(run)
        except (GateStoppedError, LeaseLostError):
            raise  # the first is announced; whoever has the lease now will say how the night ended
        except Exception:
            _break_off(run)
            raise
        finally:
            lease.release()


def _break_off(run: Run) -> None:
    """Announce how far the run came, with what its records tell; a server that fails may be why they tell nothing.

    What failed after the publication wakes nobody: readers have the night's predictions.
    """
    try:
        summary = summarise(run)
    except NightscoreError:
        summary = {"status": "failed"}
    announce_end(run, summary)


def _write_resume(run: Run, lease: Lease) -> None:
    """Record who took the run up, and what was done already."""
    done = [stage.__name__ for stage in stages_of(run) if run.records.read(stage.__name__) is not None]
    run.records.write_once(
        f"resumes/{lease.token}",
        {
            "by": lease.holder.who,
            "at": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
            "stages": done,
            "shards": sum(1 for _ in run.records.receipts()),
        },
    )


def _planned(decided: Plan, *, resumed: bool) -> Json:
    return {
        "run_id": decided.run_id,
        "rows": decided.rows,
        "shards": decided.shards,
        "model": decided.model.label,
        "challengers": ", ".join(pinned.label for pinned in decided.challengers),
        "reused": resumed,
    }
