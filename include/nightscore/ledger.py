"""The ledger: the last stage sums a run up, for good, and copies the summary into the operations dataset."""

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from nightscore.objects import Json
from nightscore.run import Run, utc_now
from nightscore.warehouse import Column, translated

STAGES = ("freeze", "feature_gate", "score", "prediction_gate", "publish")
TABLES = ("runs", "checks", "quarantine")


def record(run: Run) -> Json:
    """Sum the run up; return the summary.

    `status` is `published`, `refused` (a gate stopped it), `dry_run`, or `failed` (a stage has no record yet).
    The run's rows of the operations tables are replaced, so calling this again is safe.
    """
    records = {stage: run.records.read(stage) for stage in STAGES}
    summary = _summary(run, records)
    _write_tables(run, summary, records)
    return summary


@cache
def table_columns(name: str) -> tuple[Column, ...]:
    """Return the columns of an operations table, as `schemas/<name>.json` has them."""
    fields = json.loads(files("nightscore").joinpath(f"schemas/{name}.json").read_text())
    return tuple(Column(f["name"], f["type"], f["mode"], f["description"]) for f in fields)


def _summary(run: Run, records: dict[str, Json | None]) -> Json:
    plan = run.plan
    frozen, gate, _, staged, published = (records[stage] or {} for stage in STAGES)
    refused = [stage for stage, found in records.items() if (found or {}).get("verdict") == "stop"]
    if refused:
        status = "refused"
    elif not published:
        status = "failed"
    else:
        status = "published" if published["published"] else "dry_run"
    now = utc_now()
    return {
        "run_id": plan.run_id,
        "pipeline": plan.spec.name,
        "partition": plan.partition.isoformat(),
        "status": status,
        "model_version": plan.model.label,
        "requested_model": plan.model.requested,
        "table": run.warehouse.full_name(plan.spec.predictions.table),
        "rows_frozen": frozen.get("rows"),
        "rows_rejected": frozen.get("rejected"),
        "rows_scored": staged.get("scored"),
        "rows_published": published.get("rows") if status == "published" else None,
        "rows_replaced": published.get("replaced_rows") if status == "published" else None,
        "warnings": [*gate.get("warnings", []), *staged.get("warnings", [])],
        "stopped_by": [line for name in refused for line in (records[name] or {})["stopped_by"]],
        "stopped_at": refused[0] if refused else None,
        "task": staged.get("task"),
        "figures": staged.get("figures"),
        "shards": plan.shards,
        "bytes_processed": frozen.get("bytes_processed"),
        "scoring_seconds": staged.get("scoring_seconds"),
        "stage_seconds": {stage: found["seconds"] for stage, found in records.items() if found and "seconds" in found},
        "planned_at": plan.scored_at.isoformat(),
        "ended_at": now.isoformat(timespec="milliseconds"),
        "seconds": round((now - plan.scored_at).total_seconds(), 3),
        "planned_by": plan.planned_by,
        "reason": plan.reason,
        "code_version": plan.code_version,
        "spec_digest": plan.spec.digest,
        "model_digest": plan.model.digest,
        "records": run.records.uri,
    }


def _write_tables(run: Run, summary: Json, records: dict[str, Json | None]) -> None:
    from google.cloud import bigquery

    config = run.warehouse.config
    run.warehouse.create_dataset(config.operations_dataset, "What nightscore ran, checked and rejected.")
    for name in TABLES:
        wanted = bigquery.Table(
            f"{config.project}.{config.operations_dataset}.{name}",
            schema=[column.to_api() for column in table_columns(name)],
        )
        wanted.time_partitioning = bigquery.TimePartitioning(bigquery.TimePartitioningType.DAY, field="partition_date")
        wanted.clustering_fields = ["pipeline"]
        with translated(f"creating {config.operations_dataset}.{name}"):
            run.warehouse.client.create_table(wanted, exists_ok=True)
    base = {"run_id": run.plan.run_id, "pipeline": run.spec.name, "partition_date": run.plan.partition.isoformat()}
    _replace_rows(run, "runs", [{**base, **_flat(summary)}])
    checks = [
        {**base, "gate": gate, **check}
        for gate in ("feature_gate", "prediction_gate")
        for check in (records[gate] or {}).get("checks", [])
    ]
    _replace_rows(run, "checks", checks)
    if summary["status"] in ("published", "refused"):
        _write_quarantine(run, records["freeze"])


def _flat(summary: Json) -> Json:
    names = {column.name for column in table_columns("runs")}
    found = {key: value for key, value in summary.items() if key in names}
    found["warnings"] = len(summary["warnings"])
    found["stopped_by"] = "\n".join(summary["stopped_by"]) or None
    return found


def _replace_rows(run: Run, name: str, rows: Sequence[Json]) -> None:
    """Replace a run's rows of an operations table in one statement, safe to repeat."""
    columns = table_columns(name)
    table = run.warehouse.quoted(f"{run.warehouse.config.operations_dataset}.{name}")
    values = ", ".join(f"{_from_json(column)} AS `{column.name}`" for column in columns)
    names = ", ".join(f"`{column.name}`" for column in columns)
    run.warehouse.query(
        f"MERGE {table} AS kept\nUSING (SELECT {values} FROM UNNEST(@items) AS item) AS found\nON FALSE\n"
        "WHEN NOT MATCHED BY SOURCE AND kept.run_id = @run_id AND kept.partition_date = @partition THEN DELETE\n"
        f"WHEN NOT MATCHED THEN INSERT ({names}) VALUES ({names})",
        {
            "items": [json.dumps(row, default=str) for row in rows],
            "run_id": run.plan.run_id,
            "partition": run.plan.partition,
        },
        doing=f"recording {name} of {run.spec.name}",
        labels=run.plan.labels,
    )


def _from_json(column: Column) -> str:
    value = f"JSON_VALUE(item, '$.{column.name}')"
    return value if column.type == "STRING" else f"CAST({value} AS {column.type})"


def _write_quarantine(run: Run, frozen: Json | None) -> None:
    """Replace the quarantined rows of this pipeline and partition by the rows this run rejected, in one MERGE."""
    if frozen is None:
        return
    table = run.warehouse.quoted(f"{run.warehouse.config.operations_dataset}.quarantine")
    names = [column.name for column in table_columns("quarantine")]
    columns = ", ".join(f"`{name}`" for name in names)
    shown = ", ".join(f"`{name}` AS `{name}`" for name in run.plan.columns)
    keys = ", ".join(f"`{name}` AS `{name}`" for name in run.spec.features.keys)
    run.warehouse.query(
        f"MERGE {table} AS kept\nUSING (\n"
        "  SELECT @run_id AS run_id, @pipeline AS pipeline, @partition AS partition_date, _rejected_by AS rules,\n"
        f"    TO_JSON_STRING(STRUCT({keys})) AS row_key, TO_JSON_STRING(STRUCT({shown})) AS row_values\n"
        f"  FROM {run.warehouse.quoted(run.snapshot_table)} WHERE _rejected_by IS NOT NULL\n"
        ") AS rejected\nON FALSE\n"
        "WHEN NOT MATCHED BY SOURCE AND kept.pipeline = @pipeline AND kept.partition_date = @partition THEN DELETE\n"
        f"WHEN NOT MATCHED THEN INSERT ({columns}) VALUES ({columns})",
        {"run_id": run.plan.run_id, "pipeline": run.spec.name, "partition": run.plan.partition},
        doing=f"quarantining rejected rows of {run.spec.name}",
        labels=run.plan.labels,
    )
