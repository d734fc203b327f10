"""A table is checked: verdicts, keys of failing rows, the bill; and nothing is left behind."""

import datetime as dt
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from nightscore.gates.expectations import Checked, ExpectationError, check_table
from nightscore.gates.metering import Meter
from nightscore.spec import Expectation
from nightscore.warehouse import WarehouseError

ROWS = 300
DAY = dt.date(2026, 11, 19)


@pytest.fixture(scope="module")
def table(new_bench, tmp_path_factory):
    """Accounts of branches: some without a balance, two with the same number, one very old."""
    bench = new_bench(tmp_path_factory.mktemp("checks"))
    columns = {
        "branch": [f"b{i % 3}" for i in range(ROWS)],
        "account": np.arange(ROWS) // 3,
        "opened": [DAY - dt.timedelta(days=i) for i in range(ROWS)],
        "age": [130 if i == 7 else 20 + i % 50 for i in range(ROWS)],
        "number": [i if i != 9 else 8 for i in range(ROWS)],
        "secret": [None if i in (4, 5) else f"Jane Doe {i}" for i in range(ROWS)],
    }
    bench.write("accounts", pa.table(columns), partition=None)
    return bench


def check(bench, *asked: Expectation, keys=("branch", "account"), **options) -> Checked:
    warehouse = bench.services.warehouse
    options = {"labels": {"test": "checks"}, "max_bytes_billed": None, "built_in": [], **options}
    name = f"{warehouse.config.project}.{bench.name}.accounts"
    return check_table(warehouse, name, "cards", "checks.features", asked=asked, keys=keys, **options)


def expect(name: str, **arguments) -> Expectation:
    return Expectation(expect=f"expect_{name}", **arguments)


def test_a_warning_of_the_spec_takes_nothing_from_the_same_check_that_is_always_on(table):
    own = expect("column_values_to_be_unique", column="number")
    found = check(table, own.model_copy(update={"severity": "warning"}), built_in=[own]).verdicts
    assert [(item.severity, item.passed, item.built_in) for item in found] == [
        ("critical", False, True),
        ("warning", False, False),
    ]


def test_verdicts_stand_in_the_order_of_the_spec(table):
    own = [expect("compound_columns_to_be_unique", column_list=["branch", "account"])]
    asked = [
        expect("column_mean_to_be_between", column="age", max_value=50),
        expect("column_values_to_not_be_null", column="secret", mostly=0.99, severity="warning"),
        expect("table_row_count_to_equal", value=ROWS),
        expect("column_values_to_not_be_null", column="secret", mostly=0.99, severity="warning"),
        expect("column_values_to_be_between", column="age", max_value=110),
    ]
    found = check(table, *asked, built_in=own).verdicts
    assert [item.expectation for item in found] == [item.expect for item in (*own, *asked)]
    assert [item.passed for item in found] == [True, True, True, True, True, False]
    assert [item.built_in for item in found] == [True, False, False, False, False, False]
    assert found[2].severity == "warning"
    assert found[5].sentence() == (
        "expect_column_values_to_be_between on age: wanted max_value 110, "
        "seen 0.333333% unexpected (1 of 300 rows fail)"
    )


def test_failing_rows_are_named_by_their_keys_alone(table):
    checked = check(
        table,
        expect("column_values_to_be_between", column="age", max_value=110),
        expect("column_values_to_not_be_null", column="secret", severity="warning"),
        expect("column_values_to_be_unique", column="number"),
        expect("column_values_to_not_match_regex", column="secret", regex="Jane"),
        expect("column_values_to_be_in_set", column="branch", value_set=["b0", "b1"]),
        expect("column_pair_values_to_be_equal", column_A="number", column_B="account", mostly=0.5),
        expect("column_mean_to_be_between", column="age", max_value=1),
        expect("column_distinct_values_to_be_in_set", column="branch", value_set=["b0"]),
        expect("column_values_to_be_between", column="age", min_value=0),
    )
    keys = [[(row["branch"], row["account"]) for row in item.failing_keys] for item in checked.verdicts]
    assert keys[0] == [("b1", 2)]
    assert sorted(keys[1]) == [("b1", 1), ("b2", 1)]
    assert sorted(keys[2]) == [("b0", 3), ("b2", 2)]
    assert [len(found) for found in keys[3:]] == [5, 5, 5, 0, 0, 0], "five at most, and none of what is no row's fault"
    assert {branch for branch, _ in keys[4]} == {"b2"}
    assert all(set(row) == {"branch", "account"} for item in checked.verdicts for row in item.failing_keys)
    assert not any("Doe" in str(item.to_json()) for item in checked.verdicts)


