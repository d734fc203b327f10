"""A gate's record and the sentence with which it stops a run."""

from typing import Any

import pytest

from nightscore.errors import GateRefusedError
from nightscore.gates.expectations import Verdict
from nightscore.gates.gate import MOST_SHOWN, GateStoppedError, Leave, gate_record
from nightscore.objects import to_json


def verdict(**changes: Any) -> Verdict:
    content: dict[str, Any] = {
        "expectation": "expect_column_values_to_not_be_null",
        "column": "limit_bal",
        "severity": "critical",
        "passed": True,
        "observed": "0% unexpected",
        "wanted": "all rows",
        "rows": 10_000,
        "failing_rows": 0,
    }
    return Verdict(**{**content, **changes})


GOOD = verdict()
BAD = verdict(passed=False, observed="12.5% unexpected", failing_rows=1_250)
DUBIOUS = verdict(passed=False, severity="warning", observed="0.1% unexpected", wanted="mostly 0.9999", failing_rows=10)


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (
            BAD,
            (
                "expect_column_values_to_not_be_null on limit_bal: wanted all rows, seen 12.5% unexpected "
                "(1,250 of 10,000 rows fail)"
            ),
        ),
        (
            verdict(
                expectation="expect_table_row_count_to_be_between",
                column="",
                wanted="min_value 1000",
                observed="12",
                rows=None,
                failing_rows=None,
            ),
            "expect_table_row_count_to_be_between: wanted min_value 1000, seen 12",
        ),
    ],
)
def test_a_finding_is_one_line(found: Verdict, sentence: str) -> None:
    assert found.sentence() == sentence


@pytest.mark.parametrize(
    ("verdicts", "faults", "outcome", "stops", "warnings"),
    [
        ([], [], "pass", 0, 0),
        ([GOOD, GOOD], [], "pass", 0, 0),
        ([GOOD, DUBIOUS], [], "warn", 0, 1),
        ([GOOD, BAD], [], "stop", 1, 0),
        ([DUBIOUS, BAD, BAD], [], "stop", 2, 1),
        ([GOOD], ["3 of 9 rows were rejected"], "stop", 1, 0),
        ([DUBIOUS, BAD], ["3 of 9 rows were rejected"], "stop", 2, 1),
    ],
)
def test_a_verdict(verdicts: list[Verdict], faults: list[str], outcome: str, stops: int, warnings: int) -> None:
    record = gate_record(10_000, verdicts, faults, task="binary")
    assert (record["verdict"], len(record["stopped_by"]), len(record["warnings"])) == (outcome, stops, warnings)
    assert record["checks"] == [item.to_json() for item in verdicts]
    assert (record["rows"], record["task"]) == (10_000, "binary")
    assert to_json(record), "a record is JSON"


def test_faults_come_before_what_the_expectations_found() -> None:
    assert gate_record(1, [BAD], ["first"])["stopped_by"] == ["first", BAD.sentence()]


def test_a_stopped_run_says_why_and_where_to_look() -> None:
    record = gate_record(10_000, [GOOD, BAD, DUBIOUS], ["3 of 9 rows were rejected"])
    error = GateStoppedError("credit_default", "feature_gate", record, "gs://bucket/runs/credit_default/r/")
    assert isinstance(error, GateRefusedError)
    assert error.record is record
    assert str(error) == (
        "credit_default: the feature gate refused 10,000 rows; nothing was published.\n"
        "  - 3 of 9 rows were rejected\n"
        f"  - {BAD.sentence()}\n"
        "The whole report: gs://bucket/runs/credit_default/r/feature_gate.json"
    )


def test_the_message_stays_bounded() -> None:
    record = gate_record(1, [verdict(passed=False, column=f"c{i}") for i in range(500)])
    lines = str(GateStoppedError("credit_default", "prediction_gate", record, "gs://b/")).splitlines()
    assert len(lines) == MOST_SHOWN + 3
    assert lines[-2:] == ["  … and 492 more", "The whole report: gs://b/prediction_gate.json"]
    assert len(record["stopped_by"]) == 500


GIVEN = Leave(frozenset({"expect_column_values_to_not_be_null:limit_bal"}), by="anna", reason="known since Monday")


def test_an_overridden_check_does_not_stop_the_run_and_is_told() -> None:
    record = gate_record(10_000, [GOOD, BAD], leave=GIVEN)
    assert (record["verdict"], record["stopped_by"], record["warnings"]) == ("warn", [], [])
    assert record["overridden"] == [BAD.sentence()]
    assert (record["by"], record["reason"]) == ("anna", "known since Monday")
    assert [check["overridden"] for check in record["checks"]] == [False, True]


@pytest.mark.parametrize("other", [verdict(passed=False, built_in=True), verdict(passed=False, column="age")])
def test_an_override_covers_only_what_it_names_and_never_what_is_always_checked(other: Verdict) -> None:
    record = gate_record(10_000, [other], leave=GIVEN)
    assert (record["verdict"], "overridden" in record) == ("stop", False)


def test_faults_cannot_be_overridden() -> None:
    assert gate_record(10, [BAD], ["10 rows are missing"], leave=GIVEN)["stopped_by"] == ["10 rows are missing"]


def test_warnings_hold_a_run_where_the_spec_says_so() -> None:
    held = gate_record(10_000, [DUBIOUS], leave=Leave(holds_warnings=True))
    assert held["verdict"] == "stop"
    assert held["stopped_by"] == ["held because of 1 warning; look, and run again with --accept-warnings"]
    assert held["warnings"] == [DUBIOUS.sentence()]
    both = gate_record(10_000, [DUBIOUS, BAD], leave=Leave(holds_warnings=True))
    assert both["stopped_by"] == [BAD.sentence()]
