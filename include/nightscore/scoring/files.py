"""Scoring Parquet files into a Parquet file, with the engine that shards are scored with and no cloud."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightscore.registry.model import Model
from nightscore.scoring.engine import Engine
from nightscore.scoring.part import PartWriter
from nightscore.scoring.score import combine

if TYPE_CHECKING:
    import pyarrow as pa

READ_ROWS = 65_536
READ_BYTES = 2**20  # of each column at a time, where the columns of a whole row group would be read


def score_file(
    model: Model,
    sources: Sequence[Path],
    target: Path,
    *,
    keys: Sequence[str] = (),
    constants: "Mapping[str, pa.Scalar] | None" = None,
    threshold: float | None = None,
) -> dict[str, Any]:
    """Score the rows of Parquet files, in their order, into a new Parquet file; return the figures of `summarise`.

    Args:
        model: a loaded version.
        sources: Parquet files that hold the model's inputs and the keys.
        target: the file to write: keys, the columns of `score`, constants. It appears when it is whole; there is none
            when there is no row.
        keys: columns that are copied.
        constants: name → a value that every row gets.
        threshold: from this score on a row counts as flagged.

    Raises:
        NonFiniteError: the model predicted NaN or infinity.
    """
    predicted = {"binary": ["score"], "regression": ["prediction"]}.get(model.task, ["prediction", "probabilities"])
    constants = constants or {}
    engine = Engine([model], keep=keys, threshold=threshold)
    columns = list(dict.fromkeys([*keys, *(item.name for item in model.manifest.inputs)]))
    unfinished = target.with_name(f"{target.name}.unfinished")
    figures: dict[str, Any] = {}
    try:
        with (
            unfinished.open("wb") as file,
            PartWriter(file, [*keys, *predicted, *constants], constants) as writer,
            contextlib.closing(engine.scored(_iter_batches(sources, columns))) as results,
        ):
            for scored in results:
                [outcome] = scored.outcomes
                if isinstance(outcome, Exception):  # the only model there is would have raised it
                    raise outcome
                writer.write(scored.kept, outcome.predictions)
                figures = combine([figures, outcome.figures])
        if figures:
            unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return figures


def _iter_batches(sources: Sequence[Path], columns: Sequence[str]) -> "Iterator[pa.RecordBatch]":
    from pyarrow import parquet

    for path in sources:
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=READ_BYTES) as file:
            yield from file.iter_batches(batch_size=READ_ROWS, columns=list(columns))
