"""Staging what was scored, and publishing it: one partition of the predictions table replaced in one statement."""

from nightscore.errors import ConfigurationError, TransientError
from nightscore.objects import Json
from nightscore.plan import Plan
from nightscore.prediction_schema import prediction_columns, require_table_fits
from nightscore.run import Run
from nightscore.warehouse import Column, translated

MOST_CLUSTERING = 4  # BigQuery's limit


class PublicationError(TransientError):
    """After publishing, the partition does not hold what was staged."""


def columns_of(plan: Plan, task: str) -> tuple[Column, ...]:
    """Return the columns of a run's predictions."""
    return prediction_columns(plan.model.name, plan.key_types, plan.spec.features.partition, task)


def stage(run: Run, task: str) -> int:
    """Load the parts that the receipts name into the run's staging table; return the number of rows."""
    columns = [
        Column(c.name, c.type, "NULLABLE" if c.mode == "REQUIRED" else c.mode, c.description, c.fields)
        for c in columns_of(run.plan, task)
    ]
    parts = [str(receipt["part"]) for receipt in run.records.receipts() if receipt["part"]]
    return run.warehouse.load(
        parts,
        run.staging_table,
        columns,
        doing=f"staging the predictions of {run.spec.name}",
        job_key=run.plan.job_key("stage"),
        expires=run.plan.expires,
        labels=run.plan.labels,
    )


def publish(run: Run) -> Json:
    """Replace the partition of the predictions table by the staged rows, in one MERGE; return its record.

    Readers see the earlier partition or this one, never a mixture and never a hole.

    Raises:
        PredictionsTableError: the table exists with other columns.
        PublicationError: afterwards the partition does not hold the staged rows.
    """
    plan, warehouse, table = run.plan, run.warehouse, run.spec.predictions.table
    staged = run.records.read("prediction_gate")
    if staged is None:
        raise ConfigurationError(f"{run.spec.name}: the predictions of {plan.run_id} did not pass their gate yet.")
    if plan.dry_run:
        return {"published": False, "reason": "dry run", "table": table, "rows": int(staged["rows"])}
    columns = columns_of(plan, str(staged["task"]))
    ensure_table(run, columns)
    names = ", ".join(f"`{column.name}`" for column in columns)
    partition = plan.spec.features.partition
    result = warehouse.query(
        f"MERGE {warehouse.quoted(table)} AS published\n"
        f"USING (SELECT {names} FROM {warehouse.quoted(run.staging_table)}) AS staged\n"
        "ON FALSE\n"
        f"WHEN NOT MATCHED BY SOURCE AND published.`{partition}` = @partition THEN DELETE\n"
        f"WHEN NOT MATCHED THEN INSERT ({names}) VALUES ({names})",
        {"partition": plan.partition},
        doing=f"publishing {plan.partition} of {table}",
        job_key=plan.job_key("publish"),
        labels=plan.labels,
    )
    [found] = warehouse.query(
        f"SELECT COUNT(*) AS n, COUNTIF(run_id = @run_id) AS ours FROM {warehouse.quoted(table)} "
        f"WHERE `{partition}` = @partition",
        {"partition": plan.partition, "run_id": plan.run_id},
        doing=f"counting what was published in {table}",
        labels=plan.labels,
    ).rows
    if not int(found["n"]) == int(found["ours"]) == int(staged["rows"]):
        raise PublicationError(
            f"{run.spec.name}: {table} holds {found['n']:,} rows for {plan.partition}, {found['ours']:,} of them from "
            f"this run, and {staged['rows']:,} were staged. Another run may have published at the same time; see "
            f"`nightscore runs list {run.spec.name}` and run the partition again."
        )
    return {
        "published": True,
        "table": warehouse.full_name(table),
        "rows": int(found["n"]),
        "replaced_rows": max(0, int(result.affected_rows or 0) - int(found["n"])),
        "job_id": result.job_id,
    }


def ensure_table(run: Run, columns: tuple[Column, ...]) -> None:
    """Create the predictions table where there is none; it is partitioned by day and clustered by the keys.

    Raises:
        PredictionsTableError: it exists with other columns or is not partitioned by the same column.
    """
    from google.cloud import bigquery

    warehouse, table, partition = run.warehouse, run.spec.predictions.table, run.spec.features.partition
    found = warehouse.find_table(table)
    if found is None:
        full = warehouse.full_name(table)
        warehouse.create_dataset(full.rsplit(".", 1)[0], "Predictions published by nightscore.")
        wanted = bigquery.Table(full, schema=[column.to_api() for column in columns])
        wanted.time_partitioning = bigquery.TimePartitioning(bigquery.TimePartitioningType.DAY, field=partition)
        wanted.clustering_fields = list(run.spec.features.keys)[:MOST_CLUSTERING]
        wanted.description = run.spec.description.strip().split("\n\n")[0][:1000] or f"Predictions of {run.spec.name}."
        with translated(f"creating {table}"):
            warehouse.client.create_table(wanted, exists_ok=True)
        return
    require_table_fits(run.spec, found, columns)
