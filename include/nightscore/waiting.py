"""Waiting for data: what `features.wait` of a spec asks for, looked at until all of it is there.

A `Watch` knows when its wait began and when it ends, so that whoever goes on with it after a restart waits no longer.
Neither the partition's lease nor, in Airflow, a worker's slot is held meanwhile.
"""

import datetime as dt
import re
import time
from dataclasses import dataclass, field

from nightscore.conditions import Condition, Marker, Modified, RowCount
from nightscore.errors import ConfigurationError, GateRefusedError, TransientError, near_miss, shorten
from nightscore.progress import Progress
from nightscore.snapshot_sql import PARTITION_TYPES, where_partition
from nightscore.spec import Spec
from nightscore.spec_values import span_text
from nightscore.warehouse import Warehouse

# How BigQuery calls the partition of a day, by the kind of partitions; hours begin with their day.
_PARTITION_IDS = {"HOUR": "%Y%m%d", "DAY": "%Y%m%d", "MONTH": "%Y%m", "YEAR": "%Y"}


class DataMissingError(GateRefusedError):
    """The data of a partition did not come in time."""

    def __init__(self, watch: "Watch", waited: dt.timedelta, seen: str) -> None:
        super().__init__(
            f"{watch.spec.name}: the data of {watch.partition} did not come in time: the run waited for "
            f"{_in_words(waited)}, and features.wait.timeout is {span_text(watch.timeout)}. "
            f"Last seen: {shorten(seen, 1200)}. Nothing was published. Start the partition again when it is there."
        )


class ConditionError(ConfigurationError):
    """A condition cannot be looked at: it names what is not there, or is of another kind."""

    def __init__(self, spec: Spec, condition: Condition, why: str) -> None:
        super().__init__(f"{spec.name}: features.wait.until: `{shorten(condition)}`: {why}")


@dataclass(frozen=True)
class Sight:
    """What was seen of a condition: whether it holds, and a few words."""

    condition: Condition
    holds: bool
    seen: str

    def __str__(self) -> str:
        return f"{self.condition}: {self.seen}"


@dataclass
class Watch:
    """The wait for one partition.

    Attributes:
        spec: the pipeline, with `features.wait`.
        partition: the scoring date.
        warehouse: where it looks.
        progress: who is told what is seen while something is missing, whenever that changes.
        began: when the wait began, with its zone.
        seen: what the last look saw.
    """

    spec: Spec
    partition: dt.date
    warehouse: Warehouse
    progress: Progress
    began: dt.datetime
    seen: str = field(default="", init=False)

    @property
    def timeout(self) -> dt.timedelta:
        """How long the wait may be."""
        return self.spec.features.wait.timeout if self.spec.features.wait else dt.timedelta()

    def look(self) -> float | None:
        """Look once; return the seconds until the next look, or None when every condition holds.

        A server that fails is looked at again later; it ends no wait.

        Raises:
            DataMissingError: the time is over, and there is still something missing.
            TableNotFoundError, ConditionError, StatementError: a condition cannot be looked at.
        """
        wait = self.spec.features.wait
        if wait is None:
            return None
        before = self.seen
        try:
            sights = [look_at(condition, self) for condition in wait.conditions]
            self.seen = "; ".join(str(sight) for sight in sights)
            if all(sight.holds for sight in sights):
                return None
        except TransientError as error:
            self.seen = f"{', '.join(wait.until)}: {error}"
        if self.seen != before:
            self.progress.waiting(self.seen)
        waited = dt.datetime.now(dt.UTC) - self.began
        if waited >= wait.timeout:
            raise DataMissingError(self, waited, self.seen)
        return min(wait.every, wait.timeout - waited).total_seconds()


def wait_for_data(spec: Spec, partition: dt.date, warehouse: Warehouse, progress: Progress) -> None:
    """Wait in this process until the partition's data is there, if the spec asks for that.

    Raises:
        DataMissingError: it did not come in time.
        ConfigurationError: a condition cannot be looked at.
    """
    if spec.features.wait is None:
        return
    progress.stage_began("wait")
    started = time.monotonic()
    watch = Watch(spec, partition, warehouse, progress, dt.datetime.now(dt.UTC))
    while (pause := watch.look()) is not None:
        time.sleep(pause)
    progress.stage_ended("wait", {"seen": watch.seen, "seconds": round(time.monotonic() - started, 3)})


def look_at(condition: Condition, watch: Watch) -> Sight:
    """Return what there is of a condition now.

    Raises:
        TableNotFoundError, ConditionError, StatementError: it cannot be looked at.
        WarehouseError: BigQuery failed.
    """
    if isinstance(condition, Modified):
        return _modified(condition, watch)
    spec = watch.spec
    rows = watch.warehouse.query(
        _statement(condition, spec, watch.warehouse),
        {"partition": watch.partition},
        doing=_doing(spec),
        max_bytes_billed=spec.limits.max_bytes_billed,
    ).rows
    if isinstance(condition, Marker):
        return Sight(condition, bool(rows), "there" if rows else "not there")
    count = int(rows[0]["n"])
    return Sight(condition, count >= condition.least, f"{count:,} row" if count == 1 else f"{count:,} rows")


