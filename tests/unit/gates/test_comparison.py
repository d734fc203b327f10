"""How much predictions changed, and what is said of it."""

import math

import pytest

from nightscore.gates.comparison import judged, moments, population_stability
from nightscore.spec import Levels

BOTH = Levels(warn=0.1, stop=0.25)


@pytest.mark.parametrize(
    ("change", "levels", "passed", "severity"),
    [
        (0.1, BOTH, True, "warning"),
        (0.11, BOTH, False, "warning"),
        (0.25, BOTH, False, "warning"),
        (0.26, BOTH, False, "critical"),
        (0.26, Levels(stop=0.25), False, "critical"),
        (0.24, Levels(stop=0.25), True, "warning"),
        (9.0, Levels(warn=0.1), False, "warning"),
        (9.0, Levels(), True, "warning"),
        (math.inf, BOTH, False, "critical"),
    ],
)
def test_a_change_is_judged_by_its_levels(change, levels, passed, severity):
    verdict = judged("psi", "score", change, levels, "beside 2026-11-18")
    assert (verdict.passed, verdict.severity, verdict.built_in) == (passed, severity, False)


def test_a_verdict_says_what_is_wanted_and_seen():
    assert judged("rows", "", 0.5, BOTH, "1,500 rows, 1,000 on 2026-11-18").sentence() == (
        "compare_rows: wanted warn above 0.1, stop above 0.25, seen 0.5: 1,500 rows, 1,000 on 2026-11-18"
    )
    assert judged("rows", "", 0.5, Levels(), "…").wanted == "anything"


def test_the_index_of_a_shift_is_the_published_formula():
    now, before = [300, 500, 200], [200, 500, 300]
    plain = (0.3 - 0.2) * math.log(0.3 / 0.2) + (0.2 - 0.3) * math.log(0.2 / 0.3)
    assert population_stability(now, before) == pytest.approx(plain, rel=0.01)
    assert population_stability(before, before) == 0


def test_an_empty_bin_counts_without_being_infinite():
    assert 1 < population_stability([0, 1_000], [500, 500]) < 10


def test_mean_and_spread_come_from_sums():
    values = [1.0, 2.0, 6.0]
    figures = {"rows": 3, "sum": sum(values), "squares": sum(v * v for v in values)}
    assert moments(figures) == (3.0, pytest.approx(math.sqrt(14 / 3)))
    assert moments({"rows": 2, "sum": 0.2, "squares": 0.02}) == (0.1, pytest.approx(0.0, abs=1e-8))
