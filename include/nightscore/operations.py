"""The tables of the operations dataset, as `schemas/<name>.json` describes them."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from nightscore.objects import Json
from nightscore.warehouse import Column, Warehouse, translated

DESCRIPTION = "What nightscore ran, checked, rejected and published."


@cache
def operations_tables() -> tuple[str, ...]:
    """Return the names of the tables: those of `schemas/` that are a list of columns."""
    found = (item for item in files("nightscore").joinpath("schemas").iterdir() if item.name.endswith(".json"))
    return tuple(sorted(item.name.removesuffix(".json") for item in found if item.read_text().lstrip().startswith("[")))


@cache
def table_columns(name: str) -> tuple[Column, ...]:
    """Return the columns of an operations table."""
    fields = json.loads(files("nightscore").joinpath(f"schemas/{name}.json").read_text())
    return tuple(Column(f["name"], f["type"], f["mode"], f["description"]) for f in fields)


def ensure_operations_table(warehouse: Warehouse, name: str) -> None:
    """Create a table of the operations dataset, partitioned by scoring date, where there is none.

    A table that an earlier version of nightscore made is given the columns that it lacks.
    """
    from google.cloud import bigquery

    config = warehouse.config
    full = f"{config.project}.{config.operations_dataset}.{name}"
    found = warehouse.find_table(full)
    if found is not None:
        there = {field.name.lower() for field in found.schema}
        lacking = [column.to_api() for column in table_columns(name) if column.name.lower() not in there]
        if lacking:
            found.schema = [*found.schema, *lacking]
            with translated(f"adding columns to {config.operations_dataset}.{name}"):
                warehouse.client.update_table(found, ["schema"])
        return
    warehouse.create_dataset(config.operations_dataset, DESCRIPTION)
    wanted = bigquery.Table(full, schema=[column.to_api() for column in table_columns(name)])
    wanted.time_partitioning = bigquery.TimePartitioning(bigquery.TimePartitioningType.DAY, field="partition_date")
    wanted.clustering_fields = ["pipeline"]
    with translated(f"creating {config.operations_dataset}.{name}"):
        warehouse.client.create_table(wanted, exists_ok=True)


def replace_rows(
    warehouse: Warehouse,
    name: str,
    rows: Sequence[Json],
    of: Mapping[str, Any],
    *,
    doing: str,
    job_key: str | None,
    labels: Mapping[str, str],
) -> None:
    """Replace the rows of an operations table for which the columns of `of` have these values, safe to repeat.

    Args:
        warehouse: where the table is; it is created where there is none.
        name: the table's.
        rows: the new rows, as JSON: column → value.
        of: column → value, which say the rows that are replaced.
        doing: what this is for, as the words after "while" in an error.
        job_key: makes the statement one and the same job however often it is submitted; None: always a new job.
        labels: labels of the job.
    """
    ensure_operations_table(warehouse, name)
    columns = table_columns(name)
    table = warehouse.quoted(f"{warehouse.config.operations_dataset}.{name}")
    values = ", ".join(f"{_from_json(column)} AS `{column.name}`" for column in columns)
    names = ", ".join(f"`{column.name}`" for column in columns)
    owned = " AND ".join(f"kept.{column} = @{column}" for column in of)
    warehouse.query(
        f"MERGE {table} AS kept\nUSING (SELECT {values} FROM UNNEST(@items) AS item) AS found\nON FALSE\n"
        f"WHEN NOT MATCHED BY SOURCE AND {owned} THEN DELETE\n"
        f"WHEN NOT MATCHED THEN INSERT ({names}) VALUES ({names})",
        {"items": [json.dumps(row, default=str) for row in rows], **of},
        doing=doing,
        job_key=job_key,
        labels=labels,
    )


def _from_json(column: Column) -> str:
    value = f"JSON_VALUE(item, '$.{column.name}')"
    return value if column.type == "STRING" else f"CAST({value} AS {column.type})"
