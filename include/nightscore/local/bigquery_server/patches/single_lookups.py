"""Looking one table up costs the same however many there are.

Stock asks `duckdb_tables()` and `duckdb_columns()` for it, which describe every table of every catalog first: with the
results of some hundred queries stored, each further query spends most of its time there. So it does to learn which
temporary tables there are, although a query outside a session cannot have any.
"""

# ruff: noqa: SLF001  # the server has no public hooks: private functions are what there is to patch

from typing import Any

import duckdb
from bigquery_server.patches import bytes_processed
from local_bigquery.catalog import names, tabledata, tables
from local_bigquery.engine import database, types
from local_bigquery.engine.database import quote
from local_bigquery.engine.sessions import Session
from local_bigquery.errors import not_found
from local_bigquery.jobs import query
from local_bigquery.models import JobConfigurationQuery, TableFieldSchema
from local_bigquery.sql.rules import partitions
from sqlglot import exp

RESULTS_CATALOG = "emulator"

FOUND = """
WITH this AS (
    SELECT schema_id FROM {catalog}.ducklake_schema WHERE schema_name = $1 AND end_snapshot IS NULL
)
SELECT table_name, 'TABLE', CAST(coalesce(record_count, 0) AS BIGINT)
FROM {catalog}.ducklake_table JOIN this USING (schema_id) LEFT JOIN {catalog}.ducklake_table_stats USING (table_id)
WHERE table_name = $2 AND end_snapshot IS NULL
UNION ALL
SELECT view_name, 'VIEW', 0 FROM {catalog}.ducklake_view JOIN this USING (schema_id)
WHERE view_name = $2 AND end_snapshot IS NULL
"""

TEMPORARY = "SELECT table_name FROM duckdb_tables() WHERE temporary"
NONE = "SELECT '' AS table_name WHERE false"

stock_objects = database.objects
stock_execute = query.execute


def apply() -> None:
    """Replace the four lookups."""
    database.objects = objects
    tables.columns = tabledata.columns = columns
    partitions._hidden = is_partitioned_by_ingestion
    bytes_processed.stock_execute = execute  # measures around it


class _WithoutTemporaryTables:
    """A cursor that knows without looking that there are no temporary tables."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._cursor = cursor

    def sql(self, text: str, *args: Any, **kwargs: Any) -> Any:
        return self._cursor.sql(NONE if text == TEMPORARY else text, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


def execute(
    cur: duckdb.DuckDBPyConnection,
    project_id: str,
    job_id: str | None,
    config: JobConfigurationQuery,
    dry_run: bool = False,
    session: Session | None = None,
) -> Any:
    """Execute a query as stock does."""
    found = cur if session else _WithoutTemporaryTables(cur)
    return stock_execute(found, project_id, job_id, config, dry_run=dry_run, session=session)


def objects(project_id: str, dataset_id: str, table_id: str | None = None) -> list[tuple[str, str, int]]:
    """Return name, kind and number of rows of a dataset's tables and views, or of one."""
    if table_id is None:
        return stock_objects(project_id, dataset_id)
    if project_id == RESULTS_CATALOG:
        return _results(project_id, dataset_id, table_id)
    sql = FOUND.format(catalog=quote(f"__ducklake_metadata_{project_id}"))
    try:
        return database.fetch(sql, [dataset_id, table_id])
    except duckdb.CatalogException:
        return []  # a project that nobody has used yet


def columns(project_id: str, dataset_id: str, table_id: str) -> list[TableFieldSchema]:
    """Return a table's columns, as stock does."""
    table = tables.name(project_id, dataset_id, table_id)
    with database.cursor() as cur:
        try:
            relation = cur.sql(f"SELECT * FROM {table} LIMIT 0")
        except duckdb.CatalogException:
            raise not_found("Table", names.label(project_id, dataset_id, table_id)) from None
        found = cur.execute('SELECT name FROM pragma_table_info($1) WHERE "notnull"', [table]).fetchall()
    required = {column for (column,) in found}
    return [
        types.field(column, kind, column in required)
        for column, kind in zip(relation.columns, relation.types, strict=True)
        if column != tables.INGESTION_TIME or dataset_id == tables.RESULTS
    ]


def is_partitioned_by_ingestion(table: exp.Table) -> bool:
    """Return whether a table has the hidden column of ingestion time."""
    if not (table.catalog and table.db) or not isinstance(table.this, exp.Identifier):
        return False
    try:
        found = database.fetch(
            "SELECT 1 FROM pragma_table_info($1) WHERE name = $2",
            [quote(table.catalog, table.db, table.name), tables.INGESTION_TIME],
        )
    except duckdb.CatalogException:
        return False
    return bool(found)


def _results(project_id: str, dataset_id: str, table_id: str) -> list[tuple[str, str, int]]:
    """Return the one table of a query's results; a plain table counts its rows without reading them."""
    try:
        [(rows,)] = database.fetch(f"SELECT count(*) FROM {quote(project_id, dataset_id, table_id)}")
    except duckdb.CatalogException:
        return []
    return [(table_id, "TABLE", rows)]
