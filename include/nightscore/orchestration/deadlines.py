"""Deadlines in Airflow: an alert of every scheduled run, and what the triggerer does when it comes.

Airflow counts from the moment when a run was queued, by the clock of no zone. So its alert is where somebody looks, and
`nightscore.deadline` decides: which run has a deadline, when it is, whether it was missed.
"""

import datetime as dt
import logging
from collections.abc import Mapping
from typing import Any

from nightscore.spec import Schedule, Spec

log = logging.getLogger(__name__)

CALLBACK = f"{__name__}.look"
REFERENCE_DAY = dt.datetime(2026, 1, 12, tzinfo=dt.UTC)  # a Monday; no zone of the world changes its clocks that week


def alert_of(spec: Spec) -> Any:
    """Return the alert of a pipeline's DAG; None without a deadline, or where no clock starts the runs.

    The callback is one of the triggerer's: it needs no slot and no worker, which may be just what is missing.
    """
    interval = shortest_interval(spec)
    if interval is None:
        return None
    from airflow.sdk.definitions.callback import AsyncCallback
    from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

    return DeadlineAlert(
        name="deadline",
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=interval,
        callback=AsyncCallback(CALLBACK, kwargs=_arguments(spec)),
    )


def shortest_interval(spec: Spec) -> dt.timedelta | None:
    """Return the time from a tick of `cron` to the deadline; where it varies, the shortest of an ordinary week."""
    from croniter import croniter

    from nightscore.timing import first_at

    if spec.deadline is None or spec.schedule is None or spec.schedule.cron is None:
        return None
    local = REFERENCE_DAY.astimezone(spec.schedule.zone)
    ticks = croniter(spec.schedule.cron, local)
    found: list[dt.timedelta] = []
    for _ in range(7):
        tick: dt.datetime = ticks.get_next(dt.datetime)
        found.append(first_at(spec.deadline, tick) - tick)
    return min(found)


def _arguments(spec: Spec) -> dict[str, Any]:
    """Return what the triggerer must know of a spec; it need not have the folder of pipelines."""
    schedule = spec.schedule.model_dump(mode="json") if spec.schedule else None
    return {"pipeline": spec.name, "deadline": spec.deadline, "schedule": schedule}


async def look(pipeline: str, deadline: str, schedule: dict[str, Any], context: Mapping[str, Any]) -> str:
    """Announce a missed deadline, if it is one; return what was found, for Airflow's list of callbacks.

    Args:
        pipeline: its name.
        deadline: what clocks show.
        schedule: the pipeline's schedule, as its JSON.
        context: of the alert: `dag_run`, as Airflow's API shows it.
    """
    import asyncio

    from nightscore.deadline import deadline_at

    run = context["dag_run"]
    if why := _not_awaited(run):
        return why
    partition, begun = _partition(run), dt.datetime.fromisoformat(run["run_after"])
    moment = None if partition is None else deadline_at(deadline, Schedule(**schedule), partition, begun)
    if partition is None or moment is None:
        return "this run has no deadline"
    early = (moment - dt.datetime.now(dt.UTC)).total_seconds()
    if early > 0:  # the clocks were changed tonight, or the schedule is not the same every day
        await asyncio.sleep(early)
    # Google's clients block, and importing them does: neither may hold up the triggerer's other triggers.
    said = await asyncio.to_thread(_look, pipeline, partition, deadline, moment)
    return "the deadline was missed" if said else "published in time, or said before"


def _look(pipeline: str, partition: dt.date, deadline: str, moment: dt.datetime) -> bool:
    from nightscore.deadline import announce_if_missed
    from nightscore.events import About
    from nightscore.logs import bound
    from nightscore.run import build_services
    from nightscore.settings import settings

    with bound(pipeline=pipeline, partition=partition.isoformat()):
        about = About(pipeline, partition)
        return announce_if_missed(build_services(settings()), about, deadline, moment, dt.datetime.now(dt.UTC))


def _not_awaited(run: Mapping[str, Any]) -> str | None:
    """Return why nobody waits for a run: it has ended, which has its own event, or no schedule started it."""
    if run["state"] in ("success", "failed"):
        return f"the run ended before: {run['state']}"
    if run["run_type"] != "scheduled":
        return f"nobody waits for it by the clock: the run is {run['run_type']}"
    return None


def _partition(run: Mapping[str, Any]) -> dt.date | None:
    key = run.get("partition_key")
    return dt.date.fromisoformat(key) if key else None
