"""Figures from cells: against scikit-learn on the same rows, and how often an interval holds the truth."""

import numpy as np
import pytest
from scipy.special import ndtr
from sklearn.metrics import brier_score_loss, roc_auc_score

from nightscore.monitoring.outcomes import WIDTH
from nightscore.monitoring.performance import BUCKETS, FEWEST_BUCKETS, Cells, compare, measures, rate


def cells_of(score, outcome, bucket):
    """Count rows as the warehouse does: by bucket and by a twentieth of log-odds."""
    inner = np.clip(score, 1e-7, 1 - 1e-7)
    bins = np.floor(np.log(inner / (1 - inner)) / WIDTH).astype(int)
    keys, place = np.unique(np.stack([bucket, bins]), axis=1, return_inverse=True)
    place = place.ravel()
    sums = [np.bincount(place, weight) for weight in (None, outcome, score, (score - outcome) ** 2)]
    rows = [
        dict(zip(("bucket", "bin", "n", "positives", "scores", "errors"), row, strict=True))
        for row in zip(*keys.tolist(), *(item.tolist() for item in sums), strict=True)
    ]
    return Cells.of(rows, {key: index for index, key in enumerate(np.unique(bucket).tolist())})


def nights(rng, accounts=1500, count=4):
    """Scores of two models on several nights: an account has one outcome, and nearly the same scores every night."""
    outcome = rng.random(accounts) < 0.3
    signal = rng.normal(outcome * 1.0, 1)
    one, other = (signal + rng.normal(0, noise, accounts) for noise in (1.0, 0.8))
    rows = [[1 / (1 + np.exp(-(side + rng.normal(0, 0.05, accounts)))) for side in (one, other)] for _ in range(count)]
    bucket = rng.integers(0, BUCKETS, accounts)
    scores = [np.concatenate([row[side] for row in rows]) for side in (0, 1)]
    return scores, np.tile(outcome, count).astype(float), np.tile(bucket, count)


def true_auc(noise):
    """AUC of two normal distributions one apart."""
    return float(ndtr(1 / np.sqrt(2 * (1 + noise**2 + 0.05**2))))


@pytest.mark.parametrize("rare", [0.5, 4.0], ids=["ordinary", "rare positives, scores near 0"])
def test_figures_are_those_of_scikit_learn(rare):
    rng = np.random.default_rng(1)
    outcome = (rng.random(20_000) < 1 / (1 + np.exp(rare))).astype(float)
    score = 1 / (1 + np.exp(-(rng.normal(outcome, 1) - rare)))
    found = {name: value[0] for name, value in _whole(cells_of(score, outcome, rng.integers(0, 9, 20_000))).items()}
    assert found["auc"] == pytest.approx(roc_auc_score(outcome, score), abs=1e-3)
    assert found["brier"] == pytest.approx(brier_score_loss(outcome, score), abs=1e-12)
    assert found["gini"] == 2 * found["auc"] - 1


def _whole(cells):
    return measures(cells, np.ones((1, len(cells.rows))))


def test_ties_count_half():
    rows = [{"bucket": 0, "bin": 0, "n": 4, "positives": 1, "scores": 2.0, "errors": 1.0}]
    assert _whole(Cells.of(rows, {0: 0}))["auc"] == 0.5


def test_the_interval_holds_the_truth_about_as_often_as_it_says_and_drawing_rows_would_not(monkeypatch):
    monkeypatch.setattr("nightscore.monitoring.performance.REPLICATES", 300)
    truth = true_auc(0.8) - true_auc(1.0)
    rng = np.random.default_rng(5)
    held, held_of_rows, above = 0, 0, 0
    times = 100
    for _ in range(times):
        (one, other), outcome, bucket = nights(rng)
        found = compare(cells_of(one, outcome, bucket), cells_of(other, outcome, bucket), 0.9)["difference"]["auc"]
        held += found["low"] <= truth <= found["high"]
        above += found["least"] <= truth
        rows = rng.integers(0, BUCKETS, len(outcome))
        naive = compare(cells_of(one, outcome, rows), cells_of(other, outcome, rows), 0.9)["difference"]["auc"]
        held_of_rows += naive["low"] <= truth <= naive["high"]
    assert 0.88 <= held / times <= 1, "95 % of the intervals"
    assert 0.82 <= above / times <= 0.97, "90 % of the bounds"
    assert held_of_rows / times < 0.8, "the nights of an account are no rows of their own"