def test_keys_of_days_are_text(table):
    [found] = check(table, expect("column_values_to_be_between", column="age", max_value=110), keys=["opened"]).verdicts
    assert found.failing_keys == ({"opened": "2026-11-12"},)
    assert found.to_json()["failing_keys"] == [{"opened": "2026-11-12"}]
    assert found.keys_shown() == "opened=2026-11-12"


def test_only_the_first_twenty_failures_are_looked_into(table):
    asked = [expect("column_values_to_be_between", column="age", max_value=high) for high in range(-22, 0)]
    checked = check(table, *asked)
    assert [bool(item.failing_keys) for item in checked.verdicts] == [True] * 20 + [False] * 2
    assert not any(item.passed for item in checked.verdicts)
    assert checked.bill.queries == 2 + 20


def test_the_bill_is_what_was_asked(table):
    asked = [expect("column_values_to_not_be_null", column=name) for name in ("age", "number", "account")]
    checked = check(table, *asked)
    assert all(item.passed for item in checked.verdicts)
    assert checked.bill.queries == 2, "the number of rows, and all the counts"
    size = table.services.warehouse.require_table(f"{table.name}.accounts").num_bytes
    assert checked.bill.to_json() == {"queries": 2, "bytes_processed": 2 * size}  # the local server prunes no columns


def test_the_same_checks_are_the_same_statements(table, monkeypatch):
    statements: list[list[str]] = []
    ask = Meter._counted

    def noted(self, send, query, **options):
        statements[-1].append(query)
        return ask(self, send, query, **options)

    monkeypatch.setattr(Meter, "_counted", noted)
    asked = [expect("column_values_to_not_be_null", column=name) for name in ("age", "number", "account", "branch")]
    asked += [expect("column_mean_to_be_between", column=name, min_value=0) for name in ("number", "age")]
    for order in (asked, asked[::-1]):
        statements.append([])
        check(table, *order)
    assert len(statements[0]) == 2
    assert statements[0] == statements[1]


def test_nothing_is_left_behind(table, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    client = table.services.warehouse.client

    def tables() -> set[str]:
        return {f"{d.dataset_id}.{t.table_id}" for d in client.list_datasets() for t in client.list_tables(d)}

    before = tables()
    check(table, expect("column_values_to_be_unique", column="number"))
    assert tables() == before
    assert list(tmp_path.iterdir()) == []
    assert not (Path.cwd() / "gx").exists()


def test_a_limit_of_bytes_refuses(table):
    with pytest.raises(ExpectationError, match=r"^expect_column_mean_to_be_between cannot be .*exceeded limit"):
        check(table, expect("column_mean_to_be_between", column="age"), max_bytes_billed=1)


def test_an_expectation_of_another_type_of_column_is_no_verdict(table):
    with pytest.raises(ExpectationError, match=r"^expect_column_mean_to_be_between cannot be evaluated: "):
        check(
            table,
            expect("column_values_to_not_be_null", column="age"),
            expect("column_mean_to_be_between", column="secret", min_value=1),
        )


def test_an_outage_is_no_verdict_and_is_waited_for_once(table, monkeypatch):
    from google.api_core.exceptions import ServiceUnavailable
    from google.cloud import bigquery

    sent = []

    def unavailable(*_, **__):
        sent.append(1)
        raise ServiceUnavailable("try again later")

    monkeypatch.setattr(bigquery.Client, "query_and_wait", unavailable)
    with pytest.raises(WarehouseError, match="BigQuery failed while checking accounts for cards: try again later"):
        check(
            table,
            expect("column_values_to_not_be_null", column="age"),
            expect("column_values_to_be_unique", column="number"),
            expect("column_distinct_values_to_be_in_set", column="branch", value_set=["b0"]),
        )
    assert len(sent) == 1


def test_a_view_may_stand_for_a_table_whose_partitions_must_be_named(table):
    table.sql(
        "CREATE TABLE {dataset}.days (account INT64, day DATE) PARTITION BY day "
        "OPTIONS (require_partition_filter = TRUE)"
    )
    table.sql("INSERT INTO {dataset}.days SELECT account, opened FROM {dataset}.accounts")
    table.sql("CREATE VIEW {dataset}.one_day AS SELECT * FROM {dataset}.days WHERE day = DATE '2026-11-19'")
    warehouse = table.services.warehouse
    checked = check_table(
        warehouse,
        f"{warehouse.config.project}.{table.name}.one_day",
        "cards",
        "checks.features",
        built_in=[expect("column_values_to_be_unique", column="account")],
        asked=[expect("table_row_count_to_equal", value=1), expect("column_max_to_be_between", column="account")],
        keys=["account"],
        labels={},
        max_bytes_billed=None,
    )
    assert [item.observed for item in checked.verdicts] == ["0% unexpected", "1", "0"]
