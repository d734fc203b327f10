"""The feature table or query as it is now: columns, rows, the server's time, and when it last changed.

Faults are collected, not raised one by one: who decides about a change wants to see all of them.
"""

import datetime as dt
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from nightscore.errors import ConfigurationError, GateRefusedError, NightscoreError, listed, near_miss, shorten
from nightscore.registry.signature import SignatureError, faults
from nightscore.registry.store import Version
from nightscore.row_rules import columns_of
from nightscore.snapshot_sql import PARTITION_TYPES, frozen_select, where_partition
from nightscore.spec import Rule, Spec
from nightscore.warehouse import Column, Estimate, StatementError, Warehouse

KEY_TYPES = ("INT64", "STRING", "DATE")
SLICE_TYPES = ("STRING", "BOOL", "INT64", "DATE")
LOOK_AROUND = dt.timedelta(days=60)

T = TypeVar("T")


class EmptyPartitionError(GateRefusedError):
    """The partition holds no row, so there is nothing to score."""

    def __init__(self, spec: Spec, partition: dt.date, latest: Sequence[object] | None) -> None:
        days = LOOK_AROUND.days
        there = f"The latest partitions are {listed(latest)}. " if latest else ""
        if latest is not None and not latest:
            there = f"Nor has any day {days} days around it. "
        super().__init__(
            f"{spec.name}: {spec.source} has no row with {spec.features.partition} = {partition}. {there}"
            "Nothing was published."
        )


class LimitError(GateRefusedError):
    """The partition is larger than a limit of the spec allows; `key`, `found` and `limit` say which and by how much."""

    def __init__(self, spec: Spec, key: str, found: int, limit: int, what: str) -> None:
        super().__init__(
            f"{spec.name}: {key}: {what}; {limit:,} are allowed. Nothing was frozen. Find out why there is so much, "
            "or raise the limit."
        )
        self.key, self.found, self.limit = key, found, limit


class ColumnError(ConfigurationError):
    """A column that the spec names is missing or of a type that it cannot have."""


class RowRuleError(ConfigurationError):
    """A row rule is not a condition that BigQuery takes."""

    def __init__(self, spec: Spec, rule: str, cause: str) -> None:
        super().__init__(
            f"{spec.name}: features.reject.{rule}: BigQuery does not take the condition: {words_of(cause)}"
        )


def words_of(cause: str) -> str:
    r"""Return what BigQuery says of a statement, without the request, the job and places in a text that is ours.

    >>> words_of("POST https://host/jobs?x=y: Unrecognized name: agee at [3:23]\n\nLocation: US\nJob ID: 1")
    'Unrecognized name: agee'
    """
    words = re.sub(r"^[A-Z]+ https?://\S+: ", "", cause.split("\n\nLocation:", maxsplit=1)[0])
    return re.sub(r" at \[\d+:\d+\]", "", words).strip()


class Reasons(list[NightscoreError]):
    """Why a run must not begin, in the order of finding. A server that failed is none of them: that is raised."""

    def collect(self, step: Callable[[], T]) -> T | None:
        """Return what a step returns, or None when it refuses, which is a reason more."""
        try:
            return step()
        except (GateRefusedError, ConfigurationError) as error:
            self.append(error)
            return None


@dataclass(frozen=True)
class Shape:
    """What of the source's columns a run reads.

    Attributes:
        spec: the spec, its columns spelt as the table spells them.
        columns: name → GoogleSQL type of the columns to freeze: keys, partition (frozen, it is a DATE), the inputs of
            champion and challengers, checked columns, slices of the evidence.
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
        rows: rows of the partition; None for a query, which would be billed for the counting, and where the limit of
            bytes does not even allow the counting.
        bytes: what freezing will bill, by dry run; where that gives no figure, the size of the tables, an upper bound.
        is_estimated: whether `bytes` comes from the dry run.
        modified: full name → time of last change of every table that is read.
    """

    now: dt.datetime
    snapshot_time: dt.datetime | None
    rows: int | None
    bytes: int
    is_estimated: bool
    modified: dict[str, str]


