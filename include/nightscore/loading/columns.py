"""Which columns a load brings: names and types of the files, made to fit BigQuery and the table that is there."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nightscore.errors import ConfigurationError, listed, near_miss, shorten
from nightscore.loading.files import UNKNOWN, Source, arrow_type, kind_of_text, parse_text
from nightscore.names import IDENTIFIER
from nightscore.warehouse import Column

if TYPE_CHECKING:
    import pyarrow as pa

# Which types a column of a table may have for values of a type of the files.
FITS: Mapping[str, tuple[str, ...]] = {
    "BOOL": ("BOOL",),
    "INT64": ("INT64", "FLOAT64", "NUMERIC", "BIGNUMERIC"),
    "FLOAT64": ("FLOAT64",),
    "NUMERIC": ("NUMERIC", "BIGNUMERIC", "FLOAT64"),
    "STRING": ("STRING",),
    "DATE": ("DATE", "DATETIME", "TIMESTAMP"),
    "TIMESTAMP": ("TIMESTAMP", "DATETIME"),
}
# A new column that holds values of several types.
_COMMON = (
    ({"INT64", "FLOAT64"}, "FLOAT64"),
    ({"INT64", "NUMERIC"}, "NUMERIC"),
    ({"FLOAT64", "NUMERIC"}, "FLOAT64"),
    ({"DATE", "TIMESTAMP"}, "TIMESTAMP"),
)
_DAYS = ("DATE", "TIMESTAMP", "STRING", UNKNOWN)


class LoadError(ConfigurationError):
    """The rows of the files cannot be loaded into the table; it is unchanged."""


@dataclass(frozen=True)
class Incoming:
    """A column of a load.

    Attributes:
        name: its name in the table.
        source: its name in the files; None for a constant.
        staged_type: GoogleSQL type in the staging table.
        type: GoogleSQL type in the table.
        value: the constant, as text.
    """

    name: str
    source: str | None
    staged_type: str
    type: str
    value: str | None = None

    def is_named(self, name: str) -> bool:
        """Tell whether this is its name; BigQuery does not tell A from a."""
        return self.name.lower() == name.lower()


def incoming_columns(
    table: str,
    sources: Sequence[Source],
    held: Sequence[Column] | None,
    *,
    partition: str | None,
    set_values: Mapping[str, str],
    rename: Mapping[str, str],
) -> tuple[Incoming, ...]:
    """Return the columns of a load, in the order of the first file.

    Args:
        table: the table, for messages.
        sources: the files.
        held: the table's columns, or None when it is to be created.
        partition: the column of days.
        set_values: columns with one value for every row.
        rename: column of the files → column of the table.

    Raises:
        LoadError: names every column that does not fit.
    """
    first = sources[0]
    _require_same_columns(sources)
    for name in rename:
        if name not in first.kinds:
            raise LoadError(f"--rename: {first.path} has no column {name!r}. {near_miss(name, list(first.kinds))}")
    found = {rename.get(name, name): name for name in first.kinds}
    _require_valid_names([*(rename.get(name, name) for name in first.kinds), *set_values], rename)
    kinds = {name: _common_kind(source, sources) for name, source in found.items()}
    texts = {column.name.lower() for column in held or () if column.type == "STRING"}
    kinds |= {name: "STRING" if name.lower() in texts else kind_of_text(v) for name, v in set_values.items()}
    if partition is not None:
        day = next((name for name in kinds if name.lower() == partition.lower()), None)
        if day is None:
            raise LoadError(
                f"--partition: the files have no column {partition!r}. {near_miss(partition, list(kinds))} "
                f"`--set {partition}=2026-11-19` gives every row the same day."
            )
        if kinds[day] not in _DAYS:
            raise LoadError(f"--partition: the column {day!r} is {kinds[day]}; days are written like 2026-11-19.")
        kinds[day] = "DATE"
    columns = [_incoming(name, found.get(name), kind, set_values.get(name)) for name, kind in kinds.items()]
    return tuple(_fitted(table, columns, held) if held is not None else map(_created, columns))


def shape(path: Path, batch: "pa.RecordBatch", columns: Sequence[Incoming]) -> "pa.RecordBatch":
    """Return a batch of a file as it is staged.

    Raises:
        LoadError: a value cannot be of its column's type.
    """
    import pyarrow as pa

    arrays = []
    for column in columns:
        wanted = arrow_type(column.staged_type)
        if column.source is None:
            arrays.append(pa.repeat(parse_text(str(column.value), column.staged_type), batch.num_rows))
            continue
        try:
            arrays.append(_cast(batch.column(column.source), wanted))
        except pa.ArrowInvalid as error:
            raise LoadError(
                f"{path}: the column {column.source!r} cannot be {column.staged_type}: {shorten(error)}."
            ) from error
    return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in columns])


def _cast(array: "pa.Array", wanted: "pa.DataType") -> "pa.Array":
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import types

    if types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if types.is_timestamp(wanted):
        # Nanoseconds are more than BigQuery keeps; a time without a zone is taken as UTC.
        return pc.cast(array, options=pc.CastOptions(wanted, allow_time_truncate=True))
    if types.is_date32(wanted) and types.is_timestamp(array.type):
        days = pc.cast(array, pa.date32(), safe=False)
        if not pc.all(pc.equal(days.cast(array.type), array)).as_py() and array.null_count < len(array):
            raise pa.ArrowInvalid("some of its times are not midnight (UTC)")
        return days
    return pc.cast(array, wanted)


def _incoming(name: str, source: str | None, kind: str, value: str | None) -> Incoming:
    staged = "STRING" if kind == UNKNOWN else kind
    return Incoming(name, source, staged, kind, value)


def _created(column: Incoming) -> Incoming:
    return dataclasses.replace(column, type=column.staged_type)


def _require_same_columns(sources: Sequence[Source]) -> None:
    first = sources[0]
    for other in sources[1:]:
        missing = [name for name in first.kinds if name not in other.kinds]
        extra = [name for name in other.kinds if name not in first.kinds]
        if missing or extra:
            parts = [f"it lacks {listed(missing)}"] if missing else []
            parts += [f"it also has {listed(extra)}"] if extra else []
            raise LoadError(f"{other.path} has other columns than {first.path}: {' and '.join(parts)}.")


def _require_valid_names(names: Sequence[str], rename: Mapping[str, str]) -> None:
    if bad := [name for name in names if not re.fullmatch(IDENTIFIER, name)]:
        origin = {new: old for old, new in rename.items()}
        hints = " ".join(f"--rename '{origin.get(name, name)}={_suggested(name)}'" for name in bad[:6])
        raise LoadError(
            f"BigQuery takes letters, digits and _ in a column's name, beginning with a letter or _. These are not "
            f"such names: {listed(repr(name) for name in bad)}. Add: {hints}"
        )
    lower = [name.lower() for name in names]
    if twice := sorted({name for name in lower if lower.count(name) > 1}):
        raise LoadError(f"Several columns would have the same name: {listed(twice)}. Use --rename or drop one --set.")


def _suggested(name: str) -> str:
    """Return a name like this one that BigQuery takes.

    >>> _suggested("default.payment.next.month"), _suggested("30 days")
    ('default_payment_next_month', '_30_days')
    """
    cleaned = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_") or "column"
    return f"_{cleaned}" if cleaned[0].isdigit() else cleaned


def _common_kind(name: str, sources: Sequence[Source]) -> str:
    """Return the type that holds a column's values of all files."""
    kinds: dict[str, Source] = {}
    for source in sources:
        kinds.setdefault(source.kinds[name], source)
    known = set(kinds) - {UNKNOWN}
    if len(known) < 2:
        return next(iter(known), UNKNOWN)
    for group, common in _COMMON:
        if known == group:
            return common
    (kind, source), (other_kind, other) = [item for item in kinds.items() if item[0] != UNKNOWN][:2]
    raise LoadError(f"The column {name!r} is {kind} in {source.path} and {other_kind} in {other.path}.")


