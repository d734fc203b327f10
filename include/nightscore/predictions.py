"""Staging what was scored, and publishing it: one partition of the predictions table replaced in one statement."""

import datetime as dt
from collections.abc import Sequence

from nightscore.contents import Contents, read_contents
from nightscore.errors import ConfigurationError, GateRefusedError
from nightscore.objects import Json
from nightscore.plan import Plan
from nightscore.prediction_schema import prediction_columns, require_table_fits
from nightscore.publications import last_publication, write_publication
from nightscore.replacement import begin_publication, put_back, replace_partition
from nightscore.run import Run, utc_now
from nightscore.scoring.checksum import Checksum
from nightscore.warehouse import Column, translated

MOST_CLUSTERING = 4  # BigQuery's limit


class SupersededError(GateRefusedError):
    """The partition holds what was decided on after this run was planned; this run must not replace it."""

    def __init__(self, run: Run, decided: dt.datetime, what: str) -> None:
        super().__init__(
            f"{run.spec.name}: {run.spec.predictions.table} holds predictions for {run.plan.partition} that were "
            f"{what} at {decided:%Y-%m-%d %H:%M:%S} UTC, after the run {run.plan.run_id} was planned. "
            "They were left as they are. Plan the partition again to replace them."
        )


def columns_of(plan: Plan, task: str) -> tuple[Column, ...]:
    """Return the columns of a run's predictions."""
    return prediction_columns(plan.model.name, plan.key_types, plan.spec.features.partition, task)


def stage(run: Run, task: str, expected: Checksum) -> Contents:
    """Load the parts that the receipts name into the run's staging table, unless it holds them; return what it holds.

    Where a part is gone, the table is left as it is.

    Args:
        run: the run, of which every shard has a receipt.
        task: what the model predicts.
        expected: the checksum of all receipts.
    """
    held = read_contents(run, run.staging_table, task)
    if held.is_exactly(run, expected):
        return held
    columns = [
        Column(c.name, c.type, "NULLABLE" if c.mode == "REQUIRED" else c.mode, c.description, c.fields)
        for c in columns_of(run.plan, task)
    ]
    parts = [str(receipt["part"]) for receipt in run.records.receipts() if receipt["part"]]
    there = {run.bucket.uri(name) for name in run.bucket.iter_names(f"{run.records.prefix}shards/")}
    if not there.issuperset(parts):
        return held
    run.warehouse.load(
        parts,
        run.staging_table,
        columns,
        doing=f"staging the predictions of {run.spec.name}",
        job_key=run.plan.job_key("stage"),
        expires=run.plan.expires,
        labels=run.plan.labels,
    )
    return read_contents(run, run.staging_table, task)


def publish(run: Run) -> Json:
    """Replace the partition of the predictions table by the staged rows, in one MERGE; return its record.

    Readers see the earlier partition or this one, never a mixture and never a hole. A run that published before it
    crashed finds its rows live; one whose staged rows were lost stages them again from its parts. Afterwards the
    partition's checksum must be that of the scored rows; otherwise the earlier partition is put back, and the record's
    verdict is `stop`.

    Raises:
        PredictionsTableError: the table exists with other columns.
        SupersededError: a run that was planned later has published the partition, or somebody rolled it back since.
        LeaseLostError: another run has taken the partition over.
    """
    plan, table = run.plan, run.spec.predictions.table
    gate = run.records.read("prediction_gate")
    if gate is None:
        raise ConfigurationError(f"{run.spec.name}: the predictions of {plan.run_id} did not pass their gate yet.")
    task, expected = str(gate["task"]), Checksum.parse(gate["checksum"])
    if plan.dry_run:
        return {"published": False, "reason": "dry run", "table": table, "rows": expected.rows}
    ensure_table(run, columns_of(plan, task))
    token = begin_publication(run)
    before = read_contents(run, table, task)
    if not before.is_exactly(run, expected):
        _require_latest(run, before)
        staged = stage(run, task, expected)
        if not staged.is_exactly(run, expected):
            fault = (
                f"the staged predictions are gone, and so are parts in {run.records.uri}shards/: {staged} are left of "
                f"{expected.rows:,}. Nothing was changed"
            )
            return _refusal(run, expected, [fault])
    return republish(run, task, expected, before, token, kind="publish", reason=plan.reason)


