"""The ledger: the last stage sums a run up, for good, and copies the summary into the operations dataset."""

from collections.abc import Mapping, Sequence
from typing import Any

from nightscore.monitoring.evidence_table import night_rows
from nightscore.monitoring.night import main_figures
from nightscore.objects import Json
from nightscore.operations import ensure_operations_table, replace_rows, table_columns
from nightscore.publications import read_publications
from nightscore.run import Run, utc_now

STAGES = ("freeze", "feature_gate", "score", "prediction_gate", "publish", "shadow", "evidence")


def record(run: Run) -> Json:
    """Sum the run up; return the summary.

    `status` is `published`, `refused` (a gate stopped it), `dry_run`, or `failed` (a stage has no record yet).
    The run's rows of the operations tables are replaced, so calling this again is safe.
    """
    records = _records(run)
    summary = _summary(run, records)
    _write_tables(run, summary, records)
    return summary


def summarise(run: Run) -> Json:
    """Return what the run's summary would be, and write nothing."""
    return _summary(run, _records(run))


def _records(run: Run) -> dict[str, Json | None]:
    return {stage: run.records.read(stage) for stage in STAGES}


def record_publications(run: Run) -> None:
    """Copy the publications of the run's partition into the operations table of that name."""
    names = {column.name for column in table_columns("publications")}
    base = {"partition_date": run.plan.partition.isoformat()}
    found = read_publications(run.bucket, run.spec.name, run.plan.partition)
    rows = [base | {key: value for key, value in item.items() if key in names} for item in found]
    _replace(run, "publications", rows, {"pipeline": run.spec.name})


def _summary(run: Run, records: dict[str, Json | None]) -> Json:
    plan = run.plan
    frozen, gate, _, staged, published, shadowed, compared = (records[stage] or {} for stage in STAGES)
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
        "checksum": staged.get("checksum"),
        "challengers": shadowed.get("rows", {}),
        "challengers_left_out": {**plan.left_out, **shadowed.get("left_out", {})},
        "evidence": main_figures(compared),
        "resumed": list(run.records.resumes()),
        "warnings": [*gate.get("warnings", []), *staged.get("warnings", [])],
        "overridden": [
            {"check": check_name(check), "by": found["by"], "reason": found["reason"]}
            for found in (gate, staged)
            for check in found.get("checks", [])
            if check.get("overridden")
        ],
        "stopped_by": [line for name in refused for line in (records[name] or {})["stopped_by"]],
        "stopped_at": refused[0] if refused else None,
        "task": staged.get("task"),
        "figures": staged.get("figures"),
        "shards": plan.shards,
        "bytes_processed": frozen.get("bytes_processed"),
        "bytes_billed": sum(int(found.get("bytes_processed") or 0) for found in records.values() if found),
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


def check_name(check: Json) -> str:
    """Return how people call a check of a gate's record."""
    return f"{check['expectation']} on {check['column']}" if check["column"] else str(check["expectation"])


def _write_tables(run: Run, summary: Json, records: dict[str, Json | None]) -> None:
    base = {"run_id": run.plan.run_id, "pipeline": run.spec.name, "partition_date": run.plan.partition.isoformat()}
    own = {"run_id": run.plan.run_id}
    _replace(run, "runs", [{**base, **_flat(summary)}], own)
    checks = [
        {**base, "gate": gate, **check}
        for gate in ("feature_gate", "prediction_gate")
        for check in (records[gate] or {}).get("checks", [])
    ]
    _replace(run, "checks", checks, own)
    if run.plan.challengers:
        _replace(run, "evidence", night_rows(records["evidence"] or {}, base), own)
    if summary["status"] in ("published", "refused") and not run.plan.dry_run:
        _write_quarantine(run, records["freeze"])
    if summary["status"] == "published":
        record_publications(run)


def _flat(summary: Json) -> Json:
    names = {column.name for column in table_columns("runs")}
    found = {key: value for key, value in summary.items() if key in names}
    found["warnings"] = len(summary["warnings"])
    found["stopped_by"] = "\n".join(summary["stopped_by"]) or None
    return found


def _replace(run: Run, name: str, rows: Sequence[Json], of: Mapping[str, Any]) -> None:
    replace_rows(
        run.warehouse,
        name,
        rows,
        {**of, "partition_date": run.plan.partition},
        doing=f"recording {name} of {run.spec.name}",
        job_key=run.plan.job_key(f"record_{name}"),
        labels=run.plan.labels,
    )


def _write_quarantine(run: Run, frozen: Json | None) -> None:
    """Replace the quarantined rows of this pipeline and partition by the rows this run rejected, in one MERGE."""
    if frozen is None:
        return
    ensure_operations_table(run.warehouse, "quarantine")
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
        job_key=run.plan.job_key("quarantine"),
        labels=run.plan.labels,
    )
