"""A part: the Parquet file of what one model predicted, written while it is scored."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import pyarrow as pa

ROW_GROUP_ROWS = 131_072  # keys and predictions of so many rows are held until they are encoded

# Numbers predicted hardly ever repeat and do not compress; to try it takes longer than to write them.
_LABEL, _PROBABILITY = "probabilities.list.element.label", "probabilities.list.element.probability"
_UNCOMPRESSED = ("score", _PROBABILITY)


class PartWriter:
    """Writes keys, predictions and constants as Parquet; a context manager."""

    def __init__(self, sink: Any, names: Sequence[str], constants: "Mapping[str, pa.Scalar]") -> None:
        """Set the writer up; before the first rows, nothing is written.

        Args:
            sink: a path, or a file-like object to write to.
            names: the columns in their order, each a key, one of the predictions, or a constant.
            constants: name → the value that every row has.
        """
        import pyarrow as pa

        self._sink = sink
        self._names = list(names)
        self._constants = {name: pa.array([value.as_py()], value.type) for name, value in constants.items()}
        self._held: list[pa.Table] = []
        self._held_rows = 0
        self._writer: Any = None

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is held and the end of the file.

        After an exception the sink must be thrown away: Arrow's writer, when it is collected, makes a readable file of
        the rows that it has got.
        """
        if kind is None:
            self._flush()
            if self._writer is not None:
                self._writer.close()

    def write(self, keys: "pa.Table", predictions: "pa.Table") -> None:
        """Write rows: their keys, and what `score` returned for them."""
        import pyarrow as pa

        self._held.append(
            pa.table([*keys.columns, *predictions.columns], names=[*keys.column_names, *predictions.column_names])
        )
        self._held_rows += predictions.num_rows
        if self._held_rows >= ROW_GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._held_rows:
            return
        rows = pa.concat_tables(self._held)
        self._held, self._held_rows = [], 0
        columns = [
            _repeated(self._constants[name], rows.num_rows) if name in self._constants else rows.column(name)
            for name in self._names
        ]
        table = pa.table(columns, names=self._names)
        self._writer = self._writer or self._open(table.schema)
        self._writer.write_table(table, row_group_size=table.num_rows)

    def _open(self, schema: "pa.Schema") -> Any:
        import pyarrow as pa
        from pyarrow import parquet

        paths = [path for field in schema for path in _paths(field)]
        labels = [field.name for field in schema if field.name == "prediction" and pa.types.is_string(field.type)]
        return parquet.ParquetWriter(
            self._sink,
            schema,
            compression={path: "NONE" if path in _UNCOMPRESSED else "SNAPPY" for path in paths},
            use_dictionary=[*self._constants, *labels, *(path for path in paths if path == _LABEL)],
            write_statistics=False,  # a load job reads every row
            store_schema=False,  # it would tell Arrow's readers that the constants are categories
        )


def _repeated(value: "pa.Array", rows: int) -> "pa.DictionaryArray":
    """Return an array of one value again and again, which takes a byte a row, and next to nothing in Parquet."""
    import numpy as np
    import pyarrow as pa

    return pa.DictionaryArray.from_arrays(np.zeros(rows, dtype=np.int8), value)


def _paths(field: "pa.Field") -> list[str]:
    return [_LABEL, _PROBABILITY] if field.name == "probabilities" else [field.name]
