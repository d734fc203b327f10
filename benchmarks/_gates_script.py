"""One contestant of `gates.py`: checks `benchmark.rows` and prints what it found and asked as one JSON object."""

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

from nightscore.gates import library
from nightscore.gates.expectations import check_table, require_expectations
from nightscore.gates.metering import Meter
from nightscore.run import build_services
from nightscore.settings import read_settings
from nightscore.spec import Expectation
from nightscore.warehouse import Warehouse

DOUBLES = [f"f{number:02d}" for number in range(30)]
RESULT_FORMAT = {"result_format": "BASIC", "partial_unexpected_count": 0}


def suite(rows: int, double: str = "FLOAT64") -> list[Expectation]:
    """Return 134 expectations, all of which hold."""
    ranges = {"quantiles": [0.05, 0.5, 0.95], "value_ranges": [[-3, 0], [-1, 1], [0, 3]]}
    each: list[tuple[str, list[str], dict[str, Any]]] = [
        ("column_values_to_not_be_null", DOUBLES, {}),
        ("column_values_to_be_between", DOUBLES, {"min_value": -10, "max_value": 10}),
        ("column_mean_to_be_between", DOUBLES, {"min_value": -1, "max_value": 1}),
        ("column_stdev_to_be_between", DOUBLES, {"min_value": 0.5, "max_value": 1.5}),
        ("column_quantile_values_to_be_between", DOUBLES[:5], {"quantile_ranges": ranges}),
        ("column_values_to_be_unique", ["id"], {}),
        ("column_values_to_be_in_set", ["segment"], {"value_set": ["s0", "s1", "s2", "s3", "s4", "s5", "s6"]}),
        ("column_values_to_match_regex", ["segment"], {"regex": "^s[0-9]$"}),
        ("column_min_to_be_between", ["id"], {"min_value": 0, "max_value": 0}),
        ("column_max_to_be_between", ["id"], {"min_value": rows - 1, "max_value": rows - 1}),
        ("column_proportion_of_unique_values_to_be_between", ["segment"], {"max_value": 0.5}),
        ("column_values_to_be_of_type", ["f00"], {"type_": double}),
    ]
    found = [Expectation(expect=f"expect_{name}", column=c, **args) for name, columns, args in each for c in columns]
    columns = ["id", "segment", *DOUBLES]
    found.append(Expectation(expect="expect_table_columns_to_match_set", column_set=columns))
    return [*found, Expectation(expect="expect_table_row_count_to_equal", value=rows)]


def ours(warehouse: Warehouse, rows: int) -> dict[str, Any]:
    """Check the table as a gate does."""
    table = f"{warehouse.config.project}.benchmark.rows"
    options: dict[str, Any] = {"built_in": [], "keys": ["id"], "labels": {}, "max_bytes_billed": None}
    checked = check_table(warehouse, table, "benchmark", "checks.features", asked=suite(rows), **options)
    return {"passed": sum(item.passed for item in checked.verdicts), **checked.bill.to_json()}


def stock(warehouse: Warehouse, rows: int) -> dict[str, Any]:
    """Check the table by Great Expectations' own BigQuery engine."""
    meter = Meter(warehouse, "benchmark", "measuring", {}, None)
    context = library.load().get_context(mode="ephemeral")
    source = context.data_sources.add_bigquery(
        "warehouse",
        connection_string=f"bigquery://{warehouse.config.project}/benchmark?user_supplied_client=true",
        kwargs={"connect_args": {"client": meter.client, "bqstorage_client": warehouse.reader}},
    )
    asset = source.add_table_asset(name="rows", table_name="rows")
    batch = asset.add_batch_definition_whole_table("all").get_batch()
    return {"passed": passed(context, batch, suite(rows)), **meter.bill.to_json()}


def pandas(warehouse: Warehouse, rows: int) -> dict[str, Any]:
    """Read the table into pandas and check it there."""
    table = warehouse.client.list_rows("benchmark.rows").to_arrow(bqstorage_client=warehouse.reader)
    frame = table.to_pandas(split_blocks=True, self_destruct=True)  # each column once in memory, not twice
    del table
    context = library.load().get_context(mode="ephemeral")
    asset = context.data_sources.add_pandas("memory").add_dataframe_asset(name="rows")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    return {"passed": passed(context, batch, suite(rows, "float64")), "queries": 0, "bytes_processed": 0}


def passed(context: Any, batch: Any, expectations: list[Expectation]) -> int:
    """Return how many expectations hold."""
    gx = library.load()
    context.variables.progress_bars = {"globally": False}
    asked = gx.ExpectationSuite(name="all", expectations=require_expectations("benchmark", "checks", expectations))
    return sum(bool(item.success) for item in batch.validate(asked, result_format=RESULT_FORMAT).results)


def peak() -> int:
    """Return this process's peak memory in bytes; what the system reports of it afterwards counts its parent's too."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    contestant = {"warehouse": ours, "stock": stock, "pandas": pandas}[sys.argv[1]]
    said = contestant(build_services(read_settings(os.environ)).warehouse, int(sys.argv[2]))
    print(json.dumps({**said, "peak": peak()}))
