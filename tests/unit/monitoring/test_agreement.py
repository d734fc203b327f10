"""Counting nights together: as if all their rows had been counted at once."""

import numpy as np
import pytest

from nightscore.monitoring.agreement import MOST_VALUES, add, counts_of_cells, figures


def night(a, b, shift=0.5, threshold=0.5, value="x"):
    """Count two models' scores as a night's query does."""
    flags = {
        "flagged_by_champion": (a >= threshold).sum(),
        "flagged_by_challenger": (b >= threshold).sum(),
        "swapped_in": ((a < threshold) & (b >= threshold)).sum(),
        "swapped_out": ((a >= threshold) & (b < threshold)).sum(),
    }
    x, y = a - shift, b - shift
    measures = {
        "n": len(a),
        "sum_a": x.sum(),
        "sum_b": y.sum(),
        "sum_aa": x @ x,
        "sum_bb": y @ y,
        "sum_ab": x @ y,
        "absolute": np.abs(a - b).sum(),
        "squared": ((a - b) ** 2).sum(),
        "largest": np.abs(a - b).max(),
    }
    cells = [{"challenger": "m/2", "kind": 0, "value": "", **measures, **flags}]
    for kind, side in ((1, a), (2, b)):
        counts = np.histogram(side, 20, (0, 1))[0]
        cells += [{"challenger": "m/2", "kind": kind, "value": str(bin_), "n": n} for bin_, n in enumerate(counts) if n]
    cells.append({"challenger": "m/2", "kind": 3, "value": value, **measures, **flags})
    return counts_of_cells(cells, "binary", ["segment"], shift)["m/2"]


@pytest.fixture
def scores():
    rng = np.random.default_rng(0)
    a = rng.beta(2, 5, (3, 400))
    return a, np.clip(a + rng.normal(0.02, 0.1, a.shape), 0, 1)


def test_nights_added_are_all_rows_counted_at_once(scores):
    a, b = scores
    whole = night(a.ravel(), b.ravel())
    added = add(add(night(a[0], b[0]), night(a[1], b[1])), night(a[2], b[2]))
    assert added["counts"] == whole["counts"]
    assert added["bins"] == whole["bins"]
    assert added["slices"] == whole["slices"]
    assert added["moments"] == pytest.approx(whole["moments"], rel=1e-12)
    assert figures(added)["correlation"] == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1], abs=1e-12)


def test_amounts_in_the_millions_keep_their_correlation(scores):
    a, b = (1e9 + side for side in scores)
    halves = [night(a[row], b[row], shift=1e9) for row in range(3)]
    found = figures(add(add(halves[0], halves[1]), halves[2]))["correlation"]
    assert found == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1], abs=1e-6)


def test_a_constant_score_has_no_correlation():
    same = np.full(10, 0.25)
    found = figures(night(same, np.linspace(0, 1, 10)))
    assert found["correlation"] is None
    assert found["mean_absolute_difference"] > 0


def test_the_same_scores_do_not_differ(scores):
    a, _ = scores
    found = figures(night(a[0], a[0]))
    assert (found["flips"], found["psi"], found["largest_difference"]) == (0, 0, 0)
    assert found["correlation"] == pytest.approx(1, abs=1e-12)


def test_nights_without_a_threshold_leave_the_flips_unknown(scores):
    a, b = scores
    found = figures(add(night(a[0], b[0]), _unflagged(a[1], b[1])))
    assert (found["rows"], found["flips"], found["flip_share"]) == (800, None, None)


def _unflagged(a, b):
    counted = night(a, b)
    return {**counted, "counts": {"rows": counted["counts"]["rows"]}}


def test_values_that_no_night_holds_back_are_bounded_together(scores):
    a, b = scores
    total = night(a[0], b[0], value="v0")
    for number in range(1, MOST_VALUES + 5):
        total = add(total, night(a[1][:100], b[1][:100], value=f"v{number}"))
    values = total["slices"]["segment"]
    assert len(values) == MOST_VALUES + 1
    assert values["v0"]["rows"] == 400
    assert values["(other)"]["rows"] == 500
    assert sum(counts["rows"] for counts in values.values()) == total["counts"]["rows"]
