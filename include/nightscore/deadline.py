"""A pipeline's deadline: when it is for a partition, and saying once that it was missed."""

import datetime as dt

from nightscore.events import About, DeadlineMissed, announce
from nightscore.objects import Bucket, Json, to_json
from nightscore.publications import read_publications
from nightscore.run import Services
from nightscore.spec import Schedule
from nightscore.timing import first_at

ROOT = "deadlines/"  # <pipeline>/<partition>.json: the entry that is written, and whether it was
LATEST = dt.timedelta(days=1)  # after the deadline: nobody is called for a night that is taken up a week later
FRESH = dt.timedelta(days=2)  # of partitions that no clock names: whoever starts an older one is not awaited


def deadline_at(
    time: str | None, schedule: Schedule | None, partition: dt.date, begun: dt.datetime
) -> dt.datetime | None:
    """Return when a partition's predictions must be there; None where nobody waits for them by the clock.

    With `cron` it is the first such time after the partition's own tick, of a run that began within a day of that: a
    backfill of long ago has no deadline. Without, it is the first one after the run began.

    Args:
        time: the pipeline's deadline, what clocks show.
        schedule: the pipeline's schedule.
        partition: the scoring date.
        begun: when its run began, with its zone.

    >>> nightly, morning = Schedule(cron="0 4 * * *"), dt.datetime(2026, 11, 20, 9, tzinfo=dt.UTC)
    >>> str(deadline_at("06:00", nightly, dt.date(2026, 11, 19), morning))
    '2026-11-20 06:00:00+00:00'
    >>> deadline_at("06:00", nightly, dt.date(2026, 10, 1), morning) is None
    True
    """
    if time is None:
        return None
    zone = schedule.zone if schedule else dt.UTC
    tick = schedule.tick_of(partition) if schedule else None
    if tick is not None:
        # A tick that is still to come is that of a run which somebody started early.
        return first_at(time, tick) if begun - tick < dt.timedelta(days=1) else None
    start = begun.astimezone(zone)
    return first_at(time, start) if start.date() - partition <= FRESH else None


def announce_if_missed(services: Services, about: About, time: str, deadline: dt.datetime, now: dt.datetime) -> bool:
    """Announce that a deadline was missed: when it is over, nothing was published by then, and nobody has said so yet.

    Args:
        services: the deployment.
        about: the run; without its id where none is known.
        time: the pipeline's deadline, what clocks show.
        deadline: the moment that it is for this partition.
        now: the present time, with its zone.

    Returns:
        Whether it was announced.
    """
    if now < deadline or now - deadline > LATEST:
        return False
    bucket, name = services.bucket, f"{ROOT}{about.pipeline}/{about.partition}.json"
    found = bucket.read_json(name)
    if found is not None and found["announced"]:
        return False
    if found is None and _is_published(bucket, about, deadline):
        return False

    def keep(_: str, entry: Json) -> Json:
        said = {"deadline": deadline.isoformat(), "announced": False, "entry": entry}
        bucket.create(name, to_json(said))
        kept = bucket.read_json(name)
        return entry if kept is None else dict(kept["entry"])

    # Kept first, and marked in the end: whoever finds it unmarked writes the same entry again, which counts once.
    announce(services.warehouse.config, DeadlineMissed(time), about, keep=keep)
    stored = bucket.read(name)
    return stored is not None and bucket.swap(name, to_json({**stored.json(), "announced": True}), stored.generation)


def _is_published(bucket: Bucket, about: About, deadline: dt.datetime) -> bool:
    found = read_publications(bucket, about.pipeline, about.partition)
    return any(dt.datetime.fromisoformat(item["published_at"]) <= deadline for item in found)
