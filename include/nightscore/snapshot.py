"""Freezing: one query copies the rows to score into a table of the run's own.

Gates, shards, retries and a replay weeks later then see the same rows, and the source is billed once. The table is
partitioned by `_shard`, a function of the keys alone, so that a shard reads its own bytes and a retry tomorrow reads
the same rows.
"""

from nightscore.objects import Json
from nightscore.row_rules import FAILED
from nightscore.run import Run
from nightscore.snapshot_sql import frozen_select


def freeze(run: Run) -> Json:
    """Copy the partition's rows into the run's snapshot table; return its record.

    A row carries, beside its columns, `_key_hash` (INT64 ≥ 0, from MD5 of the keys), `_shard` (`_key_hash` modulo the
    number of shards) and `_rejected_by` (the names of the row rules that hit, joined by commas, those that
    failed with `:error` behind them, or NULL).
    """
    plan, warehouse = run.plan, run.warehouse
    warehouse.create_dataset(warehouse.config.staging_dataset, "Run-scoped tables of nightscore; all of them expire.")
    parameters: dict[str, object] = {"partition": plan.partition}
    if plan.snapshot_time is not None:
        parameters["snapshot_time"] = plan.snapshot_time
    result = warehouse.query(
        f"CREATE TABLE IF NOT EXISTS {warehouse.quoted(run.snapshot_table)}\n"
        f"PARTITION BY RANGE_BUCKET(_shard, GENERATE_ARRAY(0, {plan.shards}, 1))\n"
        f"OPTIONS (expiration_timestamp = TIMESTAMP '{plan.expires:%Y-%m-%d %H:%M:%S}+00')\n"
        f"AS SELECT *, MOD(_key_hash, {plan.shards}) AS _shard FROM (\n"
        f"{frozen_select(plan.spec, plan.columns, plan.partition_type, plan.snapshot_time)}\n)",
        parameters,
        doing=f"freezing {plan.spec.source} for {plan.spec.name}",
        job_key=plan.job_key("freeze"),
        labels=plan.labels,
        max_bytes_billed=plan.spec.limits.max_bytes_billed,
    )
    columns = ", ".join(f"`{name}`" for name in plan.columns)
    warehouse.query(
        f"CREATE VIEW IF NOT EXISTS {warehouse.quoted(run.accepted_view)}\n"
        f"OPTIONS (expiration_timestamp = TIMESTAMP '{plan.expires:%Y-%m-%d %H:%M:%S}+00')\n"
        f"AS SELECT {columns} FROM {warehouse.quoted(run.snapshot_table)} WHERE _rejected_by IS NULL",
        doing=f"naming the accepted rows of {plan.spec.name}",
        labels=plan.labels,
    )
    counts = warehouse.query(
        "SELECT IFNULL(_shard, -1) AS shard, _rejected_by AS rules, COUNT(*) AS n "
        f"FROM {warehouse.quoted(run.snapshot_table)} GROUP BY 1, 2",
        doing=f"counting the frozen rows of {plan.spec.name}",
        labels=plan.labels,
    ).rows
    rejected, failed = dict.fromkeys(plan.spec.features.reject, 0), dict[str, int]()
    for row in counts:
        for rule in filter(None, (row["rules"] or "").split(",")):
            name = rule.removesuffix(FAILED)
            rejected[name] += int(row["n"])
            if name != rule:
                failed[name] = failed.get(name, 0) + int(row["n"])
    accepted = [row for row in counts if row["rules"] is None]
    rows = sum(int(row["n"]) for row in counts)
    return {
        "table": run.snapshot_table,
        "rows": rows,
        "accepted": sum(int(row["n"]) for row in accepted),
        "rejected": rows - sum(int(row["n"]) for row in accepted),
        "rejected_by_rule": rejected,
        "rule_errors": failed,
        "shard_rows": {str(row["shard"]): int(row["n"]) for row in sorted(accepted, key=lambda row: row["shard"])},
        "bytes_processed": result.bytes_processed,
        "job_id": result.job_id,
    }
