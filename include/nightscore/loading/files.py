"""CSV and Parquet files of any size as Arrow batches: what types their columns have, then their rows, block by block.

A CSV file is read twice: once to learn which type holds all of its values, once for the rows. Guessing from the first
block, as is usual, fails on the first 1.5 or `n/a` a gigabyte later.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightscore.errors import ConfigurationError, listed, shorten

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_BYTES = 4 * 2**20  # Arrow reads up to 32 blocks ahead
BATCH_ROWS = 131_072
HEAD_BYTES = 65_536
UNKNOWN = "NULL"  # the kind of a column without a single value

# What a CSV cell may say for NULL. In a column of text only an empty cell is: NA is a country there.
_NULLS = ("", "NULL", "null", "NaN", "nan", "NA", "N/A", "#N/A")
# Tried in this order; a column that none of them holds is text.
_CSV_KINDS = ("BOOL", "INT64", "FLOAT64", "DATE", "TIMESTAMP")

# Arrow takes 1 and 0 for booleans. A number with leading zeros, or with more digits than INT64 holds, names something.
_REFUSED = {"BOOL": r"^\d$", "INT64": r"^[+-]?0\d", "FLOAT64": r"^[+-]?(0\d|\d{19,}$)"}


class FileError(ConfigurationError):
    """A file cannot be loaded: it is missing, empty, damaged or of another format."""


@dataclass(frozen=True)
class Source:
    """A file whose columns are known.

    Attributes:
        path: the file.
        kinds: column → GoogleSQL type that holds all of its values, or `UNKNOWN`.
        size: bytes of the file.
        delimiter: what separates a CSV file's columns; None for Parquet.
    """

    path: Path
    kinds: dict[str, str]
    size: int
    delimiter: str | None


def open_source(file: str | Path, is_text: Callable[[str], bool] = lambda _: False) -> Source:
    """Learn a file's format, columns and types.

    Args:
        file: the path of a CSV file (also compressed) or of a Parquet file.
        is_text: tells of a CSV column that it is text, whatever its values look like.

    Raises:
        FileError: it cannot be loaded.
    """
    path = Path(file)
    if str(file).startswith("gs://"):
        raise FileError(f"{file} is not a local file. Copy it here first: `gcloud storage cp {file} .`")
    if not path.is_file():
        what = "is a folder; name the files in it" if path.is_dir() else "does not exist"
        raise FileError(f"The file {path} {what}.")
    size = path.stat().st_size
    if size == 0:
        raise FileError(f"The file {path} is empty.")
    with path.open("rb") as opened:
        if opened.read(4) == b"PAR1":
            return Source(path, _parquet_kinds(path), size, None)
    if path.suffix.lower() in (".parquet", ".pq"):
        raise FileError(f"The file {path} is not a Parquet file, whatever its name says.")
    delimiter = _delimiter(path)
    return Source(path, _csv_kinds(path, delimiter, is_text), size, delimiter)


def iter_batches(source: Source) -> "Iterator[pa.RecordBatch]":
    """Yield a file's rows; a column has the Arrow type of its kind, and text is still text where the kind is DATE."""
    import pyarrow as pa
    from pyarrow import parquet

    with _readable(source.path):
        if source.delimiter is None:
            with parquet.ParquetFile(source.path) as opened:
                yield from opened.iter_batches(batch_size=BATCH_ROWS)
            return
        for batch in _csv_batches(source.path, source.delimiter):
            columns = [_parse(batch.column(name), kind) for name, kind in source.kinds.items()]
            yield pa.RecordBatch.from_arrays(columns, names=list(source.kinds))


def arrow_type(kind: str) -> "pa.DataType":
    """Return the Arrow type that holds a GoogleSQL type."""
    import pyarrow as pa

    types = {
        "BOOL": pa.bool_(),
        "INT64": pa.int64(),
        "FLOAT64": pa.float64(),
        "NUMERIC": pa.decimal128(38, 9),
        "DATE": pa.date32(),
        "TIMESTAMP": pa.timestamp("us", tz="UTC"),
    }
    return types.get(kind, pa.string())


def kind_of_text(value: str) -> str:
    """Return the GoogleSQL type of a value given as text.

    >>> [kind_of_text(value) for value in ("7", "0.5", "true", "2026-11-19", "007")]
    ['INT64', 'FLOAT64', 'BOOL', 'DATE', 'STRING']
    """
    import pyarrow as pa

    if value == "":
        return UNKNOWN
    return "STRING" if value in _NULLS else next(iter(_viable(pa.array([value]), _CSV_KINDS)), "STRING")


def parse_text(value: str, kind: str) -> "pa.Scalar":
    """Return a value given as text in its GoogleSQL type."""
    import pyarrow as pa

    return _parse(pa.array([value]), kind)[0]


