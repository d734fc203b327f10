"""Reference histograms: how every feature and the score were distributed in the sample that a version was tried on.

Later nights are compared with them. They are counts, and hold no row: a label that fewer than `FEWEST` rows have is
counted among the others, because it might name somebody, and numbers of which a bin would have fewer have no edges.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nightscore.errors import shorten
from nightscore.objects import Json
from nightscore.registry.manifest import Input
from nightscore.registry.signature import NUMBERS
from nightscore.scoring.score import HISTOGRAM_BINS

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

BINS = 10  # of a number: deciles of the sample
MOST_LABELS = 50
FEWEST = 5


def build_reference(
    rows: "pa.Table", inputs: Sequence[Input], predictions: "np.ndarray[Any, Any]", classes: Sequence[str]
) -> Json:
    """Return the histograms of a sample.

    Args:
        rows: the sample; it has the columns of `inputs`.
        inputs: the signature.
        predictions: float64, shape (rows, classes) of a classifier, (rows,) of a regressor.
        classes: a classifier's labels.

    Returns:
        `rows`, `features` (input → histogram) and `score`, the histogram of the predictions: of a binary classifier 20
        equal bins of 0..1, of a regressor deciles, of several classes the labels. A histogram of numbers has `kind`
        `number`, `edges` (ascending), `counts` (one more than edges: below the first, between, from the last on) and
        `missing`; one of labels has `kind` `label`, `labels` (label → count), `other` and `missing`.
    """
    features = {
        item.name: numbers(_values(rows.column(item.name)))
        if item.type in NUMBERS
        else labels(rows.column(item.name).to_pylist())
        for item in inputs
    }
    return {"rows": rows.num_rows, "features": features, "score": _score(predictions, classes)}


def numbers(values: "np.ndarray[Any, Any]", edges: "Sequence[float] | None" = None) -> Json:
    """Return the histogram of numbers, float64; NaN is missing. Without `edges` they are the deciles, each once.

    There are none where a tenth of the numbers is fewer than `FEWEST`: of nine rows, every value would be an edge.

    >>> import numpy as np
    >>> numbers(np.array([1.0, 2.0, 3.0, np.nan]), [2.0])
    {'kind': 'number', 'edges': [2.0], 'counts': [1, 2], 'missing': 1}
    """
    import numpy as np

    known = values[~np.isnan(values)]
    if edges is None:
        inner = np.linspace(0, 1, BINS + 1)[1:-1]
        finite = known[np.isfinite(known)]  # infinity is in an outer bin, and JSON has no word for it
        is_enough = finite.size >= BINS * FEWEST
        edges = np.unique(np.quantile(finite, inner, method="inverted_cdf")).tolist() if is_enough else []
    # An edge belongs to the bin above it.
    counts = np.bincount(np.searchsorted(edges, known, side="right"), minlength=len(edges) + 1)
    return {
        "kind": "number",
        "edges": list(edges),
        "counts": counts.tolist(),
        "missing": int(values.size - known.size),
    }


def labels(values: Sequence[object]) -> Json:
    """Return the histogram of labels: the most frequent, by falling frequency.

    >>> labels(["a"] * 6 + ["b", None])
    {'kind': 'label', 'labels': {'a': 6}, 'other': 1, 'missing': 1}
    """
    from collections import Counter

    counts = Counter(shorten(value) for value in values if value is not None)
    shown = {label: count for label, count in counts.most_common(MOST_LABELS) if count >= FEWEST}
    known = sum(counts.values())
    return {
        "kind": "label",
        "labels": shown,
        "other": known - sum(shown.values()),
        "missing": len(values) - known,
    }


def _values(column: "pa.ChunkedArray") -> "np.ndarray[Any, Any]":
    import pyarrow as pa

    if pa.types.is_decimal(column.type):
        column = column.cast(pa.string())
    # NULL becomes NaN; integers beyond 2^53 are rounded, which moves none out of its bin.
    values: np.ndarray[Any, Any] = column.cast(pa.float64(), safe=False).to_numpy()
    return values


def _score(predictions: "np.ndarray[Any, Any]", classes: Sequence[str]) -> Json:
    if not classes:
        return numbers(predictions)
    if len(classes) > 2:
        return labels([classes[index] for index in predictions.argmax(axis=1)])
    return numbers(predictions[:, 1], [step / HISTOGRAM_BINS for step in range(1, HISTOGRAM_BINS)])
