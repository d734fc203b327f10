"""`CREATE TABLE … PARTITION BY RANGE_BUCKET(…)` is described as such; stock describes daily partitions of an INT64."""
# ruff: noqa: SLF001  # the server has no public hooks: private functions are what there is to patch

from typing import Any

from local_bigquery.catalog import ddl
from sqlglot import exp

stock_partitioning = ddl._partitioning


def apply() -> None:
    """Replace what reads the clause."""
    ddl._partitioning = partitioning


def partitioning(node: exp.PartitionedByProperty) -> dict[str, Any]:
    """Return the partitioning of a table's description."""
    bucket = node.this
    # Stock looks for sqlglot's RangeBucket, but its own dialect parses the function as a macro.
    if not isinstance(bucket, exp.Anonymous) or not bucket.name.endswith("range_bucket"):
        return stock_partitioning(node)
    column, series = bucket.expressions
    start, end, interval = (bound.sql() for bound in series.expressions)
    bounds = {"start": start, "end": end, "interval": interval}
    return {"rangePartitioning": {"field": column.name, "range": bounds}}