def test_the_same_counts_have_the_same_intervals_and_too_few_buckets_have_none():
    (one, other), outcome, bucket = nights(np.random.default_rng(2), 300)
    pair = [cells_of(side, outcome, bucket) for side in (one, other)]
    assert compare(*pair, 0.95) == compare(*pair, 0.95)
    few = [cells_of(side, outcome, bucket % (FEWEST_BUCKETS - 1)) for side in (one, other)]
    found = compare(*few, 0.95)
    assert found["champion"]["auc"]["value"] == pytest.approx(roc_auc_score(outcome, one), abs=5e-3)
    assert found["difference"]["auc"]["least"] is None
    assert {item["low"] for item in found["champion"]["calibration"]} == {None}


@pytest.mark.parametrize("rare", [0, 1], ids=["few negatives", "few positives"])
def test_few_outcomes_of_one_class_have_figures_and_no_bounds(rare):
    rng = np.random.default_rng(6)
    bucket = np.arange(6_000) % BUCKETS
    enough = np.arange(6_000) < FEWEST_BUCKETS
    score = 1 / (1 + np.exp(-rng.normal(enough == rare, 1)))

    def found(several):
        outcome = np.where(several, rare, 1 - rare).astype(float)
        return compare(cells_of(score, outcome, bucket), cells_of(1 - score, outcome, bucket), 0.95)

    few = enough & (np.arange(6_000) > 0)
    difference = found(few)["difference"]["auc"]
    assert difference["value"] is not None
    assert (difference["low"], difference["high"], difference["least"]) == (None, None, None)
    difference = found(enough)["difference"]["auc"]
    assert difference["low"] < difference["least"] < difference["value"] < difference["high"]
    twice = few | np.roll(few, BUCKETS)
    assert found(twice)["difference"]["auc"]["least"] is None, "rows of the same buckets are no further witnesses"


def test_a_rate_of_few_positives_has_no_bounds():
    rows = np.full(BUCKETS, 50.0)
    for positives, known in ((FEWEST_BUCKETS - 1, False), (FEWEST_BUCKETS, True)):
        found = rate(rows, (np.arange(BUCKETS) < positives).astype(float))
        assert found["rate"] == positives / rows.sum()
        assert (found["low"] is not None, found["high"] is not None) == (known, known)


def test_one_outcome_alone_has_no_auc():
    (one, other), outcome, bucket = nights(np.random.default_rng(3), 300)
    found = compare(*(cells_of(side, outcome * 0, bucket) for side in (one, other)), 0.95)
    assert found["champion"]["auc"] == {"value": None, "low": None, "high": None}
    assert found["champion"]["brier"]["value"] == pytest.approx((one**2).mean())


def test_a_calibration_shows_a_model_that_promises_too_much():
    rng = np.random.default_rng(4)
    score, bucket = rng.random(20_000), rng.integers(0, BUCKETS, 20_000)
    outcome = (rng.random(20_000) < score / 2).astype(float)
    deciles = compare(*[cells_of(score, outcome, bucket)] * 2, 0.95)["champion"]["calibration"]
    assert [item["decile"] for item in deciles] == list(range(1, 11))
    for item in deciles:
        assert item["observed"] == pytest.approx(item["predicted"] / 2, abs=0.04)
        assert item["low"] <= item["observed"] <= item["high"]
    assert deciles[-1]["high"] < deciles[-1]["predicted"]


def test_a_rate_of_no_rows_is_unknown():
    assert rate(np.zeros(30), np.zeros(30)) == {"rows": 0, "positives": 0, "rate": None, "low": None, "high": None}
