"""The policy: every rule that is given has a finding, and what is not known does not pass."""

import copy

import pytest

from nightscore.monitoring.policy import Finding, judge
from nightscore.spec import Promotion

EVIDENCE = {
    "task": "binary",
    "nights": [{}] * 14,
    "left_out": [],
    "other_threshold": 0,
    "accumulated": {"figures": {"rows": 10_000, "flips": 150, "flip_share": 0.015, "psi": 0.04}},
    "outcomes": {
        "rows": 8_000,
        "positives": 12,
        "one_sided_confidence": 0.95,
        "difference": {"auc": {"value": 0.012, "low": -0.004, "high": 0.02, "least": -0.002}},
    },
}


def policy(**changes):
    return Promotion.model_validate({"min_nights": 14, **changes})


def evidence(path=None, value=None):
    found = copy.deepcopy(EVIDENCE)
    if path:
        *parents, last = path.split(".")
        inner = found
        for name in parents:
            inner = inner[name]
        inner[last] = value
    return found


def test_all_rules_in_order():
    found = judge(policy(max_flips="2%", max_auc_loss=0.005, max_psi=0.25), EVIDENCE)
    assert found == [
        Finding("min_nights", True, "14 nights", "at least 14"),
        Finding("max_flips", True, "150 of 10,000 rows, 1.500%", "at most 2.000%"),
        Finding(
            "max_auc_loss",
            True,
            "+0.0120 on 8,000 rows, at least -0.0020",
            "not lower by more than 0.005, with 95% confidence",
        ),
        Finding("max_psi", True, "0.04", "at most 0.25"),
    ]


def test_a_rule_that_is_not_given_is_not_asked_for():
    assert [finding.rule for finding in judge(policy(), EVIDENCE)] == ["min_nights"]


@pytest.mark.parametrize(
    ("rule", "limit", "path", "value", "found"),
    [
        ("min_nights", 15, None, None, "14 nights"),
        ("min_nights", 15, "left_out", [{}], "14 nights, and 1 on which the challenger was left out"),
        ("max_flips", 0.0149, None, None, "150 of 10,000 rows, 1.500%"),
        ("max_flips", 0.5, "accumulated.figures.flip_share", None, "the spec has no predictions.threshold"),
        ("max_flips", 0.5, "accumulated.figures", {"rows": 0}, "no rows"),
        ("max_psi", 0.039, None, None, "0.04"),
        ("max_psi", 0.25, "accumulated.figures", {"rows": 0}, "no rows"),
        ("max_auc_loss", 0.0019, None, None, "+0.0120 on 8,000 rows, at least -0.0020"),
        ("max_auc_loss", 0.5, "outcomes", {"rows": 0, "reason": "no outcome is known yet"}, "no outcome is known yet"),
        (
            "max_auc_loss",
            0.5,
            "outcomes.difference.auc.least",
            None,
            "12 of 8,000 rows positive: too few outcomes to tell how sure it is",
        ),
        (
            "max_auc_loss",
            0.5,
            "outcomes.one_sided_confidence",
            0.9,
            "the evidence was gathered for 90% confidence; gather it again",
        ),
    ],
)
def test_what_falls_short_or_is_not_known_does_not_pass(rule, limit, path, value, found):
    [finding] = [item for item in judge(policy(**{rule: limit}), evidence(path, value)) if item.rule == rule]
    assert (finding.passed, finding.found) == (False, found)


def test_a_limit_may_be_reached():
    assert all(finding.passed for finding in judge(policy(max_flips=0.015, max_auc_loss=0.002, max_psi=0.04), EVIDENCE))


def test_flips_at_another_threshold_do_not_pass():
    found = evidence("accumulated.figures.flip_share", None) | {"other_threshold": 3}
    finding = judge(policy(max_flips="50%"), found)[1]
    assert (finding.passed, finding.found) == (False, "3 of 14 nights had another threshold")


def test_a_regression_has_no_decisions_to_flip():
    found = evidence("accumulated.figures.flip_share", None) | {"task": "regression"}
    assert judge(policy(max_flips="2%"), found)[1].found == "a regression model decides nothing that could flip"
