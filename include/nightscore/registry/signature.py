"""Signatures: which columns a model reads, told from a sample, and turning Arrow batches into what it was fitted on."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nightscore.errors import ConfigurationError, listed, near_miss, shorten
from nightscore.registry.manifest import Input, InputType, MissingText

if TYPE_CHECKING:
    import pyarrow as pa

Shape = Literal["frame", "matrix"]

NUMBERS: frozenset[InputType] = frozenset({"double", "float", "int64"})

# Which GoogleSQL types may feed an input of which type. NUMERIC and INT64 become the nearest double, as by `float()`.
FEEDS: Mapping[str, tuple[str, ...]] = {
    "int64": ("INT64",),
    "double": ("FLOAT64", "INT64", "NUMERIC", "BIGNUMERIC"),
    "float": ("FLOAT64", "INT64", "NUMERIC", "BIGNUMERIC"),
    "bool": ("BOOL",),
    "string": ("STRING",),
    "category<string>": ("STRING",),
    "category<int64>": ("INT64",),
}


class SampleError(ConfigurationError):
    """The sample cannot be read, or does not fit the estimator."""


class SignatureError(ConfigurationError):
    """The columns at hand are not those that the model reads; holds a sentence for each."""

    def __init__(self, model: str, source: str, faults: Sequence[str]) -> None:
        shown = "\n".join(f"  - {fault}" for fault in faults[:12])
        more = f"\n  … and {len(faults) - 12} more" if len(faults) > 12 else ""
        super().__init__(f"The model {model} cannot read the columns of {source}:\n{shown}{more}")
        self.faults = tuple(faults)


def read_sample(path: Path) -> "pa.Table":
    """Read a Parquet or CSV file of input rows.

    Raises:
        SampleError: it is neither, or holds no row.
    """
    import pyarrow as pa
    from pyarrow import csv, parquet

    if not path.is_file():
        raise SampleError(f"There is no sample file {path}.")
    try:
        table = csv.read_csv(path) if path.suffix.lower() == ".csv" else parquet.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise SampleError(f"The sample {path} is not a readable Parquet or CSV file: {shorten(error)}") from error
    if table.num_rows == 0:
        raise SampleError(f"The sample {path} holds no row.")
    return table


def select_inputs(sample: "pa.Table", names: Sequence[str] | None, count: int | None) -> "pa.Table":
    """Return the sample's columns that the estimator reads, in its order.

    Args:
        sample: the rows.
        names: the estimator's `feature_names_in_`, when it was fitted with names.
        count: its `n_features_in_` otherwise.

    Raises:
        SampleError: a column is missing, or their number differs.
    """
    if names is not None:
        missing = [name for name in names if name not in sample.column_names]
        if missing:
            near = near_miss(missing[0], sample.column_names)
            raise SampleError(f"The sample lacks columns that the estimator was fitted on: {listed(missing)}. {near}")
        return sample.select(list(names))
    if count is not None and count != sample.num_columns:
        raise SampleError(
            f"The estimator was fitted on {count} unnamed columns and the sample has {sample.num_columns}: "
            f"{listed(sample.column_names, most=12)}. Fit it on a DataFrame, or give a sample of just its columns."
        )
    return sample


def input_type(name: str, arrow_type: "pa.DataType") -> InputType:
    """Return the signature's type for an Arrow type.

    Raises:
        SampleError: no model input can have it.
    """
    from pyarrow import types

    if types.is_dictionary(arrow_type):
        if types.is_integer(arrow_type.value_type):
            return "category<int64>"
        if types.is_string(arrow_type.value_type) or types.is_large_string(arrow_type.value_type):
            return "category<string>"
    kinds: tuple[tuple[Any, InputType], ...] = (
        (types.is_integer, "int64"),
        (types.is_float32, "float"),
        (types.is_floating, "double"),
        (types.is_decimal, "double"),
        (types.is_boolean, "bool"),
        (types.is_string, "string"),
        (types.is_large_string, "string"),
    )
    for matches, kind in kinds:
        if matches(arrow_type):
            return kind
    raise SampleError(
        f"The sample's column {name!r} has the type {arrow_type}; a model's input is a number, a boolean, text or a "
        "category. Derive such a column from it in the feature table."
    )


def decode(
    batch: "pa.RecordBatch | pa.Table", inputs: Sequence[Input], *, shape: Shape, missing_text: MissingText = "nan"
) -> Any:
    """Return a batch as the estimator takes it: a DataFrame with its names, or a float64 matrix (rows, inputs).

    The batch holds the columns of `inputs` in any order and case. An integer column without NULLs stays int64, with
    NULLs it is float64 with NaN, exactly as pandas reads Parquet. A NULL among text or booleans becomes NaN or None:
    to an encoder that has learnt the one as a category, the other is unknown, and the prediction silently another.

    In a matrix, a NULL is NaN. It is read-only, because models may share it, and in column order: copying whole columns
    is three times as fast as spreading them over rows, and no estimator was found to predict slower from it.
    """
    by_name = {name.lower(): index for index, name in enumerate(batch.schema.names)}
    columns = [batch.column(by_name[item.name.lower()]) for item in inputs]
    if shape == "frame":
        return _frame(columns, inputs, missing_text)
    if all(item.type in NUMBERS or item.type == "bool" for item in inputs):
        return _matrix(columns, inputs, batch.num_rows)
    return _frame(columns, inputs, missing_text).to_numpy(dtype="float64")


def _matrix(columns: Sequence[Any], inputs: Sequence[Input], rows: int) -> Any:
    import numpy as np
    import pyarrow as pa

    matrix = np.empty((len(inputs), rows))
    for target, column, item in zip(matrix, columns, inputs, strict=True):
        start = 0
        for piece in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
            numbers = _cast(piece, item.type)
            if item.type == "bool":  # as numbers, NULL becomes NaN and not None
                numbers = numbers.cast(pa.uint8())
            target[start : start + len(piece)] = numbers.to_numpy(zero_copy_only=False)
            start += len(piece)
    matrix.flags.writeable = False
    return matrix.T


def _frame(columns: Sequence[Any], inputs: Sequence[Input], missing_text: MissingText) -> Any:
    import pyarrow as pa

    table = pa.table(
        [_cast(column, item.type) for column, item in zip(columns, inputs, strict=True)],
        names=[item.name for item in inputs],
    )
    frame = table.to_pandas(split_blocks=True)
    for item, column in zip(inputs, table.columns, strict=True):
        if item.type.startswith("category"):
            frame[item.name] = frame[item.name].astype("category")
        elif item.type in ("string", "bool") and column.null_count:
            frame[item.name] = _with_missing(column, missing_text)
    return frame


def _cast(column: Any, kind: InputType) -> Any:
    import pyarrow as pa

    wanted = _arrow_type(kind)
    if column.type == wanted:
        return column
    if pa.types.is_decimal(column.type):
        # Arrow's own cast is off by one bit for a third of all amounts of money; by way of text it is rounded right.
        column = column.cast(pa.string())
    # Integers beyond 2^53 are rounded to a float, as NumPy does; Arrow would refuse them.
    return column.cast(wanted, safe=not pa.types.is_integer(column.type))


def _with_missing(column: "pa.ChunkedArray", missing_text: MissingText) -> Any:
    import pandas as pd

    series = pd.Series(column.to_numpy(), dtype=object)  # NULL is None here
    if missing_text == "none":
        return series
    filled = series.where(series.notna(), float("nan"))
    return filled.astype("str") if column.type == "string" else filled


def faults(inputs: Sequence[Input], columns: Mapping[str, str]) -> list[str]:
    """Return a sentence for every input that the columns (name → GoogleSQL type) cannot feed."""
    by_name = {name.lower(): (name, kind) for name, kind in columns.items()}
    found: list[str] = []
    for item in inputs:
        if item.name.lower() not in by_name:
            found.append(f"{item.name}: missing. {near_miss(item.name, list(columns))}")
            continue
        name, kind = by_name[item.name.lower()]
        if kind not in FEEDS[item.type]:
            allowed = " or ".join(FEEDS[item.type])
            found.append(f"{name}: is {kind}, and the model was fitted on {item.type}, which {allowed} can feed.")
    return found


@functools.cache
def _arrow_type(kind: InputType) -> "pa.DataType":
    import pyarrow as pa

    return {
        "int64": pa.int64(),
        "double": pa.float64(),
        "float": pa.float32(),
        "bool": pa.bool_(),
        "string": pa.string(),
        "category<string>": pa.string(),
        "category<int64>": pa.int64(),
    }[kind]
