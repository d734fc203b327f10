"""How well two models tell the outcomes apart, with intervals, from counts in cells. Pure.

The warehouse counts rows by bucket of the key, bin of the score, and outcome; nothing here grows with the rows. Buckets
are what the bootstrap draws: an account that is scored on thirty nights, and defaults once, is no thirty independent
rows, and all its nights are in one bucket. Drawing rows would give intervals that are far too narrow. Hash buckets as
the units of a bootstrap over many rows: N. Chamandy, O. Muralidharan, A. Najmi, S. Naidu, Estimating Uncertainty for
Massive Data Streams, Google 2012.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nightscore.objects import Json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

BUCKETS = 100
REPLICATES = 2000
FEWEST_BUCKETS = 30  # with a positive row, and with a negative one: of fewer, percentiles promise too much
DECILES = 10
CONFIDENCE = 0.95  # of the two-sided intervals
SEED = 20121  # the same counts have the same intervals


@dataclass(frozen=True)
class Cells:
    """What was counted of one model: float64 arrays of shape (buckets, bins), bins in the order of the score.

    Attributes:
        rows: rows with an outcome.
        positives: those of the positive class.
        scores: sum of their scores.
        errors: sum of (score - outcome)².
    """

    rows: "Array"
    positives: "Array"
    scores: "Array"
    errors: "Array"

    @classmethod
    def of(cls, found: Iterable[Mapping[str, Any]], buckets: Mapping[int, int]) -> "Cells":
        """Return cells from rows with `bucket`, `bin`, `n`, `positives`, `scores` and `errors`.

        Args:
            found: the rows.
            buckets: bucket → its place in the arrays.
        """
        import numpy as np

        items = list(found)
        bins = {key: place for place, key in enumerate(sorted({int(item["bin"]) for item in items}))}
        made = cls(*(np.zeros((len(buckets), max(1, len(bins)))) for _ in range(4)))
        for item in items:
            at = buckets[int(item["bucket"])], bins[int(item["bin"])]
            made.rows[at] += item["n"]
            made.positives[at] += item["positives"]
            made.scores[at] += item["scores"]
            made.errors[at] += item["errors"]
        return made


def compare(champion: Cells, challenger: Cells, one_sided: float) -> Json:
    """Return how well both models tell the same outcomes apart.

    For `champion` and `challenger`: `auc`, `gini`, `ks` and `brier`, each with `value`, `low` and `high` (percentiles
    of the bootstrap, 95 % between them), and `calibration`, a list over deciles. For `difference`, challenger less
    champion, the same figures and `least`, below which the difference is not, with the confidence `one_sided`. A bound
    is None where too few buckets hold positive rows, or negative ones; a value where all outcomes are the same.
    """
    import numpy as np

    buckets = len(champion.rows)
    whole = np.ones((1, buckets))
    drawn = _draws(buckets)
    usable = drawn if _enough(*_by_bucket(champion)) else drawn[:0]
    found: Json = {}
    values, replicates = {}, {}
    for name, cells in (("champion", champion), ("challenger", challenger)):
        values[name] = {key: float(value[0]) for key, value in measures(cells, whole).items()}
        replicates[name] = measures(cells, usable)
        found[name] = {key: _with_bounds(value, replicates[name][key]) for key, value in values[name].items()}
        found[name]["calibration"] = calibration(cells, drawn)
    found["difference"] = {}
    for key, value in values["challenger"].items():
        apart = replicates["challenger"][key] - replicates["champion"][key]
        bounds = _with_bounds(value - values["champion"][key], apart)
        found["difference"][key] = {**bounds, "least": _quantile(apart, 1 - one_sided)}
    return found


def measures_by_bucket(cells: Cells) -> list[dict[str, float | None]]:
    """Return `auc`, `gini`, `ks` and `brier` of the rows of each bucket alone; None where all outcomes are the same."""
    import numpy as np

    found = measures(cells, np.eye(len(cells.rows)))
    return [{name: _known(float(value[place])) for name, value in found.items()} for place in range(len(cells.rows))]


def rate(rows: "Array", positives: "Array") -> Json:
    """Return `rows`, `positives` and their share `rate` with bounds, from counts by bucket.

    The bounds are None where too few buckets hold positive rows, or negative ones.
    """
    bounds = _share(rows, positives, _draws(len(rows)))
    return {"rows": int(rows.sum()), "positives": int(positives.sum()), "rate": bounds.pop("value"), **bounds}


def measures(cells: Cells, weights: "Array") -> dict[str, "Array"]:
    """Return `auc`, `gini`, `ks` and `brier`, an array each, for weights of the buckets: (replicates, buckets).

    AUC is the chance that a positive row's score is above a negative one's, ties counted half; rows of one bin are
    tied. KS is the largest distance between the two distributions' shares up to the end of a bin.
    """
    import numpy as np

    positives = weights @ cells.positives
    negatives = weights @ (cells.rows - cells.positives)
    all_positives, all_negatives = positives.sum(axis=1), negatives.sum(axis=1)
    up_to = np.cumsum(negatives, axis=1)
    auc = _divided((positives * (up_to - negatives / 2)).sum(axis=1), all_positives * all_negatives)
    above = _divided(np.cumsum(positives, axis=1), all_positives[:, None])
    ks = np.abs(above - _divided(up_to, all_negatives[:, None])).max(axis=1)
    brier = _divided(weights @ cells.errors.sum(axis=1), all_positives + all_negatives)
    return {"auc": auc, "gini": 2 * auc - 1, "ks": ks, "brier": brier}


def calibration(cells: Cells, weights: "Array") -> list[Json]:
    """Return what was predicted and what was observed, by decile of the score; a decile is made of whole bins.

    Each has `rows`, `predicted` (the mean score), `observed` (the share of positives), and its bounds `low`, `high`,
    None as those of `rate` are.
    """
    import numpy as np

    rows = cells.rows.sum(axis=0)
    middle = (np.cumsum(rows) - rows / 2) / max(rows.sum(), 1)
    decile = np.minimum((middle * DECILES).astype(int), DECILES - 1)
    found = []
    for number in np.unique(decile[rows > 0]):
        within = decile == number
        n, hits = cells.rows[:, within].sum(axis=1), cells.positives[:, within].sum(axis=1)
        observed = _share(n, hits, weights)
        found.append(
            {
                "decile": int(number) + 1,
                "rows": int(n.sum()),
                "predicted": float(cells.scores[:, within].sum() / n.sum()),
                "observed": observed["value"],
                "low": observed["low"],
                "high": observed["high"],
            }
        )
    return found


def _by_bucket(cells: Cells) -> tuple["Array", "Array"]:
    return cells.rows.sum(axis=1), cells.positives.sum(axis=1)


def _enough(rows: "Array", positives: "Array") -> bool:
    """Return whether enough buckets hold positive rows, and enough hold negative ones."""
    return min(int((positives > 0).sum()), int((rows > positives).sum())) >= FEWEST_BUCKETS


def _share(rows: "Array", positives: "Array", weights: "Array") -> dict[str, float | None]:
    total = float(rows.sum())
    usable = weights if _enough(rows, positives) else weights[:0]
    value = float(positives.sum()) / total if total else float("nan")
    return _with_bounds(value, _divided(usable @ positives, usable @ rows))


def _draws(buckets: int) -> "Array":
    """Return how often each bucket is drawn, in every replicate: the same for everything that is compared."""
    import numpy as np

    drawn = np.random.default_rng(SEED).multinomial(buckets, [1 / buckets] * buckets, size=REPLICATES)
    return drawn.astype(float)


def _divided(above: "Array", below: "Array") -> "Array":
    import numpy as np

    made: Array = np.full(np.broadcast(above, below).shape, np.nan)
    np.divide(above, below, out=made, where=below != 0)
    return made


def _with_bounds(value: float, replicates: "Array") -> dict[str, float | None]:
    tail = (1 - CONFIDENCE) / 2
    low, high = _quantile(replicates, tail), _quantile(replicates, 1 - tail)
    return {"value": _known(value), "low": low, "high": high}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _quantile(replicates: "Array", share: float) -> float | None:
    import numpy as np

    # A replicate without a value is no reason to trust the others: it is the few positives that it did not draw.
    return None if not len(replicates) or np.isnan(replicates).any() else float(np.quantile(replicates, share))
