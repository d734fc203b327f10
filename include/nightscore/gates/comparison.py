"""A night's predictions beside those of the last partition before: rows, mean, distribution."""

import datetime as dt
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nightscore.gates.expectations import Verdict
from nightscore.objects import Bucket
from nightscore.publications import last_publication, published_partitions
from nightscore.records import RunRecords
from nightscore.run import Run
from nightscore.spec import Compare, Levels

FEWEST = 500  # rows on either side: of fewer, mean and distribution move by chance
BINS = 10  # of a regression: half a standard deviation each, the outer ones open


@dataclass(frozen=True)
class Before:
    """What was published for an earlier partition.

    Attributes:
        partition: its scoring date.
        run_id: the run whose predictions are live.
        figures: what `scoring.score.combine` made of them.
    """

    partition: dt.date
    run_id: str
    figures: Mapping[str, Any]


def last_before(bucket: Bucket, pipeline: str, partition: dt.date, task: str) -> Before | None:
    """Return what is live of the last partition before this one, or None where there is none of the same task."""
    day = max((day for day in published_partitions(bucket, pipeline) if day < partition), default=None)
    live = last_publication(bucket, pipeline, day) if day else None
    found = RunRecords(bucket, pipeline, live["run_id"]).read("prediction_gate") if live else None
    if day is None or live is None or found is None or found["task"] != task or not found["figures"].get("rows"):
        return None
    return Before(day, live["run_id"], found["figures"])


def compare(run: Run, task: str, figures: Mapping[str, Any]) -> tuple[list[Verdict], dict[str, float]]:
    """Return what the comparison with the last partition before found, or why nothing was compared.

    Args:
        run: the run; its predictions are staged.
        task: what the model predicts.
        figures: what `scoring.score.combine` made of its predictions.

    Returns:
        The verdicts, and what was compared (`rows`, `mean`, `psi`) → how much it changed, where that is a number.
    """
    before = last_before(run.bucket, run.spec.name, run.plan.partition, task)
    found = list(_changes(run, task, figures, before)) if before else []
    done = {item.name: item.judged(run.spec.checks.compare) for item in found}
    why = "no earlier partition was published" if before is None else f"too few rows, or no figures of {before.run_id}"
    asked = [name for name in Compare.model_fields if not (name == "mean" and task == "multiclass")]
    verdicts = [done.get(name) or _not_done(name, getattr(run.spec.checks.compare, name), why) for name in asked]
    return verdicts, {item.name: round(item.change, 6) for item in found if math.isfinite(item.change)}


@dataclass(frozen=True)
class _Change:
    """How much of what changed, and what was seen."""

    name: str
    column: str
    change: float
    seen: str

    def judged(self, compare: Compare) -> Verdict:
        return judged(self.name, self.column, self.change, getattr(compare, self.name), self.seen)


def _not_done(name: str, levels: Levels, why: str) -> Verdict:
    return Verdict(f"compare_{name}", "", "warning", passed=True, observed=f"not compared: {why}", wanted=str(levels))


def _changes(run: Run, task: str, figures: Mapping[str, Any], before: Before) -> Iterator[_Change]:
    value = "score" if task == "binary" else "prediction"
    rows, earlier = figures["rows"], before.figures["rows"]
    there = f"{before.partition} (run {before.run_id})"
    yield _Change("rows", "", abs(rows / earlier - 1), f"{rows:,} rows, {earlier:,} on {there}")
    if min(rows, earlier) < FEWEST or not rows:
        return
    if task != "multiclass" and "squares" in before.figures:
        (mean, _), (mean_before, spread) = moments(figures), moments(before.figures)
        shift = abs(mean - mean_before)
        change = shift / spread if spread else math.inf if shift else 0.0
        yield _Change("mean", value, change, f"mean {mean:.6g}, {mean_before:.6g} on {there}")
    counts = _counts(run, task, figures, before)
    if counts is not None:
        index = population_stability(*counts)
        yield _Change("psi", value, index, f"beside {there}")


