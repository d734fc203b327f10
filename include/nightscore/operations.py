"""The tables of the operations dataset, as `schemas/<name>.json` describes them."""

import json
from functools import cache
from importlib.resources import files

from nightscore.warehouse import Column, Warehouse, translated

DESCRIPTION = "What nightscore ran, checked, rejected and published."


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
