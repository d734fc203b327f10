"""A suite's file stands for the list of its expectations; what is wrong with it is said with its name."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from nightscore.spec import Spec
from nightscore.specs import SpecError, parse_spec

SUITE = {
    "name": "features",
    "id": "4f1c",
    "meta": {"great_expectations_version": "1.24.1"},
    "expectations": [
        {
            "type": "expect_column_values_to_not_be_null",
            "kwargs": {"column": "age", "mostly": 0.9},
            "id": "1",
            "meta": {},
        },
        {
            "type": "expect_table_row_count_to_be_between",
            "kwargs": {"min_value": 10},
            "severity": "warning",
            "notes": "A night without rows is a fault of the source.",
        },
    ],
}
WRITTEN = [
    {"expect": "expect_column_values_to_not_be_null", "column": "age", "mostly": 0.9},
    {
        "expect": "expect_table_row_count_to_be_between",
        "min_value": 10,
        "severity": "warning",
        "notes": "A night without rows is a fault of the source.",
    },
]


def read(folder: Path, checks: object, suite: object = SUITE) -> Spec:
    (folder / "suite.json").write_text(suite if isinstance(suite, str) else json.dumps(suite))
    content = {
        "features": {"table": "features.accounts", "partition": "day", "keys": ["id"]},
        "model": {"name": "cards"},
        "predictions": {"table": "predictions.cards"},
        "checks": checks,
    }
    return parse_spec("cards", yaml.safe_dump(content), folder)


@pytest.mark.parametrize("gate", ["features", "predictions"])
def test_a_suite_is_the_list_of_its_expectations(tmp_path: Path, gate: str) -> None:
    found = read(tmp_path, {gate: {"suite": "suite.json"}})
    assert getattr(found.checks, gate) == getattr(read(tmp_path, {gate: WRITTEN}).checks, gate)
    assert found.digest == read(tmp_path, {gate: WRITTEN}).digest


def test_its_content_is_in_the_digest(tmp_path: Path) -> None:
    before = read(tmp_path, {"features": {"suite": "suite.json"}})
    changed = {**SUITE, "expectations": [SUITE["expectations"][0]]}
    assert read(tmp_path, {"features": {"suite": "suite.json"}}, changed).digest != before.digest


def test_further_expectations_follow(tmp_path: Path) -> None:
    also = {"expect": "expect_column_to_exist", "column": "age"}
    found = read(tmp_path, {"features": {"suite": "suite.json", "also": [also]}})
    assert found == read(tmp_path, {"features": [*WRITTEN, also]})


ONE = {"type": "expect_column_to_exist", "kwargs": {"column": "a"}}
NOT_A_SUITE = "suite: the file 'suite.json' is not a suite of Great Expectations: "

MALFORMED: list[tuple[dict[str, Any], object, str]] = [
    ({"suite": "suit.json"}, SUITE, "suite: there is no file 'suit.json'. Did you mean `suite.json`?"),
    (
        {"suit": "suite.json"},
        SUITE,
        "suite: is required.\ncards: checks.features.suit: unknown key. Did you mean `suite`?",
    ),
    (
        {"suite": "../suite.json"},
        SUITE,
        (
            "suite: '../suite.json' is not a file beside pipeline.yaml: write a relative path ending in .json, "
            "without `..`."
        ),
    ),
    ({"suite": 5}, SUITE, "suite: must be text, found 5."),
    ({"suite": "suite.json", "also": 3}, SUITE, "also: must be a list, found 3."),
    ({"suite": "suite.json", "also": ["a"]}, SUITE, "also[0]: must be a mapping, found 'a'."),
    ({}, "{", "suite: the file 'suite.json' is not JSON (line 1, column 2): "),
    ({}, [], f"{NOT_A_SUITE}it has no list `expectations`."),
    ({}, {"expectation": []}, f"{NOT_A_SUITE}it has no list `expectations`. Did you mean `expectation`?"),
    ({}, {"expectations": ["a"]}, f"{NOT_A_SUITE}expectations[0] is not a mapping."),
    ({}, {"expectations": [ONE, {"kwargs": {}}]}, f"{NOT_A_SUITE}expectations[1] has no `type`."),
    (
        {},
        {"expectations": [{"expectation_type": "expect_column_to_exist"}]},
        (
            f"{NOT_A_SUITE}expectations[0] has no `type`. Versions before 1 wrote `expectation_type`; "
            "save the suite again with a version from 1 on."
        ),
    ),
    ({}, {"expectations": [{**ONE, "kwargs": []}]}, f"{NOT_A_SUITE}expectations[0].kwargs is not a mapping."),
    (
        {},
        {"expectations": [{**ONE, "kwargs": {"severity": "warning"}}]},
        f"{NOT_A_SUITE}expectations[0].kwargs.severity is no argument of an expectation.",
    ),
    (
        {},
        {"expectations": [{**ONE, "kwargs": {"column": {"$PARAMETER": "c"}}}]},
        "suite: the file 'suite.json' takes a parameter: expectations[0].kwargs.column; write the value itself.",
    ),
    (
        {},
        {"expectations": [{**ONE, "severity": "info"}]},
        "[0].severity: must be 'critical' or 'warning', found 'info'.",
    ),
    (
        {},
        {"expectations": [ONE, {"type": "unexpected_rows_expectation", "kwargs": {}}]},
        (
            "[1].expect: 'unexpected_rows_expectation' is not an expectation: write Great Expectations' name, like "
            "expect_column_values_to_not_be_null."
        ),
    ),
]


@pytest.mark.parametrize(("checks", "suite", "message"), MALFORMED)
def test_malformed(tmp_path: Path, checks: dict[str, Any], suite: object, message: str) -> None:
    with pytest.raises(SpecError) as refused:
        read(tmp_path, {"features": checks or {"suite": "suite.json"}}, suite)
    joined = "" if message.startswith("[") else "."
    assert str(refused.value).startswith(f"cards: checks.features{joined}{message}")
    if "is not JSON" not in message:
        assert str(refused.value) == f"cards: checks.features{joined}{message}"
