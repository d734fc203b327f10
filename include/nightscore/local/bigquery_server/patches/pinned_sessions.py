"""A read session sees the table as it was when the session was created; stock reads the live table each time."""

import datetime as dt

from local_bigquery.catalog import tables
from local_bigquery.grpc import read
from sqlglot import exp

stock_parse = read.parse


def apply() -> None:
    """Pin what a session's query reads."""
    read.parse = parse_pinned


def parse_pinned(sql: str) -> list[exp.Expression]:
    """Parse the query of a session, adding `FOR SYSTEM_TIME AS OF <now>` to its table."""
    trees = stock_parse(sql)
    now = exp.Literal.string(dt.datetime.now(dt.UTC).isoformat())
    for table in trees[0].find_all(exp.Table):
        if table.db != tables.RESULTS:  # query results are written once and have no history
            table.set("version", exp.Version(this="TIMESTAMP", kind="AS OF", expression=now.copy()))
    return trees
