"""The feature table or query as it is now: columns, rows, the server's time, and when it last changed."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nightscore.errors import ConfigurationError, GateRefusedError, listed, near_miss
from nightscore.registry.signature import SignatureError, faults
from nightscore.registry.store import Version
from nightscore.snapshot_sql import PARTITION_TYPES, frozen_select, where_partition
from nightscore.spec import Spec
from nightscore.warehouse import Column, Warehouse

KEY_TYPES = ("INT64", "STRING", "DATE")
LOOK_AROUND = dt.timedelta(days=60)


class EmptyPartitionError(GateRefusedError):
    """The partition holds no row, so there is nothing to score."""

    def __init__(self, spec: Spec, partition: dt.date, latest: Sequence[object]) -> None:
        days = LOOK_AROUND.days
        there = f"The latest partitions are {listed(latest)}." if latest else f"Nor has any day {days} days around it."
        super().__init__(
            f"{spec.name}: {spec.source} has no row with {spec.features.partition} = {partition}. {there} "
            "Nothing was published."
        )


class ColumnError(ConfigurationError):
    """A column that the spec names is missing or of a type that it cannot have."""


@dataclass(frozen=True)
class Source:
    """What freezing will find.

    Attributes:
        spec: the spec, its columns spelt as the table spells them.
        columns: name → GoogleSQL type of the columns to freeze; the partition column is a DATE.
        partition_type: GoogleSQL type of the partition column in the source.
        now: the server's time.
        snapshot_time: the moment whose rows are frozen; None where time travel cannot name one: a query, a view.
        rows: rows of the partition; None for a query, which would be billed for the counting.
        bytes: what freezing will bill, by dry run.
        modified: full name → time of last change of every table that is read.
    """

    spec: Spec
    columns: dict[str, str]
    partition_type: str
    now: dt.datetime
    snapshot_time: dt.datetime | None
    rows: int | None
    bytes: int
    modified: dict[str, str]


def look_at_source(spec: Spec, partition: dt.date, version: Version, warehouse: Warehouse) -> Source:
    """Return what there is to freeze for a model.

    Raises:
        EmptyPartitionError: there is nothing.
        TableNotFoundError, ColumnError, SignatureError: what the spec or the model names is not there or does not fit.
    """
    spec, columns, partition_type = require_columns(spec, version, warehouse)
    estimate = warehouse.estimate(
        frozen_select(spec, columns, partition_type, None),
        {"partition": partition},
        doing=f"planning to freeze {spec.source} for {spec.name}",
        max_bytes_billed=spec.limits.max_bytes_billed,
    )
    # Before the snapshot's time is taken: a change in between makes the next plan another one, which is safe.
    modified = {table: _modified(warehouse, table) for table in sorted(estimate.tables)}
    now, rows = _count(spec, partition, partition_type, warehouse)
    return Source(
        spec=spec,
        columns=columns,
        partition_type=partition_type,
        now=now,
        snapshot_time=now if _has_time_travel(spec, warehouse) else None,
        rows=rows,
        bytes=estimate.bytes,
        modified=modified,
    )


def require_columns(spec: Spec, version: Version, warehouse: Warehouse) -> tuple[Spec, dict[str, str], str]:
    """Return the spec as the table spells its columns, the columns to freeze, and the partition column's type.

    The columns are name → GoogleSQL type: keys, partition (a DATE once it is frozen), inputs and checked columns.

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
    spelt = {"keys": tuple(key.name for key in keys), "partition": partition.name}
    return spec.model_copy(update={"features": spec.features.model_copy(update=spelt)}), frozen, partition.type


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


def _has_time_travel(spec: Spec, warehouse: Warehouse) -> bool:
    return spec.features.table is not None and warehouse.require_table(spec.features.table).table_type == "TABLE"


def _count(spec: Spec, partition: dt.date, partition_type: str, warehouse: Warehouse) -> tuple[dt.datetime, int | None]:
    """Return the server's time and the number of rows at that time; a query is not counted."""
    if spec.features.table is None:
        [row] = warehouse.query("SELECT CURRENT_TIMESTAMP() AS now", doing="asking for the time").rows
        return row["now"], None
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
        # Bounded on both sides: a table may refuse queries without a filter on its partitions, and bills them by days.
        column = f"DATE(`{spec.features.partition}`)"
        latest = warehouse.query(
            f"SELECT DISTINCT {column} AS d FROM {warehouse.quoted(spec.features.table)} "
            f"WHERE `{spec.features.partition}` BETWEEN {partition_type}(@first) AND {partition_type}(@last) "
            "ORDER BY d DESC LIMIT 3",
            {"first": partition - LOOK_AROUND, "last": partition + LOOK_AROUND},
            doing=doing,
            max_bytes_billed=spec.limits.max_bytes_billed,
        )
        raise EmptyPartitionError(spec, partition, [found["d"] for found in latest.rows])
    return row["now"], int(row["row_count"])


def _modified(warehouse: Warehouse, table: str) -> str:
    found = warehouse.find_table(table)
    return found.modified.isoformat() if found is not None and found.modified is not None else ""
