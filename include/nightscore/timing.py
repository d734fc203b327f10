"""How long a run will take, told from those before it, and whether it will end before the deadline."""

import datetime as dt
import statistics
import zoneinfo
from collections.abc import Iterable, Sequence
from itertools import islice

from nightscore.objects import Bucket, Json
from nightscore.records import RunRecords
from nightscore.spec import Schedule, Spec

MOST_RUNS = 10
MOST_PUBLICATIONS = 30  # are looked at for them


def past_runs(bucket: Bucket, pipeline: str, publications: Iterable[Json]) -> list[Json]:
    """Return the summaries of the last ten published runs that went through in one piece, the latest first.

    Args:
        bucket: where the records are.
        pipeline: whose runs.
        publications: the pipeline's, the latest first; one that rolled back names a run that may be named again.
    """
    found: dict[str, Json] = {}
    for name in (str(item["run_id"]) for item in islice(publications, MOST_PUBLICATIONS)):
        run = RunRecords(bucket, pipeline, name).read("run") if name not in found else None
        if run is not None and run.get("seconds") and not run.get("resumed"):
            found[name] = run
        if len(found) == MOST_RUNS:
            break
    return list(found.values())


def expected_seconds(runs: Sequence[Json], rows: int | None) -> float | None:
    """Return how long a run of so many rows will take: the median of seconds per row, times the rows.

    Where the rows are not known, it is the median of the seconds; without a run, it is None.

    >>> expected_seconds([{"seconds": 10.0, "rows_frozen": 100}, {"seconds": 30.0, "rows_frozen": 100}], 200)
    40.0
    """
    rates: list[float] = [run["seconds"] / run["rows_frozen"] for run in runs if run.get("rows_frozen")]
    if rows is None or not rates:
        return round(statistics.median(run["seconds"] for run in runs), 1) if runs else None
    rate: float = statistics.median(rates)
    return round(rate * rows, 1)


def expected(spec: Spec, start: dt.datetime, seconds: float | None, runs: int, due: dt.datetime | None = None) -> Json:
    """Return when a run will end, and whether that is late.

    Args:
        spec: the pipeline.
        start: when the run begins, with its zone.
        seconds: how long it will take, if that is known.
        runs: how many runs that was told from.
        due: when the run should have begun, with its zone; by default it begins in time.

    Returns:
        `seconds`, `runs`, `starts_at`, `ends_at`, `deadline_at` (the first such time at or after `due`; times with
        their offset) and `late` (None where the deadline or the duration is not known).
    """
    zone: dt.tzinfo = zoneinfo.ZoneInfo(spec.schedule.timezone) if spec.schedule else dt.UTC
    start = start.astimezone(zone)
    # In UTC: within a zone, Python adds to what clocks show, also over the night in which they are changed.
    end = None if seconds is None else (start.astimezone(dt.UTC) + dt.timedelta(seconds=seconds)).astimezone(zone)
    deadline = None if spec.deadline is None else first_at(spec.deadline, (due or start).astimezone(zone))
    return {
        "seconds": seconds,
        "runs": runs,
        "starts_at": start.isoformat(timespec="seconds"),
        "ends_at": None if end is None else end.isoformat(timespec="seconds"),
        "deadline_at": None if deadline is None else deadline.isoformat(timespec="seconds"),
        "late": None if end is None or deadline is None else end.timestamp() > deadline.timestamp(),
    }


def due_at(schedule: Schedule | None, partition: dt.date, start: dt.datetime) -> dt.datetime:
    """Return when a run that begins at `start` should have begun: at its partition's tick of less than a day ago.

    A backfill of long ago has no deadline of its own any more; it is due when it begins.

    >>> nightly, late = Schedule(cron="0 2 * * *"), dt.datetime(2026, 11, 20, 6, 30, tzinfo=dt.UTC)
    >>> str(due_at(nightly, dt.date(2026, 11, 19), late)), str(due_at(nightly, dt.date(2026, 10, 1), late))
    ('2026-11-20 02:00:00+00:00', '2026-11-20 06:30:00+00:00')
    """
    tick = schedule.tick_of(partition) if schedule else None
    return tick if tick is not None and dt.timedelta() <= start - tick < dt.timedelta(days=1) else start


def next_start(schedule: Schedule | None, now: dt.datetime) -> dt.datetime:
    """Return the schedule's next tick, or now where only triggers start a run.

    >>> next_start(Schedule(cron="0 2 * * *"), dt.datetime(2026, 11, 20, 10, tzinfo=dt.UTC)).isoformat()
    '2026-11-21T02:00:00+00:00'
    """
    from croniter import croniter

    cron = schedule.cron if schedule else None
    if schedule is None or not cron:
        return now
    local = now.astimezone(zoneinfo.ZoneInfo(schedule.timezone))
    tick: dt.datetime = croniter(cron, local).get_next(dt.datetime)
    return tick


def first_at(time: str, start: dt.datetime) -> dt.datetime:
    """Return the first moment at or after `start` at which clocks of its zone show `time`.

    >>> first_at("06:00", dt.datetime(2026, 11, 20, 23, tzinfo=dt.UTC)).isoformat()
    '2026-11-21T06:00:00+00:00'
    """
    found = dt.datetime.combine(start.date(), dt.time.fromisoformat(time), start.tzinfo)
    # Of two times in one zone Python compares what clocks show; those of the hour that comes twice are told by UTC.
    return found if found.timestamp() >= start.timestamp() else found + dt.timedelta(days=1)
