"""`nightscore plan`: what it says before and after a publication, what it blocks, and that it leaves nothing behind."""

import dataclasses
import datetime as dt
import json

import numpy as np
import pyarrow as pa
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from nightscore.assessment import MisfitError
from nightscore.lease import ROOT as LEASES
from nightscore.pipeline import start
from nightscore.source import LimitError
from nightscore.warehouse import Warehouse

DAY = "2026-11-19"
ROWS = 400


def accounts():
    rng = np.random.default_rng(0)
    return pa.table(
        {
            "id": range(ROWS),
            "snapshot_date": pa.array([dt.date(2026, 11, 19)] * ROWS, pa.date32()),
            "balance": rng.normal(size=ROWS),
            "spend": rng.normal(size=ROWS),
            "age": rng.integers(18, 90, ROWS),
        }
    )


@pytest.fixture
def cards(bench, nightscore, monkeypatch):
    """A pipeline of 400 accounts with a linear champion, in a folder of specs that the command reads."""
    bench.table = accounts()
    bench.write("features", bench.table)
    bench.fit = lambda model, columns, alias: bench.register(
        model.fit(bench.table.select(columns).to_pandas(), bench.table["balance"].to_numpy() > 0),
        bench.table.select(columns),
        alias=alias,
    )
    bench.fit(LogisticRegression(), ["balance", "spend"], "champion")
    folder = bench.folder / "pipelines"
    monkeypatch.setenv("NIGHTSCORE_PIPELINES_DIR", str(folder))

    def change(**changes):
        (folder / bench.name).mkdir(parents=True, exist_ok=True)
        (folder / bench.name / "pipeline.yaml").write_text(bench.spec_text(**changes))

    def plan(*arguments):
        done = nightscore("plan", bench.name, "--partition", DAY, "--json", *arguments)
        return done.returncode, json.loads(done.stdout)

    bench.change, bench.plan, bench.nightscore = change, plan, nightscore
    change()
    return bench


def left_behind(cards):
    """Return every object of the bucket but the leases that were given back, and every table of ours."""
    client = cards.services.warehouse.client
    tables = {f"{d.dataset_id}.{t.table_id}" for d in client.list_datasets() for t in client.list_tables(d.dataset_id)}
    return [name for name in cards.services.bucket.iter_names("") if not name.startswith(LEASES)], tables


def test_a_plan_before_and_after_a_publication(cards):
    before, leases = left_behind(cards), list(cards.services.bucket.iter_names(LEASES))
    code, first = cards.plan()
    assert left_behind(cards) == before, "a plan writes nothing"
    assert list(cards.services.bucket.iter_names(LEASES)) == leases, "and takes no lease"
    assert (code, first["verdict"], first["reasons"]) == (0, "ready", [])
    assert (first["source"]["rows"], first["source"]["shards"], first["source"]["bytes_from"]) == (ROWS, 2, "dry run")
    assert first["source"]["bytes"] > 0
    assert first["source"]["cost"] == round(first["source"]["bytes"] / 2**40 * 6.25, 6)
    assert (first["model"]["version"], first["model"]["requested"]) == (f"{cards.name}/1", f"{cards.name}@champion")
    assert first["changes"] == {"since": None, "fields": [], "note": "no run of this pipeline was published yet"}
    assert (first["replaces"]["exists"], first["replaces"]["rows"], first["replaces"]["run_id"]) == (False, 0, None)
    assert (first["expected"]["seconds"], first["expected"]["runs"]) == (None, 0)

    summary = cards.run(cards.spec())
    code, second = cards.plan()
    assert code == 0
    assert second["changes"]["since"]["run_id"] == summary["run_id"]
    assert second["changes"]["fields"] == []
    assert (second["replaces"]["rows"], second["replaces"]["run_id"]) == (ROWS, summary["run_id"])
    assert second["expected"]["runs"] == 1
    assert second["expected"]["seconds"] == round(summary["seconds"], 1)

    version = cards.fit(HistGradientBoostingClassifier(max_iter=3), ["balance", "age"], "challenger")
    cards.change(
        features={"reject": {"impossible_age": "age < 18"}},
        checks={
            "features": [{"expect": "expect_table_row_count_to_be_between", "min_value": 10}],
            "max_rejected": 0.02,
        },
        limits={"shards": 2, "max_rows": 1000},
        deadline="06:00",
    )
    code, third = cards.plan("--model", f"{cards.name}@challenger")
    assert code == 0
    assert {item["field"]: (item["change"], item["before"], item["after"]) for item in third["changes"]["fields"]} == {
        "features.reject.impossible_age": ("added", None, "age < 18"),
        "checks.features[expect_table_row_count_to_be_between]": (
            "added",
            None,
            {"expect": "expect_table_row_count_to_be_between", "severity": "critical", "min_value": 10},
        ),
        "checks.max_rejected": ("changed", 0.0, 0.02),
        "limits.max_rows": ("added", None, 1000),
        "deadline": ("added", None, "06:00"),
        "model version": ("changed", f"{cards.name}/1", version.label),
        "model digest": ("changed", first["model"]["digest"], version.digest),
        "columns.spend": ("removed", "FLOAT64", None),
        "columns.age": ("added", None, "INT64"),
    }
    assert third["row_rules"] == {"impossible_age": "age < 18"}
    asked = [item for item in third["checks"]["features"] if not item["built_in"]]
    assert asked == [
        {
            "check": "expect_table_row_count_to_be_between",
            "columns": [],
            "wanted": "min_value 10",
            "severity": "critical",
            "built_in": False,
        }
    ]

    text = cards.nightscore("plan", cards.name, "--partition", DAY)
    assert text.returncode == 0
    lines = text.stdout.splitlines()
    assert lines[0] == f"{cards.name} {DAY}: what a run would do"
    assert "    ~ checks.max_rejected: 0.0 → 0.02" in lines
    assert "    + features.reject.impossible_age: added: age < 18" in lines
    assert lines[-1] == "ready"