def look_at_source(
    spec: Spec,
    partition: dt.date,
    version: Version | None,
    columns: Sequence[Column],
    warehouse: Warehouse,
    challengers: Mapping[str, Version],
    reasons: Reasons,
) -> Source | None:
    """Return what there is to freeze for a model and its challengers (as asked → version), as far as it can be told.

    Args:
        spec: the pipeline.
        partition: the scoring date.
        version: the model; None where it could not be resolved.
        columns: the source's columns.
        warehouse: where the rows are.
        challengers: the versions that score beside the model.
        reasons: is given every fault of columns, rules, rows and bytes. Without one, the source is complete.
    """
    shape = shape_of(spec, version, columns, challengers, reasons)
    if shape is None:
        return None
    try:
        shape, estimate = _estimate(shape, partition, warehouse, version, columns, challengers)
    except StatementError as error:
        broken = rule_faults(shape, partition, warehouse)
        reasons.extend(broken or [error])
        if not broken:
            return None
        _, estimate = _estimate(_with_rules(shape, {}), partition, warehouse, version, columns, challengers)
    limit = spec.limits.max_bytes_billed
    is_too_much = limit is not None and estimate.bytes > limit
    if limit is not None and is_too_much:
        what = f"freezing {spec.source} would bill {estimate.bytes:,} bytes"
        reasons.append(LimitError(spec, "limits.max_bytes_billed", estimate.bytes, limit, what))
    # Before the snapshot's time is taken: a change in between makes the next plan another one, which is safe.
    tables = {name: warehouse.find_table(name) for name in sorted(estimate.tables)}
    modified = {name: table.modified.isoformat() if table and table.modified else "" for name, table in tables.items()}
    size = sum(int(table.num_bytes or 0) for table in tables.values() if table is not None)
    try:
        now, rows = _count(shape.spec, partition, shape.partition_type, warehouse)
    except StatementError:
        if not is_too_much:
            raise
        now, rows = _now(warehouse), None
    if rows is not None:
        _judge_rows(shape, partition, rows, warehouse, reasons)
    return Source(
        **vars(shape),
        now=now,
        snapshot_time=now if _has_time_travel(spec, warehouse) else None,
        rows=rows,
        bytes=estimate.bytes or size,
        is_estimated=bool(estimate.bytes) or not size,
        modified=modified,
    )


def _judge_rows(shape: Shape, partition: dt.date, rows: int, warehouse: Warehouse, reasons: Reasons) -> None:
    spec, limit = shape.spec, shape.spec.limits.max_rows
    if rows == 0:
        try:
            latest = _latest_partitions(spec, partition, shape.partition_type, warehouse)
        except StatementError:  # four months of days may cost more than one may: then nobody says which days there are
            reasons.append(EmptyPartitionError(spec, partition, None))
        else:
            reasons.append(EmptyPartitionError(spec, partition, latest))
    elif limit is not None and rows > limit:
        what = f"{spec.source} has {rows:,} rows with {spec.features.partition} = {partition}"
        reasons.append(LimitError(spec, "limits.max_rows", rows, limit, what))


def _dry_run(shape: Shape, partition: dt.date, warehouse: Warehouse) -> Estimate:
    return warehouse.estimate(
        frozen_select(shape.spec, shape.columns, shape.partition_type, None),
        {"partition": partition},
        doing=f"planning to freeze {shape.spec.source} for {shape.spec.name}",
    )


def _estimate(
    shape: Shape,
    partition: dt.date,
    warehouse: Warehouse,
    version: Version | None,
    columns: Sequence[Column],
    challengers: Mapping[str, Version],
) -> tuple[Shape, Estimate]:
    """Return what is to be frozen and what it will bill, by dry run.

    Columns that only challengers read may make it cost more than is allowed, or be closed to us. Their challengers are
    then left out, so that the champion gets its rows.

    Raises:
        StatementError: BigQuery refuses to freeze what the champion alone reads, too.
    """
    alone = shape_of(shape.spec, version, columns, {}, Reasons()) or shape
    limit = shape.spec.limits.max_bytes_billed
    try:
        estimate = _dry_run(shape, partition, warehouse)
    except StatementError as error:
        if alone.columns == shape.columns:
            raise
        why = str(error)
    else:
        if limit is None or estimate.bytes <= limit or alone.columns == shape.columns:
            return shape, estimate
        why = f"freezing them would bill {estimate.bytes:,} bytes, and limits.max_bytes_billed is {limit:,}."
    there = {name.lower() for name in alone.columns}
    left_out = {
        asked: f"The columns that {found.label} reads besides cannot be frozen: {shorten(why, 400)}"
        for asked, found in challengers.items()
        if not {item.name.lower() for item in found.manifest.inputs} <= there
    }
    return replace(alone, left_out={**left_out, **shape.left_out}), _dry_run(alone, partition, warehouse)


def rule_faults(shape: Shape, partition: dt.date, warehouse: Warehouse) -> list[RowRuleError]:
    """Return the row rules that BigQuery does not take; none where it refuses to read the rows without them, too."""

    def fault(rules: Mapping[str, Rule]) -> str | None:
        few = {name: shape.columns[name] for name in (shape.spec.features.partition, *shape.spec.features.keys)}
        try:
            _dry_run(replace(_with_rules(shape, rules), columns=few), partition, warehouse)
        except StatementError as error:
            return error.cause
        return None

    rules = shape.spec.features.reject
    if not rules or fault({}) is not None:
        return []
    found = {name: fault({name: rule}) for name, rule in rules.items()}
    return [RowRuleError(shape.spec, name, cause) for name, cause in found.items() if cause is not None]


def _with_rules(shape: Shape, rules: Mapping[str, Rule]) -> Shape:
    features = shape.spec.features.model_copy(update={"reject": dict(rules)})
    return replace(shape, spec=shape.spec.model_copy(update={"features": features}))


