"""Row rules, budgets, the checks that are always on, comparison with the last partition, and overrides."""

import datetime as dt
import json

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression

from nightscore.gates.gate import GateStoppedError
from nightscore.overrides import OverrideError
from nightscore.pipeline import run_stage, start
from nightscore.snapshot import freeze
from nightscore.source import RowRuleError

DAY = dt.date(2026, 11, 19)


def accounts(rows=1_000, day=DAY, shift=0.0):
    rng = np.random.default_rng(day.toordinal())
    return pa.table(
        {
            "id": np.arange(rows),
            "snapshot_date": pa.array([day] * rows, pa.date32()),
            "balance": rng.normal(shift, 1, rows),
            "months": rng.integers(1, 13, rows),
            "code": pa.array([str(n % 7) for n in range(rows)]),
        }
    )


@pytest.fixture
def cards(bench):
    """A feature table and a registered classifier on `balance`."""
    bench.write("features", accounts())
    inputs = accounts().select(["balance"])
    frame = inputs.to_pandas()
    bench.register(LogisticRegression().fit(frame, frame.balance > 0), inputs)
    return bench


def checks_of(error, name):
    return {check["column"]: check for check in error.value.record["checks"] if check["expectation"] == name}


def test_rules_reject_rows_they_hit_and_rows_they_fail_on(cards):
    months = np.ones(1_000, int)
    months[:3], months[3:5] = 0, -4
    codes = [str(n % 7) for n in range(1_000)]
    codes[4:10] = ["x"] * 6
    table = accounts().set_column(3, "months", pa.array(months)).set_column(4, "code", pa.array(codes))
    cards.write("features", table)
    reject = {"late": "12 / months < 0", "coded": {"when": "CAST(code AS INT64) > 6", "max_rejected": 10}}
    spec = cards.spec(features={"reject": reject}, checks={"max_rejected": 10})
    summary = cards.run(spec)
    assert (summary["rows_frozen"], summary["rows_rejected"], summary["rows_published"]) == (1_000, 10, 990)
    assert [row["id"] for row in cards.published().to_pylist()] == list(range(10, 1_000))
    rows = cards.sql(
        "SELECT rules, row_key, row_values FROM nightscore_operations.quarantine "
        f"WHERE pipeline = '{cards.name}' ORDER BY CAST(JSON_VALUE(row_key, '$.id') AS INT64)"
    )
    assert [json.loads(row["row_key"]) for row in rows] == [{"id": n} for n in range(10)]
    assert [row["rules"] for row in rows] == [
        *["late:error"] * 3,
        "late",
        "coded:error,late",
        *["coded:error"] * 5,
    ]
    assert json.loads(rows[4]["row_values"])["code"] == "x"


def test_a_rule_has_a_budget_of_its_own_and_its_refusal_can_be_overridden(cards):
    reject = {"low": {"when": "balance < 0", "max_rejected": 5}, "coded": "code = '3'"}
    spec = cards.spec(features={"reject": reject}, checks={"max_rejected": "90%"})
    with pytest.raises(
        GateStoppedError, match=r"max_rejected on low: wanted at most 5, seen \d+ rejected rows"
    ) as refusal:
        cards.run(spec)
    budgets = checks_of(refusal, "max_rejected")
    assert [(name, check["passed"], check["wanted"]) for name, check in budgets.items()] == [
        ("", True, "at most 90.00%"),
        ("low", False, "at most 5"),
    ]
    assert budgets["low"]["failing_rows"] == int((accounts()["balance"].to_numpy() < 0).sum())
    with pytest.raises(OverrideError, match="Did you mean `max_rejected:low`"):
        cards.run(spec, overrides=["max_rejected:lo"], reason="known")
    with pytest.raises(OverrideError, match="needs a reason"):
        cards.run(spec, overrides=["max_rejected:low"])
    summary = cards.run(spec, overrides=["max_rejected:low"], reason="the branch in Lyon closed")
    assert summary["status"] == "published"
    assert summary["overridden"] == [
        {"check": "max_rejected on low", "by": summary["planned_by"], "reason": "the branch in Lyon closed"}
    ]
    [row] = cards.sql(
        "SELECT passed, overridden FROM nightscore_operations.checks "
        f"WHERE run_id = '{summary['run_id']}' AND expectation = 'max_rejected' AND `column` = 'low'"
    )
    assert row == {"passed": False, "overridden": True}


def test_a_night_unlike_the_last_one_warns_or_is_stopped_or_held(cards):
    before = DAY - dt.timedelta(days=1)
    cards.write("features", pa.concat_tables([accounts(day=before), accounts(1_500, shift=0.8)]))
    first = cards.run(day=before)
    assert first["warnings"] == []
    again = cards.run()
    assert [line.split(":")[0] for line in again["warnings"]] == [
        "compare_rows",
        "compare_mean on score",
        "compare_psi on score",
    ]
    assert f"1,500 rows, 1,000 on {before} (run {first['run_id']})" in again["warnings"][0]
    spec = cards.spec(checks={"compare": {"rows": {}, "mean": {}, "psi": {"warn": 0.1, "stop": 0.3}}})
    with pytest.raises(GateStoppedError, match=r"compare_psi on score: wanted warn above 0\.1, stop above 0\.3, seen"):
        cards.run(spec)
    held = cards.spec(checks={"compare": {"mean": {}, "psi": {}}, "warnings": "hold"})
    with pytest.raises(GateStoppedError, match="held because of 1 warning; look, and run again with --accept-warnings"):
        cards.run(held)
    accepted = cards.run(held, accept_warnings=True)
    assert (accepted["status"], len(accepted["warnings"])) == ("published", 1)


def test_scores_that_are_all_the_same_stop_a_run(cards):
    flat = accounts().set_column(2, "balance", pa.array(np.zeros(1_000)))
    cards.write("features", flat)
    with pytest.raises(GateStoppedError, match=r"max_same_score on score: wanted at most 90.00%, seen 100.00% of the"):
        cards.run()
    summary = cards.run(overrides=["max_same_score"], reason="a test")
    assert summary["status"] == "published"


def test_a_rule_that_is_no_sql_is_named(cards):
    spec = cards.spec(features={"reject": {"fine": "balance > 3", "broken": "balence > 3"}})
    with pytest.raises(RowRuleError, match=r"features\.reject\.broken"):
        start(spec, DAY, cards.services)
    guarded = cards.spec(
        features={"reject": {"dated": "PARSE_DATE('%Y', code) > DATE '2020-01-01' OR LN(balance) > 9"}}
    )
    run = start(guarded, DAY, cards.services)
    frozen = run_stage(run, freeze)
    run.require_lease().release()
    negative = int((accounts()["balance"].to_numpy() <= 0).sum())
    assert frozen["rejected_by_rule"]["dated"] >= negative
