"""The plan: everything a run depends on, decided once and written once.

Shards, retries and resumed runs read `plan.json` and nothing else, so an alias that moves or a spec that is edited
while a run is under way changes nothing until the next run.

A run's id is the partition and the first eight digits of the plan's digest. The digest covers what decides the result
(spec, code, model, the sources' state) and an ordinal that counts finished runs of exactly the same. So the same plan
again resumes an unfinished run, two processes that plan at once agree on one, and a finished run is followed by a new
one.
"""

import datetime as dt
import getpass
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from nightscore import __version__
from nightscore.errors import ConfigurationError, GateRefusedError, listed, near_miss
from nightscore.objects import to_json
from nightscore.prediction_schema import prediction_columns, require_table_fits
from nightscore.records import RunRecords, is_finished
from nightscore.registry.signature import SignatureError, faults
from nightscore.registry.store import Registry, Version
from nightscore.snapshot_sql import PARTITION_TYPES, frozen_select, where_partition
from nightscore.spec import ModelReference, Spec
from nightscore.warehouse import Column, Warehouse

ROWS_PER_SHARD = 2_000_000
MOST_SHARDS = 64
SHARDS_OF_A_QUERY = 8  # a query's rows are not counted beforehand: that would bill it twice
KEY_TYPES = ("INT64", "STRING", "DATE")


class EmptyPartitionError(GateRefusedError):
    """The partition holds no row, so there is nothing to score."""

    def __init__(self, spec: Spec, partition: dt.date, latest: Sequence[object]) -> None:
        there = f"The latest partitions are {listed(latest)}." if latest else "The table is empty."
        super().__init__(
            f"{spec.name}: {spec.source} has no row with {spec.features.partition} = {partition}. {there} "
            "Nothing was published."
        )


class ColumnError(ConfigurationError):
    """A column that the spec names is missing or of a type that it cannot have."""


class PlannedModel(BaseModel):
    """The version that a run scores with: pinned by its manifest's digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: int
    digest: str
    requested: str

    @property
    def label(self) -> str:
        """`name/version`, as written beside every prediction."""
        return f"{self.name}/{self.version}"


class Plan(BaseModel):
    """What one run will do.

    Attributes:
        run_id: `{partition}-{digest[:8]}`.
        digest: SHA-256 (hex) of what decides the result.
        spec: the spec as it was when the run was planned.
        partition: the scoring date.
        snapshot_time: the moment whose rows are frozen; None for a query, which is frozen when it runs.
        scored_at: the time written beside every prediction.
        expires: when the frozen rows and the staged predictions of the run may go.
        model: the pinned version.
        columns: name → GoogleSQL type of the frozen columns: keys, partition, inputs and checked columns.
        partition_type: GoogleSQL type of the partition column in the source; frozen, it is a DATE.
        shards: how many parts are scored in parallel.
        rows: rows of the partition when it was planned; None for a query.
        estimated_bytes: what freezing will bill, by dry run.
        sources: full name → time of last change of the tables the rows come from.
        replaces_rows: rows of the predictions table's partition that a publication will replace.
        dry_run: score and check, publish nothing.
        reason, planned_by, code_version: for people and auditors.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    digest: str
    ordinal: int
    spec: Spec
    partition: dt.date
    snapshot_time: dt.datetime | None
    scored_at: dt.datetime
    expires: dt.datetime
    model: PlannedModel
    columns: dict[str, str]
    partition_type: str
    shards: Annotated[int, Field(ge=1, le=MOST_SHARDS)]
    rows: int | None
    estimated_bytes: int
    sources: dict[str, str]
    replaces_rows: int
    dry_run: bool = False
    reason: str | None = None
    planned_by: str
    code_version: str

    @property
    def key_types(self) -> dict[str, str]:
        """The keys and their GoogleSQL types."""
        return {key: self.columns[key] for key in self.spec.features.keys}

    @property
    def table_prefix(self) -> str:
        """What the names of the run's tables begin with."""
        return f"{self.spec.name}__{self.run_id.replace('-', '')}"

    @property
    def labels(self) -> dict[str, str]:
        """Labels of the run's BigQuery jobs."""
        return {"nightscore_pipeline": self.spec.name[:63], "nightscore_run": self.run_id}

    def job_key(self, step: str) -> str:
        """Return what makes a step's BigQuery job one and the same however often it is submitted."""
        return f"nightscore_{self.spec.name}_{self.run_id}_{step}"


