"""`table$20261120` is refused; stock silently creates a table of that very name and leaves the partition as it was."""
# ruff: noqa: SLF001  # the server has no public hooks: private functions are what there is to patch

from local_bigquery.catalog import names, tables
from local_bigquery.errors import BigQueryError

stock_lookup = tables._lookup


def apply() -> None:
    """Refuse the name where every read, write and delete of a table looks it up."""
    tables._lookup = lookup


def lookup(project_id: str, dataset_id: str, table_id: str) -> tuple[str, int] | None:
    """Look a table up, unless its name carries a partition decorator."""
    if "$" in table_id:
        table, _, partition = table_id.partition("$")
        label = names.label(project_id, dataset_id, table)
        message = f"Table {label}: the partition decorator ${partition} is not supported by the local server."
        raise BigQueryError("invalid", message)
    return stock_lookup(project_id, dataset_id, table_id)
