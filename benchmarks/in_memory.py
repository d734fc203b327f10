"""The engine on rows that are in memory as Arrow batches against `predict_proba` alone on a matrix in memory.

    .venv/bin/python benchmarks/in_memory.py

`predict_proba` is called for 32,768 rows at a time, with BLAS and OpenMP free to use every processor. The engine turns
columns into matrices, predicts, adds up figures and checksums; "with Parquet" it also encodes the parts.
"""

import contextlib
import statistics
from typing import Any

import _common as common
import numpy as np
import pyarrow as pa

from nightscore.scoring.engine import Engine
from nightscore.scoring.part import PartWriter

GOALS = {"logistic": 0.6, "boosting": 0.85, "histogram": 0.85}
AT_A_TIME = 32_768
BATCH = 65_536


class Nowhere:
    """A file that forgets what is written to it."""

    closed = False

    def write(self, data: bytes) -> int:
        """Forget the bytes."""
        return len(data)

    def flush(self) -> None:
        """Do nothing."""


def alone(estimator: Any, matrix: Any) -> None:
    """Predict a matrix, a piece at a time."""
    for start in range(0, len(matrix), AT_A_TIME):
        estimator.predict_proba(matrix[start : start + AT_A_TIME])


def scored(model: Any, batches: list[pa.RecordBatch]) -> None:
    """Score batches and forget the outcome."""
    engine = Engine([model], keep=["id"], hashes="_key_hash", threshold=0.5)
    with contextlib.closing(engine.scored(batches)) as results:
        for _ in results:
            pass


def encoded(model: Any, batches: list[pa.RecordBatch]) -> None:
    """Score batches and encode the part."""
    engine = Engine([model], keep=["id"], hashes="_key_hash", threshold=0.5)
    constants = common.constants(model.label)
    with (
        PartWriter(Nowhere(), ["id", "score", *constants], constants) as writer,
        contextlib.closing(engine.scored(batches)) as results,
    ):
        for found in results:
            writer.write(found.kept, found.outcomes[0].predictions)


def measured(kind: str, matrix: Any, batches: list[pa.RecordBatch], repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each contestant."""
    model, estimator = common.load_model(kind), common.load_estimator(kind)
    for part in (estimator, *(step for _, step in getattr(estimator, "steps", ()))):
        vars(part).pop("feature_names_in_", None)  # or it would warn of a matrix at every call
    return common.in_turn(
        repeats,
        alone=lambda: alone(estimator, matrix),
        engine=lambda: scored(model, batches),
        with_parquet=lambda: encoded(model, batches),
    )


def main() -> None:
    """Measure both models."""
    asked = common.parse(__doc__ or "", rows=1_000_000)
    rows = pa.Table.from_batches(common.pieces(asked.rows)).drop_columns(["outcome"])
    batches = [batch for piece in rows.to_batches() for batch in _cut(piece)]
    matrix = np.column_stack([rows[name].to_numpy() for name in common.INPUTS])
    for kind, goal in GOALS.items():
        times = measured(kind, matrix, batches, asked.repeats)
        print(f"\n{kind}: {asked.rows:,} rows in memory")
        common.table(
            ["", "million rows/s (median)", "most"],
            [
                (name, round(asked.rows / statistics.median(t) / 1e6, 2), round(asked.rows / min(t) / 1e6, 2))
                for name, t in times.items()
            ],
        )
        speed = common.median_ratio(times["alone"], times["engine"])
        common.ratio(f"{kind}, rows/s of the engine / of predict_proba alone", speed, goal, at_least=True)
        speed = common.median_ratio(times["alone"], times["with_parquet"])
        print(f"       the same with Parquet: {speed:.2f}")


def _cut(piece: pa.RecordBatch) -> list[pa.RecordBatch]:
    return [piece.slice(start, BATCH) for start in range(0, piece.num_rows, BATCH)]


if __name__ == "__main__":
    main()
