"""The pure core: exact tables, refused values, figures that add up."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightscore.errors import GateRefusedError
from nightscore.scoring.score import HISTOGRAM_BINS, NonFiniteError, combine, score, summarise

PROBABILITIES = pa.list_(pa.struct([("label", pa.string()), ("probability", pa.float64())]))


@dataclass
class Given:
    """A model that predicts what it was given."""

    task: str
    values: np.ndarray[Any, np.dtype[np.float64]]
    classes: Sequence[str] = ()

    form = "as it is"

    def decode(self, batch: pa.RecordBatch | pa.Table) -> int:
        return batch.num_rows

    def predict_decoded(self, features: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        assert features == len(self.values)
        return self.values


def rows(count: int) -> pa.RecordBatch:
    return pa.record_batch({"age": pa.array(range(count), pa.int64())})


def binary(scores: Sequence[float]) -> Given:
    second = np.asarray(scores, dtype=np.float64)
    return Given("binary", np.column_stack([1 - second, second]), ("0", "1"))


def test_a_binary_score_is_the_probability_of_the_second_class() -> None:
    found = score(rows(3), binary([0.25, 1.0, 0.0]))
    assert found.schema == pa.schema([("score", pa.float64())])
    assert found.to_pydict() == {"score": [0.25, 1.0, 0.0]}


def test_a_regression_keeps_its_values() -> None:
    found = score(rows(3), Given("regression", np.array([1.5, -2.0, 1e300])))
    assert found.schema == pa.schema([("prediction", pa.float64())])
    assert found.to_pydict() == {"prediction": [1.5, -2.0, 1e300]}


def test_a_multiclass_prediction_has_its_probabilities() -> None:
    values = np.array([[0.1, 0.7, 0.2], [0.5, 0.25, 0.25]])
    found = score(rows(2), Given("multiclass", values, ("low", "middle", "high")))
    assert found.schema == pa.schema([("prediction", pa.string()), ("probabilities", PROBABILITIES)])
    assert found.to_pylist() == [
        {
            "prediction": "middle",
            "probabilities": [
                {"label": "low", "probability": 0.1},
                {"label": "middle", "probability": 0.7},
                {"label": "high", "probability": 0.2},
            ],
        },
        {
            "prediction": "low",
            "probabilities": [
                {"label": "low", "probability": 0.5},
                {"label": "middle", "probability": 0.25},
                {"label": "high", "probability": 0.25},
            ],
        },
    ]


def test_of_equal_probabilities_the_first_class_wins() -> None:
    found = score(rows(1), Given("multiclass", np.full((1, 4), 0.25), ("d", "c", "b", "a")))
    assert found.column("prediction").to_pylist() == ["d"]


@pytest.mark.parametrize(
    ("model", "schema"),
    [
        (binary([]), pa.schema([("score", pa.float64())])),
        (Given("regression", np.empty(0)), pa.schema([("prediction", pa.float64())])),
        (
            Given("multiclass", np.empty((0, 3)), ("a", "b", "c")),
            pa.schema([("prediction", pa.string()), ("probabilities", PROBABILITIES)]),
        ),
    ],
    ids=["binary", "regression", "multiclass"],
)
def test_an_empty_batch_has_the_same_schema(model: Given, schema: pa.Schema) -> None:
    found = score(rows(0), model)
    assert found.schema == schema
    assert found.num_rows == 0
    assert summarise(found, model.task)["rows"] == 0


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("model", "count"),
    [
        (binary([0.5, NAN, 0.5, NAN]), 2),
        (Given("regression", np.array([1.0, INF, -INF, NAN])), 3),
        (Given("multiclass", np.array([[NAN, NAN], [0.5, 0.5], [0.5, INF], [0, 1]]), ("a", "b")), 2),
    ],
    ids=["binary", "regression", "multiclass"],
)
def test_what_is_not_finite_is_refused_and_counted(model: Given, count: int) -> None:
    with pytest.raises(NonFiniteError) as caught:
        score(rows(4), model)
    assert isinstance(caught.value, GateRefusedError)
    assert str(caught.value) == (
        f"The model predicted NaN or infinity for {count} of 4 rows of a batch. Nothing was published. "
        "Look for NULL or extreme values among its inputs, and reject such rows with a rule."
    )


def test_figures_of_a_binary_batch() -> None:
    found = summarise(score(rows(5), binary([0.0, 0.04, 0.05, 0.5, 1.0])), "binary", threshold=0.5)
    assert found == {
        "rows": 5,
        "sum": pytest.approx(1.59),
        "squares": pytest.approx(1.2541),
        "min": 0.0,
        "max": 1.0,
        "histogram": [2, 1, *[0] * 8, 1, *[0] * 8, 1],
        "flagged": 2,
    }
    assert len(found["histogram"]) == HISTOGRAM_BINS


def test_without_a_threshold_nothing_is_flagged() -> None:
    assert "flagged" not in summarise(score(rows(1), binary([0.9])), "binary")


def test_figures_of_a_regression() -> None:
    predictions = score(rows(3), Given("regression", np.array([1.0, -2.0, 4.0])))
    assert summarise(predictions, "regression") == {
        "rows": 3,
        "sum": 3.0,
        "squares": 21.0,
        "min": -2.0,
        "max": 4.0,
    }


def test_figures_of_a_multiclass_batch() -> None:
    predictions = score(rows(3), Given("multiclass", np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]), ("a", "b")))
    assert summarise(predictions, "multiclass") == {"rows": 3, "labels": {"a": 2, "b": 1}}


def test_combining_changes_none_of_its_parts() -> None:
    parts = [{"rows": 1, "labels": {"a": 1}}, {"rows": 2, "labels": {"a": 1, "b": 1}}]
    assert combine(parts) == {"rows": 3, "labels": {"a": 2, "b": 1}}
    assert parts == [{"rows": 1, "labels": {"a": 1}}, {"rows": 2, "labels": {"a": 1, "b": 1}}]


def test_combining_nothing() -> None:
    assert combine([]) == {}


def test_histograms_of_different_bins_do_not_add_up() -> None:
    with pytest.raises(ValueError, match="zip"):
        combine([{"histogram": [1, 2]}, {"histogram": [1]}])


# Sixty-fourths are exact in binary, so that a sum does not depend on its order.
SIXTY_FOURTHS = st.integers(0, 64).map(lambda n: n / 64)
CUT = st.lists(st.lists(SIXTY_FOURTHS, max_size=12), min_size=1, max_size=6)


def whole_and_parts(task: str, batches: list[list[float]]) -> tuple[dict[str, Any], dict[str, Any]]:
    def figures(values: list[float]) -> dict[str, Any]:
        model = binary(values) if task == "binary" else Given("regression", np.asarray(values, dtype=np.float64))
        if task == "multiclass":
            first = np.asarray(values, dtype=np.float64)
            model = Given(task, np.column_stack([first, 1 - first]), ("a", "b"))
        return summarise(score(rows(len(values)), model), task, threshold=0.5)

    return figures([value for batch in batches for value in batch]), combine([figures(batch) for batch in batches])


@pytest.mark.parametrize("task", ["binary", "regression", "multiclass"])
@given(batches=CUT)
def test_the_parts_add_up_to_the_whole(task: str, batches: list[list[float]]) -> None:
    whole, parts = whole_and_parts(task, batches)
    assert parts == whole


@given(st.lists(SIXTY_FOURTHS, max_size=40))
def test_every_row_is_in_one_bin(values: list[float]) -> None:
    figures = summarise(score(rows(len(values)), binary(values)), "binary", threshold=0.25)
    assert sum(figures["histogram"]) == len(values) == figures["rows"]
    assert figures["flagged"] == sum(value >= 0.25 for value in values)