def test_every_reason_is_told_at_once_and_the_run_refuses_for_the_same(cards):
    table = cards.table.drop_columns(["balance"]).set_column(2, "spend", pa.array(["much"] * ROWS))
    cards.write("features", table)
    cards.write("predictions", pa.table({"id": [1], "score": ["high"]}), partition=None)
    changes = {
        "features": {"reject": {"odd": "agee > 1", "old": "age > 80", "empty": "COUNT("}},
        "limits": {"shards": 2, "max_rows": 100},
        "checks": {"predictions": [{"expect": "expect_column_mean_to_be_betwen", "column": "score"}]},
    }
    cards.change(**changes)
    code, found = cards.plan()
    assert (code, found["verdict"], found["exit_code"]) == (2, "blocked", 2)
    assert [reason["error"] for reason in found["reasons"]] == [
        "SignatureError",
        "RowRuleError",
        "RowRuleError",
        "LimitError",
        "PredictionsTableError",
        "ExpectationError",
    ]
    messages = "\n".join(reason["message"] for reason in found["reasons"])
    assert "balance: missing." in messages
    assert "spend: is STRING, and the model was fitted on double" in messages
    assert (
        f"{cards.name}: features.reject.odd: BigQuery does not take the condition: Unrecognized name: agee" in messages
    )
    assert f"{cards.name}: features.reject.empty: " in messages
    assert "features.reject.old" not in messages
    assert "Did you mean `expect_column_mean_to_be_between`?" in messages
    assert {item["name"]: item["finding"] for item in found["columns"]} == {
        "snapshot_date": "ok",
        "id": "ok",
        "balance": "missing",
        "spend": "wrong type",
        "age": "extra",
    }
    assert found["source"]["bytes"] is None
    with pytest.raises(MisfitError) as error:
        start(cards.spec(**changes), cards.day, cards.services)
    assert str(error.value).startswith(f"{cards.name}: {DAY} cannot be scored, for 6 reasons:\n  - The model ")
    assert [reason["message"] for reason in found["reasons"] if reason["message"] not in str(error.value)] == []


def test_limits_and_a_table_that_does_not_fit_block_before_anything_is_frozen(cards):
    cards.write("predictions", pa.table({"id": [1], "score": ["high"]}), partition=None)
    limits = {"max_bytes_billed": 1000, "max_rows": 100}
    cards.change(limits=limits)
    code, found = cards.plan()
    assert code == 2
    assert [(reason["error"], reason["key"], reason["exit_code"]) for reason in found["reasons"]] == [
        ("LimitError", "limits.max_bytes_billed", 1),
        ("PredictionsTableError", None, 2),
    ]
    cards.services.warehouse.client.delete_table(f"{cards.name}.predictions")
    cards.change(limits={"max_rows": 399})
    code, found = cards.plan()
    assert code == 1
    [reason] = found["reasons"]
    assert (reason["key"], reason["found"], reason["limit"]) == ("limits.max_rows", ROWS, 399)
    before = left_behind(cards)
    with pytest.raises(LimitError) as error:
        start(cards.spec(limits={"max_rows": 399}), cards.day, cards.services)
    assert str(error.value) == reason["message"]
    assert reason["message"] == (
        f"{cards.name}: limits.max_rows: {cards.name}.features has 400 rows with snapshot_date = {DAY}; 399 are "
        "allowed. Nothing was frozen. Find out why there is so much, or raise the limit."
    )
    assert left_behind(cards) == before
    assert start(cards.spec(limits={"max_rows": 400}), cards.day, cards.services).plan.rows == ROWS


