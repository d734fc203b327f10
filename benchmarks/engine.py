"""The engine over a Parquet file against a pandas script and Spark: whole processes, the same file, the same models.

    .venv/bin/python benchmarks/engine.py
    .venv/bin/python benchmarks/engine.py --spark

The processes run in turn, once uncounted, and the ratio is the median of their pairs' ratios. A process's memory is its
peak resident size, as the operating system accounts for it. Spark needs Java; uv installs it into an environment of its
own, once.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import _common as common
import pyarrow.compute as pc
from pyarrow import parquet

HERE = Path(__file__).parent
KINDS = ("logistic", "boosting")
SPARK = "pyspark>=4,<5"


def commands(kind: str, rows: int, folder: Path, *, spark: bool) -> dict[str, list[str]]:
    """Return the command of each contestant."""
    source, model = str(common.features(rows)), str(common.artifact(kind))
    found = {
        "engine": [sys.executable, str(HERE / "_engine_script.py"), kind, str(folder / "engine.parquet"), source],
        "pandas": [sys.executable, str(HERE / "_pandas_script.py"), source, model, str(folder / "pandas.parquet")],
    }
    if spark:
        script, cpus = str(HERE / "_spark_script.py"), str(common.usable_cpus())
        found["spark"] = [str(spark_environment()), script, source, model, str(folder / "spark.parquet"), cpus]
    return found


def spark_environment() -> Path:
    """Return the Python of an environment with Spark; it is kept for the next time."""
    environment = common.FOLDER / "spark-env"
    python = environment / "bin/python"
    if not (environment / "complete").exists():
        common.say(f"installing Spark into {environment}")
        uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        if uv is None:
            sys.exit("Spark is installed by uv, and there is none.")
        same = [f"{name}=={version(name)}" for name in ("scikit-learn", "skops", "numpy", "pyarrow")]
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, environment], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", python, SPARK, "pandas<3", *same], check=True)
        (environment / "complete").touch()
    return python


def require_same(folder: Path, others: Sequence[str]) -> None:
    """Stop unless every contestant wrote the same scores."""
    sums = {}
    for name in others:
        scored = parquet.read_table(folder / f"{name}.parquet", columns=["id", "score"])
        order = pc.sort_indices(scored["id"])
        sums[name] = pc.take(scored["score"], order).to_numpy()
    for name in others[1:]:
        if not abs(sums[name] - sums[others[0]]).max() <= 1e-12:
            sys.exit(f"{name} and {others[0]} predicted different scores.")


def main() -> None:
    """Measure both models."""
    flag = {"action": "store_true", "help": "run Spark, too"}
    asked = common.parse(__doc__ or "", rows=4_000_000, repeats=3, spark=flag)
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            contestants = commands(kind, asked.rows, folder, spark=asked.spark)
            found: dict[str, list[tuple[float, int]]] = {name: [] for name in contestants}
            for command in contestants.values():  # once uncounted: files come into the system's cache
                common.measured(command)
            for repeat in range(asked.repeats):
                for contestant, command in contestants.items():
                    found[contestant].append(common.measured(command)[:2])
                    time_taken, peak = found[contestant][-1]
                    common.say(f"{kind}, {repeat + 1} of {asked.repeats}: {contestant} {time_taken:.1f} s, {peak:,} B")
            require_same(folder, list(contestants))
        times = {name: [time_taken for time_taken, _ in runs] for name, runs in found.items()}
        peaks = {name: round(max(peak for _, peak in runs) / 1e9, 2) for name, runs in found.items()}
        print(f"\n{kind}: {asked.rows:,} rows, {len(common.INPUTS)} doubles, Parquet in, Parquet out, whole process")
        common.table(
            ["", "seconds (median)", "least", "peak GB"],
            [
                # Spark's memory is that of processes that the operating system does not add up.
                (name, round(statistics.median(t), 2), round(min(t), 2), "" if name == "spark" else peaks[name])
                for name, t in times.items()
            ],
        )
        common.ratio(f"{kind}, engine / pandas", common.median_ratio(times["engine"], times["pandas"]), 0.75)
        if asked.spark:
            common.ratio(f"{kind}, engine / Spark", common.median_ratio(times["engine"], times["spark"]), 0.4)
        common.ratio(f"{kind}, engine's peak memory / 1 GB", peaks["engine"], 1)


if __name__ == "__main__":
    main()
