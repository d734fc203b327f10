"""Our engine gives what Great Expectations' own gives, from fewer queries."""

import datetime as dt
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nightscore.gates import library
from nightscore.gates.expectations import require_expectations
from nightscore.gates.metering import Bill, Meter
from nightscore.spec import Expectation

ROWS = 400

LARGE = {"row_condition": {"type": "comparison", "column": {"name": "size"}, "operator": ">", "parameter": 40}}
QUARTILES = {"quantiles": [0.01, 0.25, 0.5, 0.75, 1.0], "value_ranges": [[0, 9], [0, 9], [None, 40], [1, None], [5, 6]]}

# Of every kind of expectation that runs in a warehouse: passing and failing, on rows with NULLs and duplicates.
EXPECTATIONS: list[tuple[str, dict[str, Any]]] = [
    ("expect_column_values_to_not_be_null", {"column": "id"}),
    ("expect_column_values_to_not_be_null", {"column": "size"}),
    ("expect_column_values_to_not_be_null", {"column": "size", "mostly": 0.5}),
    ("expect_column_values_to_not_be_null", {"column": "name", **LARGE}),
    ("expect_column_values_to_be_null", {"column": "nothing"}),
    ("expect_column_values_to_be_null", {"column": "name"}),
    ("expect_column_values_to_be_between", {"column": "size", "min_value": 1, "max_value": 90}),
    ("expect_column_values_to_be_between", {"column": "size", "min_value": 1, "mostly": 0.9, **LARGE}),
    ("expect_column_values_to_be_between", {"column": "day", "min_value": dt.date(2026, 1, 5)}),
    ("expect_column_values_to_be_between", {"column": "nothing", "min_value": 1}),
    ("expect_column_values_to_be_in_set", {"column": "name", "value_set": ["a", "b"]}),
    ("expect_column_values_to_not_be_in_set", {"column": "name", "value_set": ["a", "z"]}),
    ("expect_column_values_to_match_regex", {"column": "name", "regex": "^[a-d]$"}),
    ("expect_column_values_to_not_match_regex", {"column": "name", "regex": "^b"}),
    ("expect_column_value_lengths_to_equal", {"column": "name", "value": 1}),
    ("expect_column_values_to_be_unique", {"column": "id"}),
    ("expect_column_values_to_be_unique", {"column": "size"}),
    ("expect_column_values_to_be_unique", {"column": "name", **LARGE}),
    ("expect_compound_columns_to_be_unique", {"column_list": ["name", "day"]}),
    ("expect_compound_columns_to_be_unique", {"column_list": ["id", "day"]}),
    ("expect_column_pair_values_a_to_be_greater_than_b", {"column_A": "size", "column_B": "id"}),
    ("expect_column_pair_values_to_be_equal", {"column_A": "id", "column_B": "twin", "mostly": 0.8}),
    ("expect_multicolumn_sum_to_equal", {"column_list": ["id", "twin"], "sum_total": 8}),
    ("expect_select_column_values_to_be_unique_within_record", {"column_list": ["id", "twin"]}),
    ("expect_column_mean_to_be_between", {"column": "size", "max_value": 30}),
    ("expect_column_mean_to_be_between", {"column": "size", "min_value": 30, **LARGE}),
    ("expect_column_median_to_be_between", {"column": "size", "max_value": 30}),
    ("expect_column_stdev_to_be_between", {"column": "size", "min_value": 1, "max_value": 20}),
    ("expect_column_sum_to_be_between", {"column": "id", "min_value": 1}),
    ("expect_column_min_to_be_between", {"column": "day", "min_value": dt.date(2026, 1, 1)}),
    ("expect_column_max_to_be_between", {"column": "size", "max_value": 3}),
    ("expect_column_quantile_values_to_be_between", {"column": "size", "quantile_ranges": QUARTILES}),
    ("expect_column_quantile_values_to_be_between", {"column": "id", "quantile_ranges": QUARTILES}),
    ("expect_column_distinct_values_to_be_in_set", {"column": "name", "value_set": ["a", "b", "c"]}),
    ("expect_column_distinct_values_to_contain_set", {"column": "name", "value_set": ["a", "e"]}),
    ("expect_column_most_common_value_to_be_in_set", {"column": "name", "value_set": ["a"]}),
    ("expect_column_unique_value_count_to_be_between", {"column": "name", "max_value": 3}),
    ("expect_column_proportion_of_unique_values_to_be_between", {"column": "size", "min_value": 0.5}),
    ("expect_column_proportion_of_non_null_values_to_be_between", {"column": "size", "min_value": 0.9}),
    ("expect_column_values_to_be_of_type", {"column": "size", "type_": "FLOAT64"}),
    ("expect_column_values_to_be_in_type_list", {"column": "name", "type_list": ["INT64", "STRING"]}),
    ("expect_column_to_exist", {"column": "sizes"}),
    ("expect_column_value_z_scores_to_be_less_than", {"column": "size", "threshold": 1.5, "double_sided": True}),
    ("expect_table_columns_to_match_set", {"column_set": ["id", "size"]}),
    ("expect_table_column_count_to_equal", {"value": 6}),
    ("expect_table_row_count_to_be_between", {"min_value": 1, "max_value": 399}),
]


