"""A dry run understands `MERGE … THEN INSERT ROW`; stock runs it, but calls it a syntax error in a dry run."""
# ruff: noqa: SLF001  # the server has no public hooks: private functions are what there is to patch

from typing import Any

import duckdb
from local_bigquery.jobs import query
from local_bigquery.models import JobStatistics2
from sqlglot import exp

stock_run = query._run


def apply() -> None:
    """Rewrite the statement just before it is run."""
    query._run = run


def run(
    cur: duckdb.DuckDBPyConnection,
    tree: exp.Expression,
    context: query.Context,
    destination: Any,
    config: Any,
    dry_run: bool,
    isolated: bool,
) -> JobStatistics2:
    """Run a statement as stock does, with `INSERT ROW` said in DuckDB's way when DuckDB is to explain it."""
    if dry_run and isinstance(tree, exp.Merge):
        tree = tree.copy()
        for insert in tree.find_all(exp.Insert):
            if isinstance(insert.this, exp.Var):
                insert.set("this", exp.Star())
    return stock_run(cur, tree, context, destination, config, dry_run, isolated)
