"""The feature table or query as it is now: columns, rows, the server's time, and when it last changed."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nightscore.errors import ConfigurationError, GateRefusedError, listed, near_miss, shorten
from nightscore.registry.signature import SignatureError, faults
from nightscore.registry.store import Version
from nightscore.snapshot_sql import PARTITION_TYPES, frozen_select, where_partition
from nightscore.spec import Spec
from nightscore.warehouse import Column, Estimate, StatementError, Warehouse

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
class Shape:
    """What of the source's columns a run reads.

    Attributes:
        spec: the spec, its columns spelt as the table spells them.
        columns: name → GoogleSQL type of the columns to freeze: keys, partition (frozen, it is a DATE), the inputs of
            champion and challengers, checked columns.
        partition_type: GoogleSQL type of the partition column in the source.
        left_out: challenger as asked → a sentence why the columns cannot feed it.
    """

    spec: Spec
    columns: dict[str, str]
    partition_type: str
    left_out: dict[str, str]


@dataclass(frozen=True)
class Source(Shape):
    """What freezing will find.

    Attributes:
        now: the server's time.
        snapshot_time: the moment whose rows are frozen; None where time travel cannot name one: a query, a view.
        rows: rows of the partition; None for a query, which would be billed for the counting.
        bytes: what freezing will bill, by dry run.
        modified: full name → time of last change of every table that is read.
    """

    now: dt.datetime
    snapshot_time: dt.datetime | None
    rows: int | None
    bytes: int
    modified: dict[str, str]


def look_at_source(
    spec: Spec, partition: dt.date, version: Version, warehouse: Warehouse, challengers: Mapping[str, Version]
) -> Source:
    """Return what there is to freeze for a model and its challengers (as asked → version).

    Raises:
        EmptyPartitionError: there is nothing.
        TableNotFoundError, ColumnError, SignatureError: what the spec or the model names is not there or does not fit.
    """
    shape, estimate = _estimate(spec, partition, version, warehouse, challengers)
    # Before the snapshot's time is taken: a change in between makes the next plan another one, which is safe.
    modified = {table: _modified(warehouse, table) for table in sorted(estimate.tables)}
    now, rows = _count(shape.spec, partition, shape.partition_type, warehouse)
    return Source(
        **vars(shape),
        now=now,
        snapshot_time=now if _has_time_travel(spec, warehouse) else None,
        rows=rows,
        bytes=estimate.bytes,
        modified=modified,
    )


def _estimate(
    spec: Spec, partition: dt.date, version: Version, warehouse: Warehouse, challengers: Mapping[str, Version]
) -> tuple[Shape, Estimate]:
    """Return what is to be frozen and what it will bill, by dry run.

    Columns that only challengers read may make it cost more than is allowed, or be closed to us. Their challengers are
    then left out, so that the champion gets its rows.
    """

    def dry_run(shape: Shape) -> Estimate:
        return warehouse.estimate(
            frozen_select(shape.spec, shape.columns, shape.partition_type, None),
            {"partition": partition},
            doing=f"planning to freeze {spec.source} for {spec.name}",
            max_bytes_billed=spec.limits.max_bytes_billed,
        )

    shape = require_columns(spec, version, warehouse, challengers)
    try:
        return shape, dry_run(shape)
    except StatementError as error:
        require_rules(shape, partition, warehouse)
        alone = require_columns(spec, version, warehouse, {})
        if alone.columns == shape.columns:
            raise
        there = {name.lower() for name in alone.columns}
        left_out = {
            asked: f"The columns that {found.label} reads besides cannot be frozen: {shorten(error, 400)}"
            for asked, found in challengers.items()
            if not {item.name.lower() for item in found.manifest.inputs} <= there
        }
        return replace(alone, left_out={**left_out, **shape.left_out}), dry_run(alone)


def require_rules(shape: Shape, partition: dt.date, warehouse: Warehouse) -> None:
    """Check by dry run that every row rule is a condition that the source's rows can be asked.

    Raises:
        StatementError: one is not; it is named.
    """
    for name in shape.spec.features.reject:
        features = shape.spec.features.model_copy(update={"reject": {name: shape.spec.features.reject[name]}})
        warehouse.estimate(
            frozen_select(
                shape.spec.model_copy(update={"features": features}), shape.columns, shape.partition_type, None
            ),
            {"partition": partition},
            doing=f"checking features.reject.{name} of {shape.spec.name}",
        )


def require_columns(
    spec: Spec, version: Version, warehouse: Warehouse, challengers: Mapping[str, Version] | None = None
) -> Shape:
    """Return which columns a model and its challengers (as asked → version) read, and who cannot be fed.

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
    left_out = _cannot_feed(spec, scalar, challengers or {})
    readers = [version, *(found for asked, found in (challengers or {}).items() if asked not in left_out)]
    inputs = [by_lower[item.name.lower()] for reader in readers for item in reader.manifest.inputs]
    frozen = {column.name: column.type for column in (*keys, partition, *inputs, *checked)}
    frozen[partition.name] = "DATE"
    spelt = {"keys": tuple(key.name for key in keys), "partition": partition.name}
    spec = spec.model_copy(update={"features": spec.features.model_copy(update=spelt)})
    return Shape(spec, frozen, partition.type, left_out)


def _cannot_feed(spec: Spec, scalar: Mapping[str, str], challengers: Mapping[str, Version]) -> dict[str, str]:
    """Return challenger as asked → a sentence, for those that the source's scalar columns (name → type) cannot feed."""
    left_out = {}
    for asked, version in challengers.items():
        if found := faults(version.manifest.inputs, scalar):
            more = f" … and {len(found) - 3} more" if len(found) > 3 else ""
            shown = shorten(" ".join(found[:3]), 400)
            left_out[asked] = f"{version.label} cannot read the columns of {spec.source}: {shown}{more}"
    return left_out


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
