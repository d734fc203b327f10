"""The evidence for or against a challenger: all nights on which it scored the same rows as the champion.

What both agree on comes from the records of the nights; how well they tell the outcomes apart is asked anew, because
outcomes arrive weeks later.
"""

import datetime as dt
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nightscore.errors import ConfigurationError, shorten
from nightscore.monitoring.agreement import add, figures, without_flips
from nightscore.monitoring.outcomes import compare_outcomes
from nightscore.objects import Bucket, Json
from nightscore.publications import last_publication, published_partitions
from nightscore.records import RunRecords
from nightscore.registry.store import Version
from nightscore.run import Services
from nightscore.spec import Spec

MOST_NIGHTS = 366  # the latest ones; a year is enough to decide by
READERS = 8
CONFIDENCE = 0.95  # of the one-sided bound, where the spec has no policy


@dataclass(frozen=True)
class _Night:
    """What is live of a partition, and what was recorded of champion and challengers then."""

    partition: dt.date
    run_id: str
    record: Json


def gather(
    services: Services, spec: Spec, champion: Version, challenger: Version, *, until: dt.date | None = None
) -> Json:
    """Return the evidence of all nights on which both versions scored the same rows: accumulated and by night.

    A night counts when it recorded the digests of these very versions: a number may have been given anew.

    Args:
        services: the deployment.
        spec: the pipeline.
        champion: the published version.
        challenger: the version beside it.
        until: the last night that counts; by default all do. Of more than 366 nights, the latest count.

    Returns:
        `pipeline`, `champion` and `challenger` (`name/version`), `digests` by these, `task`, `threshold` (the spec's),
        and

        * `nights`: a list of `partition`, `run_id`, `threshold` (the night's), the figures of `agreement.figures`, and
          `outcomes`: `rows` whose outcome is known and both models' `auc`, `gini`, `ks`, `brier`; None where outcomes
          were not asked for;
        * `other_threshold`: on how many of these nights the threshold was not the spec's;
        * `accumulated`: what `agreement.add` makes of the nights, and its `figures`; flips and the swap set are unknown
          where a night had another threshold;
        * `left_out`: a list of the nights on which the champion was published and the challenger was not counted:
          `partition`, `run_id`, `why`;
        * `outcomes`: what `outcomes.compare_outcomes` returns of all nights; where no outcome is known, `rows` is 0 and
          `reason` says why.

    Raises:
        ConfigurationError: the table of outcomes is not as the spec says.
        TransientError: BigQuery or Cloud Storage failed.
    """
    nights, left_out = [], []
    digests = {version.label: version.digest for version in (champion, challenger)}
    for night in _nights(services.bucket, spec.name, champion.label, until):
        if _is_of(night.record, digests):
            nights.append(night)
        elif why := _why_not(night.record, challenger.label):
            left_out.append({"partition": night.partition.isoformat(), "run_id": night.run_id, "why": why})
    counted = [night.record["challengers"][challenger.label] for night in nights]
    task = str(nights[-1].record["task"]) if nights else None
    threshold = spec.predictions.threshold if task in (None, "binary") else None
    others = sum(night.record["threshold"] != threshold for night in nights)
    total = functools.reduce(add, counted) if counted else None
    if total and others:
        total = without_flips(total)
    outcomes, known = _outcomes(services, spec, champion.label, challenger.label, nights, task)
    return {
        "pipeline": spec.name,
        "champion": champion.label,
        "challenger": challenger.label,
        "digests": digests,
        "task": task,
        "threshold": threshold,
        "other_threshold": others,
        "nights": [
            {
                "partition": night.partition.isoformat(),
                "run_id": night.run_id,
                "threshold": night.record["threshold"],
                "outcomes": None if known is None else known.get(night.partition, {"rows": 0}),
                **found["figures"],
            }
            for night, found in zip(nights, counted, strict=True)
        ],
        "accumulated": {**_parts(total), "figures": figures(total) if total else {"rows": 0}},
        "left_out": left_out,
        "outcomes": outcomes,
    }


def shared_nights(bucket: Bucket, pipeline: str, record: Json, challenger: str) -> int:
    """Return on how many nights the champion of a night and one of its challengers scored the same rows.

    Args:
        bucket: where the records are.
        pipeline: the pipeline.
        record: the night's evidence.
        challenger: `name/version`, one of the record's.
    """
    champion = str(record["champion"])
    digests = {label: record.get("digests", {}).get(label) for label in (champion, challenger)}
    return sum(_is_of(night.record, digests) for night in _nights(bucket, pipeline, champion, None))


def _is_of(record: Json, digests: Mapping[str, str | None]) -> bool:
    """Return whether these very versions, champion and challenger, were counted beside each other."""
    found = record.get("digests", {})
    same = all(digest is not None and found.get(label) == digest for label, digest in digests.items())
    return same and all(label == record["champion"] or label in record["challengers"] for label in digests)


def _parts(counted: Json | None) -> Json:
    names = ("counts", "moments", "bins", "slices")
    return {name: counted[name] for name in names} if counted else {"slices": {}}


def _why_not(record: Json, challenger: str) -> str | None:
    """Return why a challenger that took part in a night was not counted; None where it did not take part."""
    why = record["left_out"].get(challenger)
    return None if why is None else shorten(why, 200)


def _nights(bucket: Bucket, pipeline: str, champion: str, until: dt.date | None) -> Iterable[_Night]:
    """Yield the nights on which a version is live and challengers were compared with it, the first one first."""
    from concurrent.futures import ThreadPoolExecutor

    days = sorted(day for day in published_partitions(bucket, pipeline) if until is None or day <= until)
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(lambda day: _night(bucket, pipeline, day, champion), days[-MOST_NIGHTS:]))
    return [night for night in found if night is not None]


def _night(bucket: Bucket, pipeline: str, day: dt.date, champion: str) -> _Night | None:
    live = last_publication(bucket, pipeline, day)
    if live is None or live["model_version"] != champion:
        return None
    record = RunRecords(bucket, pipeline, live["run_id"]).read("evidence")
    return None if record is None else _Night(day, live["run_id"], record)


def _outcomes(
    services: Services, spec: Spec, champion: str, challenger: str, nights: list[_Night], task: str | None
) -> tuple[Json, dict[dt.date, Json] | None]:
    """Return what the outcomes of all nights say, and of each night that has some."""
    wanted = spec.evidence.outcomes
    reason = None
    if wanted is None:
        reason = "the spec names no evidence.outcomes"
    elif not nights:
        reason = "there is no night on which both versions scored the same rows"
    elif task != "binary":
        reason = f"the model is a {task} model; outcomes are compared for binary ones"
    if wanted is None or reason is not None:
        return {"rows": 0, "reason": reason}, None
    one_sided = spec.promotion.confidence if spec.promotion is not None else CONFIDENCE
    runs = {night.run_id: night.partition for night in nights}
    for table in (spec.predictions.table, spec.predictions.shadow_table):
        if services.warehouse.find_table(table) is None:
            raise ConfigurationError(f"{spec.name}: {table} is gone, and with it the scores of {len(nights)} night(s).")
    return compare_outcomes(services.warehouse, spec, wanted, champion, challenger, runs, one_sided)
