"""Counting nights together: as if all their rows had been counted at once."""

import numpy as np
import pytest

from nightscore.gates.comparison import population_stability
from nightscore.monitoring.agreement import MOST_VALUES, SCORE_BINS, SCORE_WIDTH, add, counts_of_cells, figures


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
        inner = np.clip(side, 1e-7, 1 - 1e-7)
        bins = np.floor(np.log(inner / (1 - inner)) / SCORE_WIDTH).astype(int) + SCORE_BINS // 2
        counts = np.bincount(np.clip(bins, 0, SCORE_BINS - 1), minlength=SCORE_BINS)
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


def of_log_odds(logit):
    return 1 / (1 + np.exp(-logit))


def by_the_champions_deciles(champion, challenger):
    """The index as a textbook has it: the borders are the champion's deciles."""
    borders = np.quantile(champion, np.arange(1, 10) / 10)
    counts = [np.bincount(np.searchsorted(borders, side), minlength=10).tolist() for side in (challenger, champion)]
    return population_stability(*counts)


@pytest.mark.parametrize(
    ("mean", "spread", "shift"),
    [(-1, 1.2, 0.3), (-4.5, 0.8, 0.42), (-4.4, 0.3, 0.42), (-8, 1, 0.3), (-4.5, 0.8, 0), (3, 2, -1)],
    ids=["ordinary", "1 % default", "1 % default, all alike", "0.03 % default", "no shift", "most are positive"],
)
def test_the_stability_index_is_that_of_the_champions_deciles_at_every_rate(mean, spread, shift):
    rng = np.random.default_rng(8)
    logit = rng.normal(mean, spread, 20_000)
    a, b = of_log_odds(logit), of_log_odds(logit + shift + rng.normal(0, spread / 5, 20_000))
    added = add(night(a[:8_000], b[:8_000]), night(a[8_000:], b[8_000:]))
    found = figures(added)["psi"]
    assert found == figures(night(a, b))["psi"], "as of all rows at once"
    assert found == pytest.approx(by_the_champions_deciles(a, b), rel=0.1, abs=0.01)


def test_a_champion_that_scores_all_rows_alike_is_left_by_every_other_score():
    same = np.full(1_000, 0.2)
    assert figures(night(same, same))["psi"] == 0
    assert figures(night(same, np.full(1_000, 0.3)))["psi"] > 5


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
