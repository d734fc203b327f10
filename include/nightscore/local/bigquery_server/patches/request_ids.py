"""A query that is sent again with the same request id is answered again; stock says that its job exists already.

The clients rely on it: an answer that was lost on its way is asked for once more.
"""

from typing import Any

from local_bigquery.api import jobs
from local_bigquery.jobs import store
from local_bigquery.models import QueryRequest

stock_run_query = jobs.run_query


def apply() -> None:
    """Replace the endpoint; the application copies it from the router when it is imported, after the patches."""
    [route] = [route for route in jobs.router.routes if route.endpoint is stock_run_query]
    route.endpoint = run_query


def run_query(project_id: str, body: QueryRequest) -> Any:
    """Run a query, or answer for the one that had the same request id."""
    if body.requestId is None or store.load(project_id, body.requestId) is None:
        return stock_run_query(project_id, body)
    int64_timestamps = bool(body.formatOptions and body.formatOptions.useInt64Timestamp)
    return jobs.get_query_results(
        project_id, body.requestId, body.maxResults, None, 0, body.timeoutMs, int64_timestamps
    )
