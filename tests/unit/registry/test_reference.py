"""Reference histograms: counts by value, missing values apart, and no rare label by name."""

import numpy as np
import pyarrow as pa
import pytest

from nightscore.registry.card import _histogram
from nightscore.registry.manifest import Input
from nightscore.registry.reference import build_reference, labels, numbers

FIVE = "a 20%, b 20%, c 20%, d 20% and 1 more"
ROWS = 1000
DRAW = np.random.default_rng(1)


def inputs(**kinds):
    return [Input(name=name, type=kind, nullable=True) for name, kind in kinds.items()]


def test_every_feature_and_the_score_are_counted():
    balance = DRAW.gamma(2.0, 1000.0, ROWS)
    balance[:100] = np.nan
    table = pa.table(
        {
            "balance": pa.array(balance, from_pandas=True),
            "age": DRAW.integers(18, 20, ROWS),
            "flag": pa.array([True, False, None, True] * (ROWS // 4)),
            "word": pa.array(["a"] * 900 + ["b"] * 96 + ["rare"] * 4),
        }
    )
    scores = DRAW.random(ROWS)
    found = build_reference(
        table,
        inputs(balance="double", age="int64", flag="bool", word="string"),
        np.column_stack([1 - scores, scores]),
        ("no", "yes"),
    )
    assert found["rows"] == ROWS
    features = found["features"]
    assert features["balance"]["missing"] == 100
    assert len(features["balance"]["edges"]) == 9
    assert all(abs(count - 90) <= 1 for count in features["balance"]["counts"]), "deciles of what is known"
    assert features["age"]["edges"] == [18.0, 19.0]
    assert features["age"]["counts"] == [0, *np.bincount(table["age"].to_numpy() - 18).tolist()]
    assert features["flag"] == {"kind": "label", "labels": {"True": 500, "False": 250}, "other": 0, "missing": 250}
    assert features["word"] == {"kind": "label", "labels": {"a": 900, "b": 96}, "other": 4, "missing": 0}
    wanted, _ = np.histogram(scores, bins=20, range=(0, 1))
    assert found["score"]["counts"] == wanted.tolist()


def test_predictions_of_several_classes_and_of_a_regression():
    table = pa.table({"x": np.arange(ROWS) / 1.0})
    probabilities = np.tile([0.2, 0.5, 0.3], (ROWS, 1))
    probabilities[:10] = [0.8, 0.1, 0.1]
    found = build_reference(table, inputs(x="double"), probabilities, ("low", "middle", "high"))
    assert found["score"]["labels"] == {"middle": 990, "low": 10}
    found = build_reference(table, inputs(x="double"), np.arange(ROWS) / 1.0, ())
    assert found["score"]["edges"] == pytest.approx([99.0 + 100 * step for step in range(9)], abs=1)
    assert sum(found["score"]["counts"]) == ROWS


@pytest.mark.parametrize(
    ("values", "edges", "counts", "missing"),
    [
        ([], [], [0], 0),
        ([np.nan, np.nan], [], [0], 2),
        ([5.0] * 50, [5.0], [0, 50], 0),
        ([*[1.0] * 50, np.inf, -np.inf], [1.0], [1, 51], 0),
        ([18.0, 23.5, 31.0, 44.0, 90.0, np.nan], [], [5], 1),
        ([*range(49), np.inf], [], [50], 0),
    ],
)
def test_few_numbers(values, edges, counts, missing):
    found = numbers(np.array(values))
    assert (found["edges"], found["counts"], found["missing"]) == (edges, counts, missing)


def test_labels_are_bounded_in_number_and_length():
    found = labels([f"label {number % 80}" for number in range(800)] + ["x" * 500] * 10)
    assert len(found["labels"]) == 50
    assert sum(found["labels"].values()) + found["other"] == 810
    assert max(len(label) for label in found["labels"]) <= 120


@pytest.mark.parametrize(
    ("histogram", "words"),
    [
        ({"kind": "number", "edges": [2.0], "counts": [4, 6], "missing": 0}, "40% below 2"),
        ({"kind": "number", "edges": [2.0], "counts": [4, 6], "missing": 10}, "40% below 2; 50.0% missing"),
        ({"kind": "number", "edges": [], "counts": [0], "missing": 3}, "no value; 100.0% missing"),
        ({"kind": "number", "edges": [], "counts": [9], "missing": 0}, "too few for quantiles"),
        ({"kind": "label", "labels": {"a": 1, "b": 3}, "other": 0, "missing": 0}, "b 75%, a 25%"),
        (
            {"kind": "label", "labels": dict.fromkeys("abcdef", 5), "other": 0, "missing": 0},
            "a 17%, b 17%, c 17%, d 17% and 2 more",
        ),
        ({"kind": "label", "labels": {}, "other": 3, "missing": 0}, "3 rare labels"),
    ],
)
def test_a_histogram_in_words(histogram, words):
    assert _histogram(histogram) == words
