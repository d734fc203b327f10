"""Staging what was scored, and publishing it: one partition of the predictions table replaced in one statement."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from nightscore.errors import ConfigurationError, GateRefusedError, TransientError
from nightscore.objects import Json
from nightscore.plan import Plan
from nightscore.prediction_schema import prediction_columns, require_table_fits
from nightscore.run import Run
from nightscore.warehouse import Column, translated

MOST_CLUSTERING = 4  # BigQuery's limit


class SupersededError(GateRefusedError):
    """A run that was planned later has published the partition; this one must not replace it."""

    def __init__(self, run: Run, latest: dt.datetime) -> None:
        super().__init__(
            f"{run.spec.name}: {run.spec.predictions.table} holds predictions for {run.plan.partition} that were "
            f"planned at {latest:%Y-%m-%d %H:%M:%S} UTC, after those of the run {run.plan.run_id}. "
            "They were left as they are. Plan the partition again to replace them."
        )


class PublicationError(TransientError):
    """After publishing, the partition does not hold what was staged."""


def columns_of(plan: Plan, task: str) -> tuple[Column, ...]:
    """Return the columns of a run's predictions."""
    return prediction_columns(plan.model.name, plan.key_types, plan.spec.features.partition, task)


def stage(run: Run, task: str) -> int:
    """Load the parts that the receipts name into the run's staging table; return how many rows of the run it holds."""
    columns = [
        Column(c.name, c.type, "NULLABLE" if c.mode == "REQUIRED" else c.mode, c.description, c.fields)
        for c in columns_of(run.plan, task)
    ]
    parts = [str(receipt["part"]) for receipt in run.records.receipts() if receipt["part"]]
    run.warehouse.load(
        parts,
        run.staging_table,
        columns,
        doing=f"staging the predictions of {run.spec.name}",
        expires=run.plan.expires,
        labels=run.plan.labels,
    )
    return staged_rows(run)


def staged_rows(run: Run) -> int:
    """Return how many rows of this run and partition the staging table holds now, by counting them."""
    if run.warehouse.find_table(run.staging_table) is None:
        return 0
    partition = run.spec.features.partition
    [found] = run.warehouse.query(
        f"SELECT COUNTIF(run_id = @run_id AND `{partition}` = @partition) AS n, COUNT(*) AS every "
        f"FROM {run.warehouse.quoted(run.staging_table)}",
        {"partition": run.plan.partition, "run_id": run.plan.run_id},
        doing=f"counting the staged predictions of {run.spec.name}",
        labels=run.plan.labels,
    ).rows
    return int(found["n"]) if found["n"] == found["every"] else 0


def publish(run: Run) -> Json:
    """Replace the partition of the predictions table by the staged rows, in one MERGE; return its record.

    Readers see the earlier partition or this one, never a mixture and never a hole. A run that published before it
    crashed finds its rows live; one whose staged rows were lost stages them again from its parts.

    Raises:
        PredictionsTableError: the table exists with other columns.
        SupersededError: a run that was planned later has published the partition.
        PublicationError: the staged rows are gone for good, or afterwards the partition does not hold them.
    """
    plan, warehouse, table = run.plan, run.warehouse, run.spec.predictions.table
    gate = run.records.read("prediction_gate")
    if gate is None:
        raise ConfigurationError(f"{run.spec.name}: the predictions of {plan.run_id} did not pass their gate yet.")
    rows, task = int(gate["rows"]), str(gate["task"])
    if plan.dry_run:
        return {"published": False, "reason": "dry run", "table": table, "rows": rows}
    columns = columns_of(plan, task)
    ensure_table(run, columns)
    before, replaced = live_rows(run), plan.replaces_rows
    if before.ours != rows or before.others:
        replaced = before.ours + before.others
        if before.latest is not None and before.latest > plan.scored_at:
            raise SupersededError(run, before.latest)
        if staged_rows(run) != rows and stage(run, task) != rows:
            raise PublicationError(f"{run.spec.name}: the {rows:,} staged predictions of {plan.run_id} are gone.")
        _merge(run, columns)
        after = live_rows(run)
        if after.ours != rows or after.others:
            raise PublicationError(
                f"{run.spec.name}: {table} holds {after.ours + after.others:,} rows for {plan.partition}, "
                f"{after.ours:,} of them from this run, and {rows:,} were staged. "
                "Another run may have published at the same time."
            )
    return {
        "published": True,
        "table": warehouse.full_name(table),
        "rows": rows,
        "replaced_rows": replaced,
    }


@dataclass(frozen=True)
class Live:
    """What the partition holds: rows of this run, rows of others, and when the latest of those was planned."""

    ours: int
    others: int
    latest: dt.datetime | None


def live_rows(run: Run) -> Live:
    """Return what readers of the partition see now."""
    [found] = run.warehouse.query(
        "SELECT COUNTIF(run_id = @run_id) AS ours, COUNTIF(run_id != @run_id) AS others, "
        "MAX(IF(run_id != @run_id, scored_at, NULL)) AS latest "
        f"FROM {run.warehouse.quoted(run.spec.predictions.table)} "
        f"WHERE `{run.spec.features.partition}` = @partition",
        {"partition": run.plan.partition, "run_id": run.plan.run_id},
        doing=f"looking at {run.plan.partition} of {run.spec.predictions.table}",
        labels=run.plan.labels,
        max_bytes_billed=run.spec.limits.max_bytes_billed,
    ).rows
    return Live(int(found["ours"]), int(found["others"]), found["latest"])


def _merge(run: Run, columns: Sequence[Column]) -> None:
    names = ", ".join(f"`{column.name}`" for column in columns)
    run.warehouse.query(
        f"MERGE {run.warehouse.quoted(run.spec.predictions.table)} AS published\n"
        f"USING (SELECT {names} FROM {run.warehouse.quoted(run.staging_table)}) AS staged\n"
        "ON FALSE\n"
        f"WHEN NOT MATCHED BY SOURCE AND published.`{run.spec.features.partition}` = @partition THEN DELETE\n"
        f"WHEN NOT MATCHED THEN INSERT ({names}) VALUES ({names})",
        {"partition": run.plan.partition},
        doing=f"publishing {run.plan.partition} of {run.spec.predictions.table}",
        job_key=run.plan.job_key("publish"),
        labels=run.plan.labels,
        max_bytes_billed=run.spec.limits.max_bytes_billed,
    )


def ensure_table(run: Run, columns: Sequence[Column]) -> None:
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
