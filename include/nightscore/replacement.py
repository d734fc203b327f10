"""Replacing one partition of the predictions table, so that neither a crash nor a run that was given up can spoil it.

A publication takes a token that is greater than every earlier one of its partition, and raises the *fence* to it: one
row of `<operations>.fences`. The publishing statement itself compares the two. A run that was suspended before its
statement, and wakes after a successor raised the fence, changes nothing: BigQuery refuses the statement as a whole. A
statement that had begun before is waited for: BigQuery lets two that only insert run side by side, and both would.
"""

import datetime as dt
from collections.abc import Sequence

from nightscore.errors import LeaseLostError
from nightscore.operations import ensure_operations_table
from nightscore.run import Run
from nightscore.warehouse import Column, QueryResult, StatementError

FENCED_OFF = "nightscore: a later publication has begun"


def replace_partition(
    run: Run, source: str, columns: Sequence[str], token: int, *, into: str | None = None
) -> QueryResult:
    """Replace the run's partition of the predictions table, or of `into`, by all rows of `source`, in one MERGE.

    Raises:
        LeaseLostError: a publication with a greater token has begun; nothing was changed.
    """
    names = ", ".join(f"`{name}`" for name in columns)
    table = into or run.spec.predictions.table
    return _fenced(
        run,
        f"MERGE {run.warehouse.quoted(table)} AS published\n"
        f"USING (\n  SELECT {names} FROM {run.warehouse.quoted(source)}\n  WHERE {_fence(run)}\n) AS staged\n"
        "ON FALSE\n"
        f"WHEN NOT MATCHED BY SOURCE AND published.`{run.spec.features.partition}` = @partition THEN DELETE\n"
        f"WHEN NOT MATCHED THEN INSERT ({names}) VALUES ({names})",
        token,
        table,
    )


def clear_partition(run: Run, table: str, token: int) -> QueryResult:
    """Delete the run's partition of a table.

    Raises:
        LeaseLostError: a publication with a greater token has begun; nothing was changed.
    """
    return _fenced(
        run,
        f"DELETE FROM {run.warehouse.quoted(table)}\n"
        f"WHERE `{run.spec.features.partition}` = @partition AND {_fence(run)}",
        token,
        table,
    )


def _fence(run: Run) -> str:
    """Return the condition that is true for the publication that raised the fence last, and an error for others."""
    fences = run.warehouse.quoted(_fences(run))
    return (
        f"IF(@token = (\n    SELECT MAX(token) FROM {fences}\n"
        "    WHERE pipeline = @pipeline AND partition_date = @partition\n"
        f"  ), TRUE, ERROR('{FENCED_OFF}'))"
    )


def _fenced(run: Run, sql: str, token: int, table: str) -> QueryResult:
    try:
        return run.warehouse.query(
            sql,
            {"partition": run.plan.partition, "pipeline": run.spec.name, "token": token},
            doing=f"publishing {run.plan.partition} of {table}",
            job_key=_job(run, token),
            labels=run.plan.labels,
            max_bytes_billed=run.spec.limits.max_bytes_billed,
        )
    except StatementError as error:
        if FENCED_OFF in str(error):
            raise LeaseLostError(run.spec.name, run.plan.partition, "a run that publishes already") from error
        raise


def begin_publication(run: Run) -> int:
    """Take a new token, and make every earlier publication of the partition impossible; return the token.

    A statement of an earlier one that is running already is waited for. What the partition holds must be looked at
    after this, not before.

    Raises:
        LeaseLostError: another run has the partition's lease.
    """
    token = run.require_lease().advance()
    earlier = _raise_fence(run, token)
    if earlier is not None:
        run.warehouse.await_jobs(earlier, doing=f"waiting for an earlier publication of {run.plan.partition}")
    return token


def _raise_fence(run: Run, token: int) -> str | None:
    """Raise the fence to a token; return the jobs of the publication that had raised it before."""
    ensure_operations_table(run.warehouse, "fences")
    where = {"pipeline": run.spec.name, "partition": run.plan.partition}
    doing = f"raising the fence before {run.plan.partition} of {run.spec.predictions.table}"
    earlier = run.warehouse.query(
        f"SELECT job FROM {run.warehouse.quoted(_fences(run))}\n"
        "WHERE pipeline = @pipeline AND partition_date = @partition ORDER BY token DESC LIMIT 1",
        where,
        doing=doing,
        labels=run.plan.labels,
    ).rows
    run.warehouse.query(
        f"MERGE {run.warehouse.quoted(_fences(run))} AS fence\n"
        "USING (SELECT @pipeline AS pipeline, @partition AS partition_date, @token AS token) AS raised\n"
        "ON fence.pipeline = raised.pipeline AND fence.partition_date = raised.partition_date\n"
        "WHEN MATCHED AND fence.token < raised.token THEN UPDATE\n"
        "  SET token = raised.token, run_id = @run_id, job = @job, raised_at = CURRENT_TIMESTAMP()\n"
        "WHEN NOT MATCHED THEN INSERT (pipeline, partition_date, token, run_id, job, raised_at)\n"
        "  VALUES (pipeline, partition_date, token, @run_id, @job, CURRENT_TIMESTAMP())",
        where | {"token": token, "run_id": run.plan.run_id, "job": _job(run, token)},
        doing=doing,
        job_key=f"{run.plan.job_key('fence')}_{token}",
        labels=run.plan.labels,
    )
    return str(earlier[0]["job"]) if earlier else None


def put_back(run: Run, before: dt.datetime, columns: Sequence[Column], token: int) -> None:
    """Give the partition the rows again that it held at `before`, by time travel.

    BigQuery refuses a statement that refers to one table at two points in time, so the rows take a step in between.

    Raises:
        LeaseLostError: another run has taken the partition over; it is left as it is.
    """
    run.require_lease().require()
    warehouse, partition = run.warehouse, run.spec.features.partition
    earlier = warehouse.staging_table(f"{run.plan.table_prefix}__replaced_{token}")
    names = [column.name for column in columns]
    listed = ", ".join(f"`{name}`" for name in names)
    warehouse.query(
        f"CREATE OR REPLACE TABLE {warehouse.quoted(earlier)}\n"
        f"OPTIONS (expiration_timestamp = TIMESTAMP '{run.plan.expires:%Y-%m-%d %H:%M:%S}+00')\n"
        f"AS SELECT {listed} FROM {warehouse.quoted(run.spec.predictions.table)} FOR SYSTEM_TIME AS OF @before\n"
        f"WHERE `{partition}` = @partition",
        {"before": before, "partition": run.plan.partition},
        doing=f"reading what {run.plan.partition} of {run.spec.predictions.table} held before",
        job_key=f"{run.plan.job_key('replaced')}_{token}",
        labels=run.plan.labels,
        max_bytes_billed=run.spec.limits.max_bytes_billed,
    )
    [count] = warehouse.query(f"SELECT COUNT(*) AS n FROM {warehouse.quoted(earlier)}", doing="counting them").rows
    if count["n"]:
        replace_partition(run, earlier, names, token)
    else:  # of a source without rows, BigQuery need not evaluate the condition that holds the fence
        clear_partition(run, run.spec.predictions.table, token)


def _job(run: Run, token: int) -> str:
    return f"{run.plan.job_key('publish')}_{token}"


def _fences(run: Run) -> str:
    return f"{run.warehouse.config.operations_dataset}.fences"