@pytest.fixture(scope="module")
def table(new_bench, tmp_path_factory):
    """A table with NULLs, duplicates, texts and days."""
    rng = np.random.default_rng(5)
    size = [None if i % 9 == 4 else float(value) for i, value in enumerate(rng.integers(0, 100, ROWS))]
    columns: Mapping[str, Any] = {
        "id": np.arange(ROWS),
        "twin": [i if i % 5 else i + 1 for i in range(ROWS)],
        "size": size,
        "name": [None if i % 11 == 3 else "abcde"[i % 5] for i in range(ROWS)],
        "day": [dt.date(2026, 1, 1 + i % 28) for i in range(ROWS)],
        "nothing": pa.array([None] * ROWS, pa.float64()),
    }
    bench = new_bench(tmp_path_factory.mktemp("engine"))
    bench.write("rows", pa.table(dict(columns)), partition=None)
    return bench


@pytest.fixture
def checked(table):
    """Checks the table with an engine, by its name, and returns Great Expectations' results and the bill."""

    def check(kind: str, asked: list[tuple[str, dict[str, Any]]]) -> tuple[dict[str, dict[str, Any]], Bill]:
        gx = library.load()
        from nightscore.gates import engine  # noqa: F401 - registers the data source

        expectations = require_expectations("p", "checks", [Expectation(expect=n, **args) for n, args in asked])
        warehouse = table.services.warehouse
        meter = Meter(warehouse, table.name, "testing", {}, None)
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}
        source = getattr(context.data_sources, f"add_{kind}")(
            "warehouse",
            connection_string=f"bigquery://{warehouse.config.project}/{table.name}?user_supplied_client=true",
            kwargs={"connect_args": {"client": meter.client, "prefer_bqstorage_client": False}},
        )
        batch = source.add_table_asset(name="t", table_name="rows").add_batch_definition_whole_table("all").get_batch()
        suite = gx.ExpectationSuite(name="all", expectations=expectations)
        result = batch.validate(suite, result_format={"result_format": "BASIC", "partial_unexpected_count": 0})
        found = [item.to_json_dict() for item in result.results]
        keys = [f"{item['expectation_config']['type']} {item['expectation_config']['kwargs']}" for item in found]
        return dict(zip(keys, found, strict=True)), meter.bill

    return check


def test_the_results_are_those_of_the_stock_engine(checked):
    ours, our_bill = checked("nightscore", EXPECTATIONS)
    stock, stock_bill = checked("bigquery", EXPECTATIONS)
    assert len(stock) == len(EXPECTATIONS)
    assert ours == stock
    outcomes = [item["success"] for item in stock.values()]
    assert 15 < sum(outcomes) < len(outcomes) - 15, "both outcomes are compared"
    assert not any(item["exception_info"].get("raised_exception") for item in stock.values())
    assert 0 < our_bill.bytes_processed < stock_bill.bytes_processed
    assert our_bill.queries < stock_bill.queries / 2


def test_a_suite_of_aggregates_is_three_queries(checked):
    columns = ["id", "twin", "size"]
    ours, bill = checked(
        "nightscore",
        [
            *(("expect_column_values_to_not_be_null", {"column": column}) for column in columns),
            *(("expect_column_values_to_be_between", {"column": column, "max_value": 90}) for column in columns),
            *(("expect_column_mean_to_be_between", {"column": column, "min_value": 0}) for column in columns),
            *(("expect_column_stdev_to_be_between", {"column": column, "min_value": 0}) for column in columns),
            *(
                ("expect_column_quantile_values_to_be_between", {"column": column, "quantile_ranges": QUARTILES})
                for column in columns
            ),
            ("expect_table_row_count_to_equal", {"value": ROWS}),
        ],
    )
    assert len(ours) == 16
    assert bill.queries == 3, "the number of rows, which comes first; all aggregates; all quantiles"


def test_quantiles_of_some_rows_are_found(checked):
    # The stock engine refuses them: it takes a SELECT for a table.
    [(_, found)] = checked(
        "nightscore",
        [("expect_column_quantile_values_to_be_between", {"column": "size", "quantile_ranges": QUARTILES, **LARGE})],
    )[0].items()
    assert found["result"]["observed_value"]["values"] == [41.0, 55.0, 69.0, 84.0, 99.0]


def test_what_cannot_be_evaluated_costs_others_little(checked):
    others = [("expect_column_values_to_be_between", {"column": "id", "min_value": low}) for low in range(32)]
    found, bill = checked("nightscore", [*others, ("expect_column_mean_to_be_between", {"column": "name"})])
    failed = [name for name, item in found.items() if "raised_exception': True" in str(item["exception_info"])]
    assert len(failed) == 1
    assert failed[0].startswith("expect_column_mean_to_be_between")
    assert sum(item["success"] for item in found.values()) == 1  # ids begin at 0
    assert bill.queries <= 16, "the failing query is halved until the one at fault is alone"