def require_condition(condition: Condition, spec: Spec, warehouse: Warehouse) -> None:
    """Check that a condition can be looked at; nothing is read but metadata.

    Raises:
        TableNotFoundError, ConditionError, StatementError: it cannot.
    """
    if isinstance(condition, Modified):
        _require_time(condition, spec, warehouse)
        return
    warehouse.estimate(
        _statement(condition, spec, warehouse),
        {"partition": dt.datetime.now(dt.UTC).date()},
        doing=_doing(spec),
    )


def _statement(condition: RowCount | Marker, spec: Spec, warehouse: Warehouse) -> str:
    if isinstance(condition, RowCount):
        picked = _of_the_partition(condition, spec, warehouse, spec.source, None)
        return f"SELECT COUNT(*) AS n FROM {warehouse.quoted(spec.source)} WHERE {picked}"
    picked = _of_the_partition(condition, spec, warehouse, condition.table, condition.where)
    return f"SELECT 1 AS found FROM {warehouse.quoted(condition.table)} WHERE {picked} LIMIT 1"


def _of_the_partition(condition: Condition, spec: Spec, warehouse: Warehouse, table: str, where: str | None) -> str:
    """Return the condition that picks the partition's rows of a table, and of them those that `where` means."""
    there = {column.name.lower(): column for column in warehouse.columns(table)}
    own = f"(\n{where}\n)" if where else ""  # the line break ends a comment that it may close with
    if where and re.search(r"@partition\b", where, re.IGNORECASE):
        return own
    name = spec.features.partition
    column = there.get(name.lower())
    if column is None:
        hint = near_miss(name, [column.name for column in there.values()])
        raise ConditionError(spec, condition, f"{table} has no column {name!r}. {hint} Or say `where … = @partition`.")
    if column.type not in PARTITION_TYPES or column.mode == "REPEATED":
        kinds = " or ".join(PARTITION_TYPES)
        why = f"the column {name!r} of {table} is {column.type}; {kinds} is needed. Or say `where … = @partition`."
        raise ConditionError(spec, condition, why)
    picked = where_partition(column.name, column.type)
    return f"{picked} AND {own}" if own else picked


def _modified(condition: Modified, watch: Watch) -> Sight:
    schedule, table = watch.spec.schedule, watch.spec.features.table
    zone = schedule.zone if schedule is not None else dt.UTC
    day = watch.began.astimezone(zone).date()
    if schedule is not None:
        day = schedule.day_of_run(watch.partition, day)
    since = dt.datetime.combine(day, condition.at, zone)
    when = _last_change(condition, watch)
    if when is None:
        return Sight(condition, False, f"{table} has no partition {watch.partition} yet")
    local = when.astimezone(zone)
    words = f"modified on {local:%Y-%m-%d at %H:%M:%S} ({zone}), awaited from {since:%Y-%m-%d at %H:%M}"
    return Sight(condition, when >= since, words)


def _last_change(condition: Modified, watch: Watch) -> dt.datetime | None:
    """Return when the partition last changed, or the table where its partitions are not those of the spec.

    None where there is no such partition. BigQuery keeps a time for every partition; a server that does not say it has
    only the table's.
    """
    features, warehouse = watch.spec.features, watch.warehouse
    modified, kind = _require_time(condition, watch.spec, warehouse)
    if kind is None:
        return modified
    dataset, name = warehouse.full_name(str(features.table)).rsplit(".", 1)
    found = warehouse.query(
        f"SELECT * FROM {warehouse.quoted(f'{dataset}.INFORMATION_SCHEMA.PARTITIONS')} "
        "WHERE table_name = @name AND STARTS_WITH(partition_id, @day)",
        {"name": name, "day": watch.partition.strftime(_PARTITION_IDS[kind])},
        doing=_doing(watch.spec),
    ).rows
    times: list[dt.datetime] = [row["last_modified_time"] for row in found if row.get("last_modified_time")]
    return max(times, default=modified) if found else None


def _require_time(condition: Modified, spec: Spec, warehouse: Warehouse) -> tuple[dt.datetime, str | None]:
    """Return when the feature table last changed, and the kind of its partitions where they are those of the spec.

    Raises:
        ConditionError: it has no such time.
    """
    table = warehouse.require_table(str(spec.features.table))
    modified: dt.datetime | None = table.modified
    if table.table_type != "TABLE" or modified is None:
        why = f"{spec.features.table} is a {str(table.table_type).lower()}, which has no such time."
        raise ConditionError(spec, condition, f"{why} Wait for a row of a table that says it is complete.")
    parts = table.time_partitioning
    same = parts is not None and (parts.field or "").lower() == spec.features.partition.lower()
    return modified, str(parts.type_) if same else None


def _in_words(span: dt.timedelta) -> str:
    """Return a time span as people say it.

    >>> _in_words(dt.timedelta(hours=3, seconds=2)), _in_words(dt.timedelta(seconds=90))
    ('3 h 0 min', '1 min 30 s')
    """
    minutes, seconds = divmod(int(span.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _doing(spec: Spec) -> str:
    return f"looking for what {spec.name} waits for"
