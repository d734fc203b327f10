"""The publications of a partition: one small record each, in the order of their tokens. The last one is what is live.

publications/<pipeline>/<partition>/<token>.json    created once
"""

import datetime as dt
from collections.abc import Iterator

from nightscore.objects import Bucket, Json, to_json

ROOT = "publications/"
DIGITS = 15  # of a token in an object's name, so that names sort as numbers do


def write_publication(bucket: Bucket, pipeline: str, partition: dt.date, token: int, content: Json) -> Json:
    """Record a publication; return the record: `content` with pipeline, partition and token."""
    found: Json = {"pipeline": pipeline, "partition": partition.isoformat(), "token": token, **content}
    bucket.create(f"{_prefix(pipeline, partition)}{token:0{DIGITS}d}.json", to_json(found))
    return found


def read_publications(bucket: Bucket, pipeline: str, partition: dt.date) -> list[Json]:
    """Return a partition's publications, the first one first."""
    found = (bucket.read_json(name) for name in sorted(bucket.iter_names(_prefix(pipeline, partition))))
    return [content for content in found if content is not None]


def published_partitions(bucket: Bucket, pipeline: str) -> list[dt.date]:
    """Return the partitions of a pipeline that were ever published."""
    return [dt.date.fromisoformat(day) for day in bucket.iter_folders(f"{ROOT}{pipeline}/")]


def iter_latest_publications(bucket: Bucket, pipeline: str) -> Iterator[Json]:
    """Yield a pipeline's publications of all partitions, the one that was made last first; each is read when asked for.

    Tokens count within a partition, so the order is that in which the records were written.
    """
    found = sorted(bucket.iter_objects(f"{ROOT}{pipeline}/"), key=lambda item: (item.updated, item.name), reverse=True)
    for item in found:
        content = bucket.read_json(item.name)
        if content is not None:
            yield content


def last_publication(bucket: Bucket, pipeline: str, partition: dt.date) -> Json | None:
    """Return a partition's last publication, or None when there was none."""
    names = sorted(bucket.iter_names(_prefix(pipeline, partition)))
    return bucket.read_json(names[-1]) if names else None


def _prefix(pipeline: str, partition: dt.date) -> str:
    return f"{ROOT}{pipeline}/{partition}/"