def _fitted(table: str, columns: Sequence[Incoming], held: Sequence[Column]) -> list[Incoming]:
    """Return the columns with the names and types of the table.

    Raises:
        LoadError: with a sentence for every column that does not fit.
    """
    there = {column.name.lower(): column for column in held}
    brought = {column.name.lower() for column in columns}
    fitted, faults = [], []
    missing = [column.name for column in held if column.name.lower() not in brought]
    extra = [column.name for column in columns if column.name.lower() not in there]
    faults += [f"{name}: the table has it and the files do not. {near_miss(name, extra)}" for name in missing]
    faults += [f"{name}: the files have it and the table does not. {near_miss(name, missing)}" for name in extra]
    for column in columns:
        target = there.get(column.name.lower())
        if target is None:
            continue
        if column.type != UNKNOWN and (target.type not in FITS[column.type] or target.mode == "REPEATED"):
            kind = f"ARRAY<{target.type}>" if target.mode == "REPEATED" else target.type
            faults.append(f"{column.name}: {column.type} in the files and {kind} in the table.")
        fitted.append(dataclasses.replace(column, name=target.name, type=target.type))
    if faults:
        shown = "\n".join(f"  - {fault}" for fault in faults[:12])
        more = f"\n  … and {len(faults) - 12} more" if len(faults) > 12 else ""
        raise LoadError(f"The files do not fit the table {table}; nothing was loaded.\n{shown}{more}")
    return fitted
