"""How two plans differ, field by field."""

import copy
from typing import Any

import pytest

from nightscore.changes import differences

MEAN = {"expect": "expect_column_mean_to_be_between", "severity": "critical", "column": "score", "max_value": 0.4}
COUNT = {"expect": "expect_table_row_count_to_be_between", "severity": "critical", "min_value": 1000}
BEFORE: dict[str, Any] = {
    "schedule": {"cron": "0 2 * * *", "timezone": "UTC"},
    "description": "Chance of default.\n\nCall risk.",
    "features": {"keys": ["id"], "reject": {"old": "age > 110"}},
    "checks": {"features": [COUNT, MEAN], "predictions": [], "max_rejected": 0.01},
    "limits": {"max_rows": None},
}


def changed(path: str, value: object) -> list[tuple[str, str, Any, Any]]:
    after = copy.deepcopy(BEFORE)
    *parents, last = path.split(".")
    part = after
    for parent in parents:
        part = part[parent]
    part[last] = value
    found = differences(BEFORE, after)
    return [(item["field"], item["change"], item["before"], item["after"]) for item in found]


def test_nothing_changed() -> None:
    assert differences(BEFORE, copy.deepcopy(BEFORE)) == []


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("checks.max_rejected", 0.02, ("checks.max_rejected", "changed", 0.01, 0.02)),
        ("limits.max_rows", 10, ("limits.max_rows", "added", None, 10)),
        ("features.reject", {}, ("features.reject.old", "removed", "age > 110", None)),
        ("features.keys", ["id", "product"], ("features.keys", "changed", ["id"], ["id", "product"])),
        ("schedule", None, ("schedule", "removed", {"cron": "0 2 * * *", "timezone": "UTC"}, None)),
        ("description", "Chance of default.\n\nCall Ann.\nOr Bob.", ("description", "changed", "3 lines", None)),
    ],
)
def test_one_change(path: str, value: object, expected: tuple[str, str, Any, Any]) -> None:
    [found] = changed(path, value)
    assert found[:3] == expected[:3]
    assert found[3] == (expected[3] if path != "description" else "4 lines, 2 added, 1 removed")


def test_checks_are_compared_by_what_they_check_and_not_by_their_place() -> None:
    assert changed("checks.features", [MEAN, COUNT]) == []
    found = changed("checks.features", [{**MEAN, "max_value": 0.5}])
    assert found == [
        ("checks.features[expect_table_row_count_to_be_between]", "removed", COUNT, None),
        ("checks.features[expect_column_mean_to_be_between on score].max_value", "changed", 0.4, 0.5),
    ]


def test_the_first_check_and_the_last_are_told_by_their_names() -> None:
    assert changed("checks.predictions", [COUNT])[0][:2] == (
        "checks.predictions[expect_table_row_count_to_be_between]",
        "added",
    )
    assert [item[1] for item in changed("checks.features", [])] == ["removed", "removed"]


def test_two_checks_of_the_same_are_told_apart() -> None:
    [found] = changed("checks.features", [COUNT, MEAN, {**MEAN, "severity": "warning"}])
    assert found[:2] == ("checks.features[expect_column_mean_to_be_between on score #2]", "added")


def test_values_are_bounded() -> None:
    [(_, _, _, rule)] = changed("features.reject.long", "x" * 5000)
    [(_, _, _, keys)] = changed("features.keys", ["key"] * 5000)
    assert len(rule) == len(keys) == 120
