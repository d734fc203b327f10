"""Which events a run's steps are, and with which figures."""

import datetime as dt
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from nightscore.deadline import announce_if_missed, deadline_at
from nightscore.errors import GateRefusedError, NightscoreError
from nightscore.events import About, DriftMeasured, Event, GateJudged, RunEnded, RunPlanned, announce, checks_named
from nightscore.lease import LeaseHeldError
from nightscore.logs import bound
from nightscore.objects import Json
from nightscore.run import Run, Services, utc_now
from nightscore.settings import Settings

GATES = ("feature_gate", "prediction_gate")

log = logging.getLogger(__name__)


def about(run: Run) -> About:
    """Return what a run's events are about."""
    return About(run.spec.name, run.plan.partition, run.plan.run_id)


@contextmanager
def logged(run: Run) -> Iterator[None]:
    """Have every line that is logged in the block say which run it belongs to."""
    subject = about(run)
    with bound(
        pipeline=subject.pipeline,
        partition=subject.partition.isoformat(),
        run_id=subject.run_id,
        trace_id=subject.trace_id,
    ):
        yield


def announce_plan(run: Run, *, resumed: bool, wanted_at: dt.datetime | None) -> None:
    """Announce that the run was planned, or taken up; `wanted_at` is when the schedule wanted it."""
    plan = run.plan
    delay = None if wanted_at is None or resumed else max(0.0, (plan.scored_at - wanted_at).total_seconds())
    event = RunPlanned(
        rows=plan.rows,
        estimated_bytes=plan.estimated_bytes,
        resumed=resumed,
        queue_delay_seconds=None if delay is None else round(delay, 3),
        model_version=plan.model.label,
    )
    _announce(run, event, f"resumed-{run.require_lease().token}" if resumed else "")


def announce_stage(run: Run, stage: str, record: Json) -> None:
    """Announce what a stage has found, if it is one that has something to announce."""
    if stage not in GATES:
        return
    failed = [str(check["expectation"]) for check in record["checks"] if not check["passed"]]
    event = GateJudged(
        gate="feature_gate" if stage == "feature_gate" else "prediction_gate",
        verdict=record["verdict"],
        failed_checks=checks_named(failed),
        checks=len(record["checks"]),
        model_version=run.plan.model.label,
    )
    _announce(run, event, stage)
    changes = record.get("changes")
    if changes:
        _announce(run, DriftMeasured(changes.get("psi"), changes.get("mean"), changes.get("rows")), "")


def announce_end(run: Run, summary: Json) -> None:
    """Announce the end of a run. One that failed may be taken up and fail again, and is announced each time."""
    scored, seconds = summary.get("rows_scored"), summary.get("scoring_seconds")
    event = RunEnded(
        status=summary["status"],
        stopped_at=summary.get("stopped_at") or "",
        model_version=run.plan.model.label,
        rows_frozen=summary.get("rows_frozen"),
        rows_rejected=summary.get("rows_rejected"),
        rows_scored=scored,
        rows_published=summary.get("rows_published"),
        rows_per_second=round(scored / seconds, 1) if scored and seconds else None,
        bytes_billed=summary.get("bytes_billed"),
        seconds=summary.get("seconds"),
    )
    if event.status == "failed":
        announce(run.warehouse.config, event, about(run), occurrence=utc_now().isoformat())
    else:
        _announce(run, event, "")


def announce_unplanned(config: Settings, pipeline: str, partition: dt.date, *, refused_at: str | None) -> None:
    """Announce the end of a run that has no plan; `refused_at` names the step that refused the data, if one did."""
    event = RunEnded(status="refused" if refused_at else "failed", stopped_at=refused_at or "")
    announce(config, event, About(pipeline, partition), occurrence=utc_now().isoformat())


@contextmanager
def unplanned(services: Services, pipeline: str, partition: dt.date, step: str) -> Iterator[None]:
    """Announce the end of a run when a step before its plan fails in the block.

    Not where another run works on the partition: that one will say how it ended.
    """
    try:
        yield
    except LeaseHeldError:
        raise
    except Exception as error:
        refused_at = step if isinstance(error, GateRefusedError) else None
        announce_unplanned(services.warehouse.config, pipeline, partition, refused_at=refused_at)
        raise


def watch_deadline(run: Run) -> None:
    """Announce a missed deadline, once it is over; what goes wrong in here costs no night."""
    plan, time = run.plan, run.spec.deadline
    if time is None or plan.dry_run:
        return
    try:
        deadline = deadline_at(time, run.spec.schedule, plan.partition, plan.scored_at)
        if deadline is not None and utc_now() >= deadline:
            announce_if_missed(run.services, about(run), time, deadline, utc_now())
    except NightscoreError as error:
        log.info("whether the deadline was missed cannot be told: %s", error)
    except Exception:  # records that others wrote may be anything
        log.exception("whether the deadline was missed cannot be told")


def _announce(run: Run, event: Event, occurrence: str) -> None:
    announce(run.warehouse.config, event, about(run), occurrence=occurrence, keep=run.records.write_once)