def require_columns(
    spec: Spec, version: Version, warehouse: Warehouse, challengers: Mapping[str, Version] | None = None
) -> Shape:
    """Return which columns a model and its challengers (as asked → version) read, and who cannot be fed.

    Raises:
        TableNotFoundError, ColumnError, SignatureError: what the spec or the model names is not there or does not fit.
    """
    reasons = Reasons()
    shape = shape_of(spec, version, source_columns(spec, warehouse), challengers or {}, reasons)
    if reasons or shape is None:
        raise reasons[0]
    return shape


def shape_of(
    spec: Spec,
    version: Version | None,
    columns: Sequence[Column],
    challengers: Mapping[str, Version],
    reasons: Reasons,
) -> Shape | None:
    """Return which of the source's columns a run reads; None without its keys and its partition.

    Args:
        spec: the pipeline.
        version: the model; None where it could not be resolved.
        columns: the source's columns.
        challengers: the versions that score beside the model; those that cannot be fed are left out.
        reasons: is given every column that is missing or does not fit.
    """
    there = {column.name: column for column in columns}

    def wanted(path: str, name: str, types: Sequence[str] | None) -> Column | None:
        return reasons.collect(lambda: _require(spec, path, name, there, types))

    partition = wanted("features.partition", spec.features.partition, PARTITION_TYPES)
    keys = [column for key in spec.features.keys if (column := wanted("features.keys", key, KEY_TYPES))]
    scalar = {name: column.type for name, column in there.items() if column.mode != "REPEATED"}
    if version is not None and (found := faults(version.manifest.inputs, scalar)):
        reasons.append(SignatureError(version.label, spec.source, found))
    named = dict.fromkeys(column for item in spec.checks.features for column in item.reads)
    checked = [column for name in named if (column := wanted("checks.features", name, None))]
    sliced = [column for name in spec.evidence.slices if (column := wanted("evidence.slices", name, SLICE_TYPES))]
    if partition is None or len(keys) < len(spec.features.keys):
        return None
    left_out = _cannot_feed(spec, scalar, challengers)
    readers = [version, *(other for asked, other in challengers.items() if asked not in left_out)]
    by_lower = {name.lower(): there[name] for name in scalar}
    names = [item.name.lower() for reader in readers if reader is not None for item in reader.manifest.inputs]
    inputs = [by_lower[name] for name in names if name in by_lower]
    # What a rule looked at is frozen, too: the quarantine shows why a row is there.
    ruled = [by_lower[name] for name in columns_of(spec.features.rules.values()) if name in by_lower]
    frozen = {column.name: column.type for column in (*keys, partition, *inputs, *checked, *ruled, *sliced)}
    frozen[partition.name] = "DATE"
    spelt = {"keys": tuple(key.name for key in keys), "partition": partition.name}
    slices = spec.evidence.model_copy(update={"slices": tuple(column.name for column in sliced)})
    spec = spec.model_copy(update={"features": spec.features.model_copy(update=spelt), "evidence": slices})
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


def _now(warehouse: Warehouse) -> dt.datetime:
    [row] = warehouse.query("SELECT CURRENT_TIMESTAMP() AS now", doing="asking for the time").rows
    now: dt.datetime = row["now"]
    return now


def _count(spec: Spec, partition: dt.date, partition_type: str, warehouse: Warehouse) -> tuple[dt.datetime, int | None]:
    """Return the server's time and the number of rows at that time; a query is not counted."""
    if spec.features.table is None:
        return _now(warehouse), None
    result = warehouse.query(
        f"SELECT COUNT(*) AS row_count, CURRENT_TIMESTAMP() AS now FROM {warehouse.quoted(spec.features.table)} "
        f"WHERE {where_partition(spec.features.partition, partition_type)}",
        {"partition": partition},
        doing=f"counting the rows of {spec.source} for {spec.name}",
        max_bytes_billed=spec.limits.max_bytes_billed,
    )
    [row] = result.rows
    return row["now"], int(row["row_count"])


def _latest_partitions(spec: Spec, partition: dt.date, partition_type: str, warehouse: Warehouse) -> Sequence[object]:
    # Bounded on both sides: a table may refuse queries without a filter on its partitions, and bills them by days.
    column = f"DATE(`{spec.features.partition}`)"
    latest = warehouse.query(
        f"SELECT DISTINCT {column} AS d FROM {warehouse.quoted(str(spec.features.table))} "
        f"WHERE `{spec.features.partition}` BETWEEN {partition_type}(@first) AND {partition_type}(@last) "
        "ORDER BY d DESC LIMIT 3",
        {"first": partition - LOOK_AROUND, "last": partition + LOOK_AROUND},
        doing=f"looking for partitions of {spec.source} for {spec.name}",
        max_bytes_billed=spec.limits.max_bytes_billed,
    )
    return [found["d"] for found in latest.rows]