@pytest.mark.parametrize(
    ("changes", "arguments", "code", "error"),
    [
        ({}, ["--model", "nobody@champion"], 2, "ModelNotFoundError"),
        ({"features": {"table": "{name}.feature"}}, [], 2, "TableNotFoundError"),
        ({"features": {"keys": ["idd"]}}, [], 2, "ColumnError"),
    ],
)
def test_what_is_not_there_blocks(cards, changes, arguments, code, error):
    cards.change(**json.loads(json.dumps(changes).replace("{name}", cards.name)))
    found_code, found = cards.plan(*arguments)
    assert (found_code, [reason["error"] for reason in found["reasons"]]) == (code, [error])


def test_an_empty_partition_blocks_with_exit_code_1_and_a_wrong_spec_is_no_plan(cards):
    done = cards.nightscore("plan", cards.name, "--partition", "2026-11-20")
    assert done.returncode == 1
    assert f"blocked: {cards.name}: {cards.name}.features has no row with snapshot_date = 2026-11-20." in done.stdout
    assert done.stdout.splitlines()[-1] == "blocked, for 1 reason: nothing would be frozen, scored or published"
    cards.change(limits={"max_rows": 0})
    code, found = cards.plan()
    assert (code, found["status"], found["error"]) == (2, "error", "SpecError")
    assert "limits.max_rows: must be at least 1, found 0." in found["message"]


def test_challengers_and_columns_that_only_checks_read_are_told(cards):
    version = cards.fit(HistGradientBoostingClassifier(max_iter=3), ["balance", "age"], "challenger")
    cards.change(
        model={"name": cards.name, "challengers": ["challenger", "nobody"]},
        checks={"features": [{"expect": "expect_column_max_to_be_between", "column": "age", "max_value": 120}]},
    )
    code, found = cards.plan()
    assert code == 0
    assert [(item["requested"], item["version"]) for item in found["challengers"]] == [
        (f"{cards.name}@challenger", version.label)
    ]
    assert list(found["left_out"]) == [f"{cards.name}@nobody"]
    columns = {item["name"]: (item["read_by"], item["finding"], item["takes_null"]) for item in found["columns"]}
    assert columns == {
        "snapshot_date": (["partition"], "ok", None),
        "id": (["key"], "ok", None),
        "balance": (["model", "challenger"], "may be NULL", False),
        "spend": (["model"], "may be NULL", False),
        "age": (["check", "challenger"], "extra", None),
    }


def bytes_by_column(monkeypatch, size):
    """Let dry runs say what `size` makes of their SQL: the local server goes by whole tables."""
    ask = Warehouse.estimate

    def estimate(warehouse, sql, parameters=None, *, doing):
        return dataclasses.replace(ask(warehouse, sql, parameters, doing=doing), bytes=size(sql))

    monkeypatch.setattr(Warehouse, "estimate", estimate)


def test_a_challenger_whose_columns_exceed_the_limit_is_left_out_and_blocks_nothing(cards, monkeypatch):
    cards.fit(HistGradientBoostingClassifier(max_iter=3), ["balance", "age"], "challenger")
    cards.change(model={"name": cards.name, "challengers": ["challenger"]}, limits={"max_bytes_billed": "1GB"})
    bytes_by_column(monkeypatch, lambda sql: 2 * 10**9 if "`age`" in sql else 5 * 10**8)
    code, found = cards.plan()
    assert (code, found["source"]["bytes"], found["challengers"]) == (0, 5 * 10**8, [])
    [why] = found["left_out"].values()
    assert why.endswith("freezing them would bill 2,000,000,000 bytes, and limits.max_bytes_billed is 1,000,000,000.")


def test_where_a_dry_run_gives_no_figure_the_tables_size_is_told_and_no_limit_is_judged_by_it(cards, monkeypatch):
    cards.change(limits={"max_bytes_billed": "1GB"})
    bytes_by_column(monkeypatch, lambda _: 0)
    code, found = cards.plan()
    table = cards.services.warehouse.find_table(f"{cards.name}.features")
    assert (code, found["source"]["bytes_from"]) == (0, "table metadata")
    assert found["source"]["bytes"] == table.num_bytes > 0


def test_a_query_is_not_counted_and_its_rules_are_checked(cards):
    query = f"SELECT id, snapshot_date, balance, spend FROM {cards.name}.features WHERE snapshot_date = @partition"
    cards.change(features={"table": None, "sql": "features.sql", "reject": {"odd": "balence > 1"}})
    (cards.folder / "pipelines" / cards.name / "features.sql").write_text(query)
    code, found = cards.plan()
    assert (code, [reason["error"] for reason in found["reasons"]]) == (2, ["RowRuleError"])
    cards.change(features={"table": None, "sql": "features.sql"})
    code, found = cards.plan()
    assert (code, found["source"]["rows"], found["source"]["table"]) == (0, None, "features.sql")
    assert [item["name"] for item in found["columns"]] == ["snapshot_date", "id", "balance", "spend"]