def plan(
    spec: Spec,
    partition: dt.date,
    warehouse: Warehouse,
    registry: Registry,
    *,
    model: ModelReference | None = None,
    dry_run: bool = False,
    reason: str | None = None,
) -> tuple[Plan, bool]:
    """Decide a run, or find the unfinished run that was decided the same way.

    Args:
        spec: the pipeline.
        partition: the scoring date.
        warehouse: where the rows are.
        registry: where the models are.
        model: another model than the spec's.
        dry_run: score and check, publish nothing.
        reason: why it is run by hand.

    Returns:
        The plan as it is stored, and whether an earlier process stored it.

    Raises:
        EmptyPartitionError: there is nothing to score.
        PredictionsTableError: the predictions table exists and cannot hold the predictions.
        ConfigurationError: a table, column or model is missing or does not fit.
    """
    version = registry.resolve(model or spec.model)
    columns, partition_type = require_columns(spec, version, warehouse)
    replaces_rows = _replaced_rows(spec, partition, version, columns, warehouse)
    snapshot_time, rows = _count(spec, partition, partition_type, warehouse)
    estimate = warehouse.estimate(
        frozen_select(spec, columns, partition_type, snapshot_time),
        {"partition": partition, **({"snapshot_time": snapshot_time} if snapshot_time else {})},
        doing=f"planning to freeze {spec.source} for {spec.name}",
        max_bytes_billed=spec.limits.max_bytes_billed,
    )
    sources = {table: _modified(warehouse, table) for table in sorted(estimate.tables)}
    identity = {
        "pipeline": spec.name,
        "partition": partition.isoformat(),
        "spec": spec.digest,
        "code": __version__,
        "model": version.digest,
        "sources": sources,
        "dry_run": dry_run,
    }
    now = _server_time(warehouse) if snapshot_time is None else snapshot_time

    def build(ordinal: int, digest: str) -> Plan:
        return Plan(
            run_id=f"{partition}-{digest[:8]}",
            digest=digest,
            ordinal=ordinal,
            spec=spec,
            partition=partition,
            snapshot_time=snapshot_time,
            scored_at=now,
            expires=now + spec.keep,
            model=PlannedModel(
                name=version.manifest.name,
                version=version.manifest.version,
                digest=version.digest,
                requested=str(model or spec.model),
            ),
            columns=columns,
            partition_type=partition_type,
            shards=spec.limits.shards or _shards(rows),
            rows=rows,
            estimated_bytes=estimate.bytes,
            sources=sources,
            replaces_rows=replaces_rows,
            dry_run=dry_run,
            reason=reason,
            planned_by=getpass.getuser(),
            code_version=__version__,
        )

    return _agree(registry, spec.name, partition, identity, build)


def read_plan(records: RunRecords) -> Plan | None:
    """Return the stored plan of a run, or None when there is no such run."""
    content = records.read("plan")
    return None if content is None else Plan.model_validate(content)


def require_columns(spec: Spec, version: Version, warehouse: Warehouse) -> tuple[dict[str, str], str]:
    """Return name → GoogleSQL type of the columns to freeze, and the partition column's type in the source.

    Raises:
        TableNotFoundError, ColumnError, SignatureError: what the spec or the model names is not there or does not fit.
    """
    there = {column.name: column for column in source_columns(spec, warehouse)}
    partition = _require(spec, "features.partition", spec.features.partition, there, PARTITION_TYPES)
    keys = [_require(spec, "features.keys", key, there, KEY_TYPES) for key in spec.features.keys]
    scalar = {name: column.type for name, column in there.items() if column.mode != "REPEATED"}
    if found := faults(version.manifest.inputs, scalar):
        raise SignatureError(version.label, spec.source, found)
    wanted = [column for item in spec.checks.features for column in item.columns]
    checked = [_require(spec, "checks.features", name, there, None) for name in wanted]
    by_lower = {name.lower(): column for name, column in there.items()}
    inputs = [by_lower[item.name.lower()] for item in version.manifest.inputs]
    frozen = {column.name: column.type for column in (*keys, partition, *inputs, *checked)}
    frozen[partition.name] = "DATE"
    return frozen, partition.type


def source_columns(spec: Spec, warehouse: Warehouse) -> Sequence[Column]:
    """Return the columns of the feature table or query."""
    if spec.features.table:
        return warehouse.columns(spec.features.table)
    doing = f"reading the columns of {spec.source} for {spec.name}"
    today = dt.datetime.now(dt.UTC).date()
    return warehouse.estimate(str(spec.features.query), {"partition": today}, doing=doing).columns