def _parquet_kinds(path: Path) -> dict[str, str]:
    from pyarrow import parquet

    with _readable(path), parquet.ParquetFile(path) as opened:
        if opened.metadata.num_rows == 0:
            raise FileError(f"The file {path} has columns but not a single row.")
        schema = opened.schema_arrow
    kinds = {field.name: _kind_of(field.type) for field in schema}
    if refused := [f"{field.name} ({field.type})" for field in schema if kinds[field.name] is None]:
        raise FileError(f"The file {path} has columns of types that cannot be loaded: {listed(refused)}.")
    _require_distinct(path, schema.names)
    return {name: kind for name, kind in kinds.items() if kind is not None}


def _kind_of(kind: "pa.DataType") -> str | None:
    from pyarrow import types

    if types.is_dictionary(kind):
        return _kind_of(kind.value_type)
    if types.is_decimal(kind):
        return "NUMERIC" if 0 <= kind.scale <= 9 and kind.precision - kind.scale <= 29 else None
    known: tuple[tuple[Any, str], ...] = (
        (types.is_boolean, "BOOL"),
        (types.is_integer, "INT64"),
        (types.is_floating, "FLOAT64"),
        (types.is_string, "STRING"),
        (types.is_large_string, "STRING"),
        (types.is_string_view, "STRING"),
        (types.is_date, "DATE"),
        (types.is_timestamp, "TIMESTAMP"),
        (types.is_null, UNKNOWN),
    )
    return next((name for matches, name in known if matches(kind)), None)


def _csv_kinds(path: Path, delimiter: str, is_text: Callable[[str], bool]) -> dict[str, str]:
    import pyarrow.compute as pc

    viable: dict[str, Sequence[str]] = {}
    filled: set[str] = set()
    rows = 0
    with _readable(path):
        for batch in _csv_batches(path, delimiter):
            rows += batch.num_rows
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                viable[name] = _viable(column, viable.get(name, () if is_text(name) else _CSV_KINDS))
                if name not in filled and (is_text(name) or not pc.all(_blank(column)).as_py()):
                    filled.add(name)
    if rows == 0:
        raise FileError(f"The file {path} has a header but not a single row.")
    return {name: next(iter(left), "STRING") if name in filled else UNKNOWN for name, left in viable.items()}


def _csv_batches(path: Path, delimiter: str) -> "Iterator[pa.RecordBatch]":
    """Yield a CSV file's rows with every cell as text."""
    import pyarrow as pa
    from pyarrow import csv

    parsing = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    reading = csv.ReadOptions(block_size=BLOCK_BYTES)
    with csv.open_csv(str(path), read_options=reading, parse_options=parsing) as opened:
        names = opened.schema.names
    _require_distinct(path, names)
    converting = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
    with csv.open_csv(str(path), reading, parsing, converting) as opened:
        yield from opened


def _viable(column: "pa.Array", kinds: Sequence[str]) -> Sequence[str]:
    """Return which of the kinds hold every value of a text column."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not kinds:
        return kinds
    cells = _cells(column)
    left: list[str] = []
    for kind in kinds:
        if kind == "FLOAT64" and left[-1:] == ["INT64"]:  # every integer is one
            left.append(kind)
            continue
        try:
            cells.cast(_text_type(kind))
        except pa.ArrowInvalid:
            continue
        refused = _REFUSED.get(kind)
        if refused is None or not pc.any(pc.match_substring_regex(cells, refused)).as_py():
            left.append(kind)
    return left


def _parse(column: "pa.Array", kind: str) -> "pa.Array":
    """Return a text column in the Arrow type of its kind."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if kind == UNKNOWN:
        return pa.nulls(len(column), pa.string())
    if kind == "STRING":
        return pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
    return _cells(column).cast(_text_type(kind)).cast(arrow_type(kind))


def _cells(column: "pa.Array") -> "pa.Array":
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.if_else(_blank(column), pa.scalar(None, pa.string()), pc.ascii_trim_whitespace(column))


def _blank(column: "pa.Array") -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.is_in(pc.ascii_trim_whitespace(column), value_set=pa.array([*_NULLS, None], pa.string()))


def _text_type(kind: str) -> "pa.DataType":
    import pyarrow as pa

    # Text without a zone cannot be cast to a type with one; it is read as UTC in a second cast.
    return pa.timestamp("us") if kind == "TIMESTAMP" else arrow_type(kind)


def _delimiter(path: Path) -> str:
    """Return what separates the columns, told from the header."""
    import pyarrow as pa

    with _readable(path), pa.input_stream(str(path), compression="detect") as opened:
        head = opened.read(HEAD_BYTES)
    header = head.split(b"\n")[0]
    if b"\0" in head or not header.strip():
        raise FileError(f"The file {path} is neither a CSV file with a header nor a Parquet file.")
    found = max(b",;\t|", key=header.count)
    return chr(found)


def _require_distinct(path: Path, names: Sequence[str]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise FileError(f"The file {path} has columns that stand there twice: {listed(twice)}.")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what Arrow raises about a file into `FileError`."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        hint = " Save it as UTF-8." if "UTF8" in str(error) else ""
        raise FileError(f"The file {path} cannot be read: {shorten(error, 300)}.{hint}") from error