def republish(
    run: Run, task: str, expected: Checksum, before: Contents, token: int, *, kind: str, reason: str | None
) -> Json:
    """Replace the partition by the run's staging table, reconcile, and record the publication; return its record.

    Args:
        run: the run whose staged rows are published; it has the partition's lease.
        task: what its model predicts.
        expected: the checksum of its staged rows.
        before: what the partition holds since the publication began.
        token: of the publication that was begun.
        kind: `publish` or `rollback`.
        reason: why, for people.
    """
    warehouse, table = run.warehouse, run.spec.predictions.table
    others = before.beside(run)
    is_live, published_at = before.is_exactly(run, expected), utc_now()
    if not is_live:
        names = [column.name for column in columns_of(run.plan, task)]
        merged = replace_partition(run, run.staging_table, names, token)
        published_at = merged.ended_at
        after = read_contents(run, table, task)
        if not after.is_exactly(run, expected):
            put_back(run, merged.started_at, warehouse.columns(table), token)
            return _taken_back(run, expected, after, read_contents(run, table, task) == before)
    last = last_publication(run.bucket, run.spec.name, run.plan.partition)
    if not is_live or last is None or last["run_id"] != run.plan.run_id:
        found_before = others.held[0].run_id if others.held else None
        last = write_publication(
            run.bucket,
            run.spec.name,
            run.plan.partition,
            token,
            {
                "kind": kind,
                "run_id": run.plan.run_id,
                "model_version": run.plan.model.label,
                "table": warehouse.full_name(table),
                "rows": expected.rows,
                "checksum": str(expected),
                # A process that published and then crashed has taken what it replaced to its grave.
                "replaced_rows": run.plan.replaces_rows if is_live else others.rows,
                "replaced_run": last["run_id"] if is_live and last else found_before,
                "reason": reason,
                "published_by": run.require_lease().holder.who,
                "published_at": published_at.isoformat(timespec="milliseconds"),
            },
        )
    return {
        "published": True,
        "table": warehouse.full_name(table),
        "rows": expected.rows,
        "checksum": str(expected),
        "replaced_rows": last["replaced_rows"],
        "replaced_run": last["replaced_run"],
        "token": last["token"],
    }


def _require_latest(run: Run, before: Contents) -> None:
    """Check that nothing was published, and nobody rolled back, on a decision later than this run's plan."""
    planned = run.plan.scored_at
    later = [item.scored_at for item in before.beside(run).held if item.scored_at and item.scored_at > planned]
    if later:
        raise SupersededError(run, max(later), "planned")
    last = last_publication(run.bucket, run.spec.name, run.plan.partition)
    if last is not None and last["kind"] == "rollback" and last["run_id"] != run.plan.run_id:
        rolled_back = dt.datetime.fromisoformat(last["published_at"])
        if rolled_back > planned:
            raise SupersededError(run, rolled_back, f"rolled back to by {last['published_by']}")


def _taken_back(run: Run, expected: Checksum, found: Contents, is_as_before: bool) -> Json:
    table, partition = run.spec.predictions.table, run.plan.partition
    ending = "was put back" if is_as_before else "could not be put back as it was: look at it"
    sums = " and ".join(str(item.checksum) for item in found.held[:3]) or "of no row"
    fault = (
        f"after publishing, {table} held {found} for {partition}, with the checksum {sums}; {expected} was scored. "
        f"Something else writes to the table. The earlier partition {ending}"
    )
    return _refusal(run, expected, [fault]) | {"put_back": is_as_before}


def _refusal(run: Run, expected: Checksum, faults: list[str]) -> Json:
    return {
        "published": False,
        "verdict": "stop",
        "stopped_by": faults,
        "reason": "the rows are not those that were scored",
        "table": run.warehouse.full_name(run.spec.predictions.table),
        "rows": expected.rows,
    }


def ensure_table(run: Run, columns: Sequence[Column], table: str | None = None, description: str | None = None) -> None:
    """Create the predictions table, or another like it, where there is none: partitioned by day, clustered by the keys.

    Raises:
        PredictionsTableError: it exists with other columns or is not partitioned by the same column.
    """
    from google.cloud import bigquery

    warehouse, partition = run.warehouse, run.spec.features.partition
    table = table or run.spec.predictions.table
    found = warehouse.find_table(table)
    if found is None:
        full = warehouse.full_name(table)
        warehouse.create_dataset(full.rsplit(".", 1)[0], "Predictions published by nightscore.")
        wanted = bigquery.Table(full, schema=[column.to_api() for column in columns])
        wanted.time_partitioning = bigquery.TimePartitioning(bigquery.TimePartitioningType.DAY, field=partition)
        wanted.clustering_fields = list(run.spec.features.keys)[:MOST_CLUSTERING]
        own = run.spec.description.strip().split("\n\n")[0][:1000] or f"Predictions of {run.spec.name}."
        wanted.description = description or own
        with translated(f"creating {table}"):
            warehouse.client.create_table(wanted, exists_ok=True)
        return
    require_table_fits(run.spec, found, columns, table)
