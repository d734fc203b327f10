"""How far two models agree on the same rows, without outcomes. Pure.

What a night counts can be added to what other nights count, so the figures over all nights are those of all their
rows, and no averages of averages. Means and squares are added as deviations from each night's own mean (T. F. Chan,
G. H. Golub, R. J. LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979): sums of
plain squares of amounts in the millions would lose the digits that a correlation is made of.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nightscore.gates.comparison import population_stability
from nightscore.objects import Json

MOST_VALUES = 50  # of a slice; smaller ones are counted together
FEWEST_ROWS = 5  # of a value on a night: fewer are people, not a group
OTHER = "(other)"
NULL = "(NULL)"
DECILES = 10
SCORE_BINS = 320  # of log-odds, as many below 0 as above, the outer ones open
SCORE_WIDTH = 0.1  # of such a bin: even where all scores are near 0, deciles can be told apart

# What the kinds of cells of a night's query are; a slice's is FIRST_SLICE plus its place in the spec.
WHOLE, CHAMPION_BIN, CHALLENGER_BIN, FIRST_SLICE = range(4)

FLAGS = ("flagged_by_champion", "flagged_by_challenger", "swapped_in", "swapped_out")


def counts_of_cells(
    cells: Iterable[Mapping[str, Any]], task: str, slices: Sequence[str], shift: float
) -> dict[str, Json]:
    """Return challenger → what was counted of it on one night.

    Args:
        cells: rows of the night's query: `challenger`, `kind`, `value`, `n` and the measures of the task.
        task: `binary`, `regression` or `multiclass`.
        slices: the columns by whose values was counted.
        shift: what was subtracted from every prediction before it was squared.
    """
    found: dict[str, Json] = {}
    for cell in cells:
        counted = found.setdefault(str(cell["challenger"]), _nothing(task, slices))
        kind, value, counts = int(cell["kind"]), str(cell["value"]), _counts(cell)
        if kind == WHOLE:
            counted["counts"] = counts
            counted["moments"] = None if task == "multiclass" else _moments(cell, shift)
        elif kind in (CHAMPION_BIN, CHALLENGER_BIN):
            bins = counted["bins"]["champion" if kind == CHAMPION_BIN else "challenger"]
            bins[value if task == "multiclass" else int(value)] = counts["rows"]
        else:
            counted["slices"][slices[kind - FIRST_SLICE]][value] = counts
    return found


def add(one: Json, other: Json) -> Json:
    """Return what was counted on two sets of nights, taken together; the smallest values of a slice become `(other)`.

    >>> from nightscore.monitoring.agreement import add
    >>> night = {"counts": {"rows": 2, "changed": 1}, "moments": None, "slices": {},
    ...          "bins": {"champion": {"a": 2}, "challenger": {"a": 1, "b": 1}}}
    >>> add(night, night)["counts"], add(night, night)["bins"]["challenger"]
    ({'rows': 4, 'changed': 2}, {'a': 2, 'b': 2})
    """
    slices = dict.fromkeys([*one["slices"], *other["slices"]])
    return {
        "counts": _sum(one["counts"], other["counts"]),
        "moments": _joined(one["moments"], other["moments"]),
        "bins": {side: _sum_of_bins(one["bins"][side], other["bins"][side]) for side in one["bins"]},
        "slices": {
            name: _bounded(_sum_of_values(one["slices"].get(name, {}), other["slices"].get(name, {})))
            for name in slices
        },
    }


def without_flips(counted: Json) -> Json:
    """Return what was counted but for what a threshold decides, of the whole and of each slice."""

    def rest(counts: Mapping[str, int]) -> dict[str, int]:
        return {name: value for name, value in counts.items() if name not in FLAGS}

    slices = {
        name: {value: rest(counts) for value, counts in found.items()} for name, found in counted["slices"].items()
    }
    return {**counted, "counts": rest(counted["counts"]), "slices": slices}


def figures(counted: Json) -> Json:
    """Return the figures that follow from what was counted.

    `rows`; `flips` and `flip_share` (None without a threshold); `psi`; of predictions that are numbers `correlation`
    (Pearson's; None where one of the two is constant), `mean_absolute_difference`, `root_mean_square_difference` and
    `largest_difference`.
    """
    counts, bins, moments = counted["counts"], counted["bins"], counted["moments"]
    rows = counts["rows"]
    flips = _flips(counts)
    found: Json = {
        "rows": rows,
        "flips": flips,
        "flip_share": None if flips is None or not rows else flips / rows,
        "psi": _stability(bins["challenger"], bins["champion"]) if rows else None,
    }
    if moments is not None and rows:
        found |= {
            "correlation": _correlation(moments),
            "mean_absolute_difference": moments["absolute"] / rows,
            "root_mean_square_difference": math.sqrt(moments["squared"] / rows),
            "largest_difference": moments["largest"],
        }
    return found


def _nothing(task: str, slices: Sequence[str]) -> Json:
    length = {"binary": SCORE_BINS, "regression": DECILES}
    bins = {side: [0] * length[task] if task in length else {} for side in ("champion", "challenger")}
    return {"counts": {"rows": 0}, "moments": None, "bins": bins, "slices": {name: {} for name in slices}}


def _counts(cell: Mapping[str, Any]) -> dict[str, int]:
    named = {name: int(cell[name]) for name in (*FLAGS, "changed") if name in cell}
    return {"rows": int(cell["n"]), **named}


def _moments(cell: Mapping[str, Any], shift: float) -> dict[str, float]:
    n = int(cell["n"])
    a, b = float(cell["sum_a"]), float(cell["sum_b"])
    return {
        "rows": n,
        "champion_mean": shift + a / n,
        "challenger_mean": shift + b / n,
        "champion_squares": max(0.0, float(cell["sum_aa"]) - a * a / n),
        "challenger_squares": max(0.0, float(cell["sum_bb"]) - b * b / n),
        "products": float(cell["sum_ab"]) - a * b / n,
        "absolute": float(cell["absolute"]),
        "squared": float(cell["squared"]),
        "largest": float(cell["largest"]),
    }


def _joined(one: Mapping[str, float] | None, other: Mapping[str, float] | None) -> dict[str, float] | None:
    if one is None or other is None:
        return dict(one or other or {}) or None
    rows = one["rows"] + other["rows"]
    weight = one["rows"] * other["rows"] / rows
    a, b = (other[name] - one[name] for name in ("champion_mean", "challenger_mean"))
    share = other["rows"] / rows
    return {
        "rows": rows,
        "champion_mean": one["champion_mean"] + a * share,
        "challenger_mean": one["challenger_mean"] + b * share,
        "champion_squares": one["champion_squares"] + other["champion_squares"] + a * a * weight,
        "challenger_squares": one["challenger_squares"] + other["challenger_squares"] + b * b * weight,
        "products": one["products"] + other["products"] + a * b * weight,
        "absolute": one["absolute"] + other["absolute"],
        "squared": one["squared"] + other["squared"],
        "largest": max(one["largest"], other["largest"]),
    }


def _correlation(moments: Mapping[str, float]) -> float | None:
    spread = math.sqrt(moments["champion_squares"]) * math.sqrt(moments["challenger_squares"])
    return max(-1.0, min(1.0, moments["products"] / spread)) if spread else None


def _flips(counts: Mapping[str, int]) -> int | None:
    if "changed" in counts:
        return counts["changed"]
    return counts["swapped_in"] + counts["swapped_out"] if "swapped_in" in counts else None


def _stability(challenger: Any, champion: Any) -> float:
    if isinstance(champion, Mapping):
        labels = sorted({*champion, *challenger})
        return population_stability([challenger.get(x, 0) for x in labels], [champion.get(x, 0) for x in labels])
    places = _deciles(champion) if len(champion) == SCORE_BINS else range(len(champion))
    grouped = [[0] * DECILES for _ in range(2)]
    for place, own, other in zip(places, challenger, champion, strict=True):
        grouped[0][place] += own
        grouped[1][place] += other
    there = [place for place in range(DECILES) if grouped[0][place] or grouped[1][place]]
    return population_stability(*([side[place] for place in there] for side in grouped))


def _deciles(counts: Sequence[int]) -> list[int]:
    """Return in which decile of all rows each bin is, by its middle: deciles are made of whole bins."""
    total, below, found = sum(counts), 0, []
    for n in counts:
        found.append(min((2 * below + n) * DECILES // (2 * total), DECILES - 1))
        below += n
    return found


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    # A night without a threshold counts no flips; those of the other nights would be a share of too many rows.
    return {name: value + other[name] for name, value in one.items() if name in other}


def _sum_of_bins(one: Any, other: Any) -> Any:
    if isinstance(one, Mapping):
        return {label: one.get(label, 0) + other.get(label, 0) for label in sorted({*one, *other})}
    return [a + b for a, b in zip(one, other, strict=True)]


def _sum_of_values(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {
        value: _sum(one[value], other[value]) if value in one and value in other else one.get(value) or other[value]
        for value in dict.fromkeys([*one, *other])
    }


def _bounded(values: Mapping[str, dict[str, int]]) -> dict[str, Any]:
    """Return the largest values, the others counted together."""
    named = sorted((value for value in values if value != OTHER), key=lambda value: (-values[value]["rows"], value))
    found = {value: dict(values[value]) for value in named[:MOST_VALUES]}
    rest = [values[value] for value in (*named[MOST_VALUES:], *([OTHER] if OTHER in values else ()))]
    for counts in rest:
        found[OTHER] = _sum(found[OTHER], counts) if OTHER in found else dict(counts)
    return found
