"""What two challengers cost beside a champion: the engine with three models against the models' own prediction times.

    .venv/bin/python benchmarks/challengers.py

The rows are in memory as Arrow batches. A model's own time is that of `predict_proba` alone, on matrices in memory, by
as many threads as there are processors, each of which computes in one.
"""

import contextlib
import statistics
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import _common as common
import pyarrow as pa
from threadpoolctl import threadpool_limits

from nightscore.scoring.engine import Engine, chunks

KINDS = ("logistic", "boosting", "logistic")


def predicted(models: list[Any], matrices: list[Any]) -> None:
    """Predict matrices with each model, by as many threads as there are processors."""
    limits = {"limits": 1}
    with (
        threadpool_limits(limits=1, user_api="blas"),
        ThreadPoolExecutor(common.usable_cpus(), initializer=lambda: threadpool_limits(**limits)) as pool,
    ):
        for model in models:
            list(pool.map(model.predict_decoded, matrices))


def scored(models: list[Any], batches: list[pa.RecordBatch]) -> None:
    """Score batches with all models in one pass."""
    engine = Engine(models, keep=["id"], hashes="_key_hash", threshold=0.5)
    with contextlib.closing(engine.scored(batches)) as results:
        for _ in results:
            pass


def main() -> None:
    """Measure the champion alone, and with its challengers."""
    asked = common.parse(__doc__ or "", rows=1_000_000)
    models = [common.load_model(kind, number) for number, kind in enumerate(KINDS, start=1)]
    batches = [piece.drop_columns(["outcome"]) for piece in common.pieces(asked.rows)]
    matrices = [models[0].decode(chunk) for chunk in chunks(batches)]
    times = common.in_turn(
        asked.repeats,
        champion=lambda: scored(models[:1], batches),
        three=lambda: scored(models, batches),
        predictions=lambda: predicted(models[1:], matrices),
    )
    print(f"\n{asked.rows:,} rows in memory, {KINDS[0]} as champion, {KINDS[1]} and {KINDS[2]} as challengers")
    names = {
        "champion": "the engine with the champion",
        "three": "the engine with all three",
        "predictions": "predict_proba of the two challengers",
    }
    common.table(["", "seconds (median)"], [(names[n], round(statistics.median(t), 3)) for n, t in times.items()])
    cost = [three - one for three, one in zip(times["three"], times["champion"], strict=True)]
    common.ratio(
        "cost of the challengers / their own prediction times", common.median_ratio(cost, times["predictions"]), 1.1
    )


if __name__ == "__main__":
    main()
