"""Dry runs, jobs and queries report the bytes of tables they read, and `maximumBytesBilled` is enforced; stock says 0.

The figure is an upper bound: the logical size of every referenced table, neither pruned by partition nor by column.
A view counts as nothing, and the limit is not enforced for scripts of several statements.
"""
# ruff: noqa: SLF001  # the server has no public hooks: private functions are what there is to patch

from http import HTTPStatus
from typing import Any

import duckdb
from local_bigquery import errors
from local_bigquery.api import jobs as jobs_api
from local_bigquery.catalog import tables
from local_bigquery.engine.sessions import Session
from local_bigquery.errors import BigQueryError
from local_bigquery.jobs import query, runner
from local_bigquery.models import Job, JobConfigurationQuery, JobStatistics, JobStatistics2, TableReference

TOO_MANY_BYTES = "bytesBilledLimitExceeded"

stock_execute = query.execute
stock_done = runner._done
stock_results = jobs_api.results


def apply() -> None:
    """Measure around the execution of a query, and copy the figure to where the clients look for it."""
    errors.STATUSES[TOO_MANY_BYTES] = (HTTPStatus.BAD_REQUEST, "INVALID_ARGUMENT")
    query.execute = execute
    runner._done = done
    jobs_api.results = results


def execute(
    cur: duckdb.DuckDBPyConnection,
    project_id: str,
    job_id: str | None,
    config: JobConfigurationQuery,
    dry_run: bool = False,
    session: Session | None = None,
) -> tuple[JobStatistics2, list[JobStatistics2], TableReference | None]:
    """Execute a query as stock does, after checking its limit."""
    limit = int(config.maximumBytesBilled or 0)
    if limit and not dry_run:
        estimate, _, _ = stock_execute(cur, project_id, None, config, dry_run=True, session=session)
        if (needed := bytes_read(estimate)) > limit:
            message = f"Query exceeded limit for bytes billed: {limit}. {needed} or higher required."
            raise BigQueryError(TOO_MANY_BYTES, message)
    statistics, children, destination = stock_execute(cur, project_id, job_id, config, dry_run=dry_run, session=session)
    processed = str(bytes_read(statistics))
    billed = "0" if dry_run else processed
    return statistics.replace(totalBytesProcessed=processed, totalBytesBilled=billed), children, destination


def done(job: Job, statistics: JobStatistics, error: BigQueryError | None = None) -> Job:
    """Finish a job, with the query's bytes in the statistics of the job too."""
    finished = stock_done(job, statistics, error)
    measured = finished.statistics.query and finished.statistics.query.totalBytesProcessed
    if not measured:
        return finished
    return finished.replace(statistics=finished.statistics.replace(totalBytesProcessed=measured))


def results(job: Job, *args: Any) -> tuple[dict[str, Any], list[str]]:
    """Return a query's results as stock does, with the bytes of its job."""
    payload, rows = stock_results(job, *args)
    measured = job.statistics and job.statistics.query and job.statistics.query.totalBytesProcessed
    return ({**payload, "totalBytesProcessed": measured} if measured else payload), rows


def bytes_read(statistics: JobStatistics2) -> int:
    """Return the summed size of the tables that a statement refers to."""
    return sum(_table_bytes(table) for table in statistics.referencedTables or [])


def _table_bytes(table: TableReference) -> int:
    try:
        return int(tables.load(*tables.reference(table)).numBytes or 0)
    except BigQueryError:
        return 0  # INFORMATION_SCHEMA, or a table that the statement itself has dropped
