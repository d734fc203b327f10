"""Removing what attempts left behind that died or lost: Parquet parts that no receipt names, and those of expired runs.

Tables expire by themselves. Records, receipts, leases and publications are small and stay for good.
"""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass

from nightscore.errors import ConfigurationError
from nightscore.objects import Bucket, Found, Json
from nightscore.plan import read_plan
from nightscore.records import ROOT, RunRecords, run_ids

LEAST_AGE = dt.timedelta(hours=1)  # an attempt uploads its part, and then writes the receipt that names it


class TooYoungError(ConfigurationError):
    """Leftovers that young may belong to an attempt that is still at work."""

    def __init__(self, older_than: dt.timedelta) -> None:
        super().__init__(
            f"Leftovers must be older than {LEAST_AGE.total_seconds() / 3600:g} h to be told from a running "
            f"attempt's work; {older_than.total_seconds() / 3600:g} h is too short."
        )


@dataclass(frozen=True)
class Leftover:
    """An object that nothing needs any more, and why."""

    pipeline: str
    run_id: str
    object: Found
    why: str

    def to_json(self) -> Json:
        """Return what is printed of it."""
        return {
            "pipeline": self.pipeline,
            "run_id": self.run_id,
            "name": self.object.name,
            "bytes": self.object.size,
            "updated": self.object.updated.isoformat(timespec="seconds"),
            "why": self.why,
        }


def iter_leftovers(
    bucket: Bucket, now: dt.datetime, older_than: dt.timedelta, pipeline: str | None = None
) -> Iterator[Leftover]:
    """Yield the leftovers of all pipelines, or of one.

    A part is needed while a receipt names it and its run is kept: staging, a rollback and a replay may read it.

    Args:
        bucket: where the runs are.
        now: the present time (UTC).
        older_than: an attempt's part younger than this may still get its receipt.
        pipeline: only this pipeline's.

    Raises:
        TooYoungError: `older_than` is less than an hour.
    """
    if older_than < LEAST_AGE:
        raise TooYoungError(older_than)
    for name in sorted(bucket.iter_folders(ROOT)) if pipeline is None else [pipeline]:
        for run_id in run_ids(bucket, name):
            yield from _of_run(RunRecords(bucket, name, run_id), now, older_than)


def remove(bucket: Bucket, leftover: Leftover) -> bool:
    """Delete a leftover, unless it was replaced since it was found; return whether it was deleted."""
    return bucket.delete(leftover.object.name, leftover.object.generation)


def _of_run(records: RunRecords, now: dt.datetime, older_than: dt.timedelta) -> Iterator[Leftover]:
    found = list(records.bucket.iter_objects(records.prefix, match_glob="**/*.parquet"))
    plan = read_plan(records) if found else None
    if plan is None:
        return
    needed = {part.split("/", 3)[3] for receipt in records.receipts() for part in _parts(receipt)}
    for item in found:
        why = None
        if plan.expires <= now:
            why = f"its run was kept until {plan.expires:%Y-%m-%d}"
        elif item.name not in needed and now - item.updated > older_than:
            why = "no receipt names it: its attempt died, or another one was first"
        if why:
            yield Leftover(records.pipeline, records.run_id, item, why)


def _parts(receipt: Json) -> list[str]:
    found = [receipt["part"], *(item.get("part") for item in receipt.get("challengers", {}).values())]
    return [str(part) for part in found if part]
