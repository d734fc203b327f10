"""A table's `lastModifiedTime` and `creationTime` are when it was changed and made.

Stock keeps the time of the last change of the table's description, which inserting rows is not, and for a table that
was made by a load job it reports the time of the question.
"""

from local_bigquery.catalog import tables
from local_bigquery.engine import database
from local_bigquery.engine.database import quote
from local_bigquery.models import Table

TIMES = """
WITH this AS (
    SELECT t.table_id, t.begin_snapshot
    FROM {catalog}.ducklake_table AS t JOIN {catalog}.ducklake_schema AS s USING (schema_id)
    WHERE schema_name = ? AND table_name = ? AND t.end_snapshot IS NULL AND s.end_snapshot IS NULL
), files AS (
    SELECT table_id, begin_snapshot, end_snapshot FROM {catalog}.ducklake_data_file
    UNION ALL SELECT table_id, begin_snapshot, end_snapshot FROM {catalog}.ducklake_delete_file
), changes AS (
    SELECT begin_snapshot AS snapshot_id FROM this
    UNION ALL SELECT unnest([f.begin_snapshot, f.end_snapshot]) FROM files AS f JOIN this USING (table_id)
    -- A second deletion from a file is written into the delete file of the first, and stands nowhere else.
    UNION ALL SELECT snapshot_id FROM {catalog}.ducklake_snapshot_changes, this
    WHERE list_contains(string_split(changes_made, ','), 'deleted_from_table:' || this.table_id)
)
SELECT epoch_ms(min(snapshot_time)), epoch_ms(max(snapshot_time))
FROM changes JOIN {catalog}.ducklake_snapshot USING (snapshot_id)
"""

stock_load = tables.load


def apply() -> None:
    """Correct what every reader of a table's description gets."""
    tables.load = load


def load(project_id: str, dataset_id: str, table_id: str) -> Table:
    """Return a table's description, with the times of its data."""
    table = stock_load(project_id, dataset_id, table_id)
    if dataset_id == tables.RESULTS or table.type == "VIEW":
        return table
    sql = TIMES.format(catalog=quote(f"__ducklake_metadata_{project_id}"))
    [(created, changed)] = database.fetch(sql, [dataset_id, table_id])
    if changed is None:
        return table
    described = tables.metadata.load(Table, project_id, dataset_id, table_id)
    if described is None:
        return table.replace(creationTime=str(created), lastModifiedTime=str(changed))
    return table.replace(lastModifiedTime=str(max(changed, int(described.lastModifiedTime or 0))))