def judged(name: str, column: str, change: float, levels: Levels, seen: str) -> Verdict:
    """Return the verdict on a change: a warning from one level on, critical from the other."""
    stops = levels.stop is not None and change > levels.stop
    warns = levels.warn is not None and change > levels.warn
    return Verdict(
        expectation=f"compare_{name}",
        column=column,
        severity="critical" if stops else "warning",
        passed=not (stops or warns),
        observed=f"{change:.4g}: {seen}",
        wanted=str(levels),
    )


def moments(figures: Mapping[str, Any]) -> tuple[float, float]:
    """Return mean and standard deviation (of the population) from `rows`, `sum` and `squares`."""
    mean = figures["sum"] / figures["rows"]
    return mean, math.sqrt(max(0.0, figures["squares"] / figures["rows"] - mean * mean))


def population_stability(now: Sequence[float], before: Sequence[float]) -> float:
    """Return the population stability index of two counts over the same bins.

    Σ (aᵢ - eᵢ) · ln(aᵢ / eᵢ) over the shares of the bins (N. Siddiqi, Credit Risk Scorecards, Wiley 2006, chapter 8).
    Half a row is added to every bin, so that an empty one has a logarithm.

    >>> round(population_stability([50, 50], [50, 50]), 6), round(population_stability([80, 20], [50, 50]), 2)
    (0.0, 0.41)
    """
    bins = len(before)
    shares = [
        ((a + 0.5) / (sum(now) + bins / 2), (e + 0.5) / (sum(before) + bins / 2))
        for a, e in zip(now, before, strict=True)
    ]
    return sum((a - e) * math.log(a / e) for a, e in shares)


def _counts(
    run: Run, task: str, figures: Mapping[str, Any], before: Before
) -> tuple[Sequence[float], Sequence[float]] | None:
    """Return the predictions' counts by bin, now and before; None where they cannot be told any more."""
    if task == "binary":
        return figures["histogram"], before.figures["histogram"]
    if task == "multiclass":
        labels = sorted({*figures["labels"], *before.figures["labels"]})
        now, then = ([found["labels"].get(label, 0) for label in labels] for found in (figures, before.figures))
        return now, then
    return _regression_counts(run, before)


def _regression_counts(run: Run, before: Before) -> tuple[Sequence[float], Sequence[float]] | None:
    if "squares" not in before.figures:
        return None
    mean, spread = moments(before.figures)
    if not spread or run.warehouse.find_table(run.spec.predictions.table) is None:
        return None
    partition, quoted = run.spec.features.partition, run.warehouse.quoted
    found = run.warehouse.query(
        "SELECT earlier, CAST(LEAST(GREATEST(FLOOR((prediction - @mean) / @spread * 2) + @middle, 0), @last) AS INT64) "
        "AS bin, COUNT(*) AS n\n"
        f"FROM (SELECT FALSE AS earlier, prediction FROM {quoted(run.staging_table)}\n"
        f"  UNION ALL SELECT TRUE, prediction FROM {quoted(run.spec.predictions.table)}\n"
        f"  WHERE `{partition}` = @before AND run_id = @run_id)\n"
        "GROUP BY earlier, bin",
        {
            "mean": mean,
            "spread": spread,
            "middle": BINS // 2,
            "last": BINS - 1,
            "before": before.partition,
            "run_id": before.run_id,
        },
        doing=f"comparing the predictions of {run.spec.name} with those of {before.partition}",
        labels=run.plan.labels,
        max_bytes_billed=run.spec.limits.max_bytes_billed,
    )
    counts: dict[bool, list[float]] = {True: [0] * BINS, False: [0] * BINS}
    for row in found.rows:
        counts[row["earlier"]][row["bin"]] = row["n"]
    return (counts[False], counts[True]) if any(counts[True]) else None
