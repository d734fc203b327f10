"""The pure core: rows and a model in, predictions out. No clock, no warehouse, no state."""

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from nightscore.errors import GateRefusedError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

HISTOGRAM_BINS = 20


class Predictor(Protocol):
    """What scoring needs of a model."""

    @property
    def task(self) -> str:
        """`binary`, `multiclass` or `regression`."""

    @property
    def classes(self) -> Sequence[str]:
        """A classifier's labels in the order of its probabilities."""

    @property
    def form(self) -> Hashable:
        """What `decode` makes of a batch: models of one form can share it."""

    def decode(self, batch: "pa.RecordBatch | pa.Table") -> Any:
        """Return a batch as the model takes it."""

    def predict_decoded(self, features: Any) -> "np.ndarray[Any, np.dtype[np.float64]]":
        """Return float64 predictions: probabilities, shape (rows, classes), or values, shape (rows,)."""


class NonFiniteError(GateRefusedError):
    """The model predicted NaN or infinity; nothing was published."""

    def __init__(self, count: int, rows: int) -> None:
        super().__init__(
            f"The model predicted NaN or infinity for {count:,} of {rows:,} rows of a batch. Nothing was published. "
            "Look for NULL or extreme values among its inputs, and reject such rows with a rule."
        )
        self.count = count
        self.rows = rows


def score(batch: "pa.RecordBatch | pa.Table", model: Predictor) -> "pa.Table":
    """Return the predictions of a batch, row by row in its order.

    A binary classifier gives `score`, float64, the probability of its second class; a multiclass one `prediction`,
    string, and `probabilities`, list of (label, probability); a regressor `prediction`, float64.

    Raises:
        NonFiniteError: a prediction is NaN or infinite.
    """
    return tabulate(model.predict_decoded(model.decode(batch)), model)


def tabulate(values: "np.ndarray[Any, np.dtype[np.float64]]", model: Predictor) -> "pa.Table":
    """Return a model's predictions as the table that `score` returns.

    Args:
        values: float64, shape (rows, classes) of a classifier, (rows,) of a regressor.
        model: the model that predicted them.

    Raises:
        NonFiniteError: one is NaN or infinite.
    """
    import numpy as np
    import pyarrow as pa

    finite = np.isfinite(values)
    if not finite.all():
        bad = ~(finite if finite.ndim == 1 else finite.all(axis=1))
        raise NonFiniteError(int(bad.sum()), len(values))
    if model.task == "binary":
        return pa.table({"score": np.ascontiguousarray(values[:, 1])})
    if model.task == "regression":
        return pa.table({"prediction": values})
    rows, classes = values.shape
    labels = pa.DictionaryArray.from_arrays(
        np.tile(np.arange(classes, dtype=np.int32), rows), pa.array(model.classes)
    ).cast(pa.string())
    pairs = pa.StructArray.from_arrays([labels, pa.array(values.ravel())], names=["label", "probability"])
    offsets = np.arange(0, rows * classes + 1, classes, dtype=np.int32)
    best = pa.array(model.classes).take(pa.array(values.argmax(axis=1)))
    return pa.table({"prediction": best, "probabilities": pa.ListArray.from_arrays(offsets, pairs)})


def summarise(predictions: "pa.Table", task: str, threshold: float | None = None) -> dict[str, Any]:
    """Return figures of a batch of predictions that add up over batches.

    Binary: `rows`, `sum`, `squares` (sum of the squares), `min`, `max`, `histogram` (20 equal bins of 0..1, a
    score's bin is floor(20 * score), and 1 is in the last) and `flagged` (score ≥ threshold).
    Regression: `rows`, `sum`, `squares`, `min`, `max`. Multiclass: `rows`, `labels` (label → count).
    """
    import numpy as np
    import pyarrow.compute as pc

    rows = predictions.num_rows
    if task == "multiclass":
        counts = pc.value_counts(predictions.column("prediction").combine_chunks()).to_pylist()
        return {"rows": rows, "labels": {str(item["values"]): int(item["counts"]) for item in counts}}
    values = predictions.column("score" if task == "binary" else "prediction").to_numpy()
    figures: dict[str, Any] = {"rows": rows}
    if rows:
        figures |= {"sum": float(values.sum()), "min": float(values.min()), "max": float(values.max())}
        figures["squares"] = float(values @ values)
    if task == "binary":
        is_share = not rows or (figures["min"] >= 0 and figures["max"] <= 1)
        figures["histogram"] = _histogram(values if is_share else values[(values >= 0) & (values <= 1)])
        if threshold is not None:
            figures["flagged"] = int(np.count_nonzero(values >= threshold))
    return figures


def _histogram(scores: Any) -> list[int]:
    """Return how many scores within 0..1 are in each bin; `np.histogram` takes four times as long."""
    import numpy as np

    counts = np.bincount((scores * HISTOGRAM_BINS).astype(np.intp), minlength=HISTOGRAM_BINS + 1)
    counts[HISTOGRAM_BINS - 1] += counts[HISTOGRAM_BINS]
    found: list[int] = counts[:HISTOGRAM_BINS].tolist()
    return found


def combine(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures of several batches taken together.

    >>> combine([{"rows": 1, "min": 0.5, "histogram": [1, 0]}, {"rows": 2, "min": 0.25, "histogram": [0, 2]}])
    {'rows': 3, 'min': 0.25, 'histogram': [1, 2]}
    """
    total: dict[str, Any] = {}
    for summary in summaries:
        for key, value in summary.items():
            if key not in total:
                total[key] = dict(value) if isinstance(value, Mapping) else value
            elif key in ("min", "max"):
                total[key] = (min if key == "min" else max)(total[key], value)
            elif isinstance(value, Mapping):
                for label, count in value.items():
                    total[key][label] = total[key].get(label, 0) + count
            elif isinstance(value, list):
                total[key] = [a + b for a, b in zip(total[key], value, strict=True)]
            else:
                total[key] += value
    return total