def _require(spec: Spec, path: str, name: str, there: Mapping[str, Column], types: Sequence[str] | None) -> Column:
    by_lower = {known.lower(): column for known, column in there.items()}
    column = by_lower.get(name.lower())
    if column is None:
        raise ColumnError(f"{spec.name}: {path}: {spec.source} has no column {name!r}. {near_miss(name, list(there))}")
    if types is not None and (column.type not in types or column.mode == "REPEATED"):
        kind = f"ARRAY<{column.type}>" if column.mode == "REPEATED" else column.type
        raise ColumnError(
            f"{spec.name}: {path}: the column {name!r} of {spec.source} is {kind}; {' or '.join(types)} is needed."
        )
    return column


def _count(
    spec: Spec, partition: dt.date, partition_type: str, warehouse: Warehouse
) -> tuple[dt.datetime | None, int | None]:
    """Return the server's time and the number of rows at that time; a query is not counted."""
    if spec.features.table is None:
        return None, None
    doing = f"counting the rows of {spec.source} for {spec.name}"
    result = warehouse.query(
        f"SELECT COUNT(*) AS row_count, CURRENT_TIMESTAMP() AS now FROM {warehouse.quoted(spec.features.table)} "
        f"WHERE {where_partition(spec.features.partition, partition_type)}",
        {"partition": partition},
        doing=doing,
        max_bytes_billed=spec.limits.max_bytes_billed,
    )
    [row] = result.rows
    if row["row_count"] == 0:
        column = spec.features.partition
        latest = warehouse.query(
            f"SELECT DISTINCT DATE(`{column}`) AS d FROM {warehouse.quoted(spec.features.table)} "
            f"WHERE `{column}` IS NOT NULL ORDER BY d DESC LIMIT 3",
            doing=doing,
            max_bytes_billed=spec.limits.max_bytes_billed,
        )
        raise EmptyPartitionError(spec, partition, [found["d"] for found in latest.rows])
    return row["now"], int(row["row_count"])


def _server_time(warehouse: Warehouse) -> dt.datetime:
    [row] = warehouse.query("SELECT CURRENT_TIMESTAMP() AS now", doing="asking for the time").rows
    now = row["now"]
    assert isinstance(now, dt.datetime)  # noqa: S101 - tells the type checker what TIMESTAMP is
    return now


def _shards(rows: int | None) -> int:
    """Return one shard for every two million rows, at most 64.

    >>> [_shards(1), _shards(2_000_001), _shards(10**9), _shards(None)]
    [1, 2, 64, 8]
    """
    return SHARDS_OF_A_QUERY if rows is None else max(1, min(MOST_SHARDS, math.ceil(rows / ROWS_PER_SHARD)))


def _modified(warehouse: Warehouse, table: str) -> str:
    found = warehouse.find_table(table)
    return found.modified.isoformat() if found is not None and found.modified is not None else ""


def _replaced_rows(
    spec: Spec, partition: dt.date, version: Version, columns: Mapping[str, str], warehouse: Warehouse
) -> int:
    """Return how many rows a publication will replace; a table that cannot take it is refused before anything runs."""
    found = warehouse.find_table(spec.predictions.table)
    if found is None:
        return 0
    keys = {key: columns[key] for key in spec.features.keys}
    wanted = prediction_columns(version.manifest.name, keys, spec.features.partition, version.manifest.task)
    require_table_fits(spec, found, wanted)
    [row] = warehouse.query(
        f"SELECT COUNT(*) AS n FROM {warehouse.quoted(spec.predictions.table)} "
        f"WHERE `{spec.features.partition}` = @partition",
        {"partition": partition},
        doing=f"counting the published rows of {spec.predictions.table}",
    ).rows
    return int(row["n"])


def _agree(
    registry: Registry, pipeline: str, partition: dt.date, identity: dict[str, Any], build: Callable[[int, str], Plan]
) -> tuple[Plan, bool]:
    """Write the plan of the first ordinal that is not taken by a finished run, or return the one written there."""
    ordinal = 0
    while True:
        text = json.dumps({**identity, "ordinal": ordinal}, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        records = RunRecords(registry.bucket, pipeline, f"{partition}-{digest[:8]}")
        if is_finished(records):
            ordinal += 1
            continue
        stored = read_plan(records)
        if stored is not None:
            return stored, True
        draft = build(ordinal, digest)
        content = json.loads(to_json(draft.model_dump(mode="json")))
        written = records.write_once("plan", content)
        return Plan.model_validate(written), written != content
