"""What the benchmarks share: made-up features, two models fitted on them, repeats, and how a figure is printed."""

import argparse
import datetime as dt
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet
from skops import io as skops_io

from nightscore.registry.formats import sklearn_skops
from nightscore.registry.libraries import require_installed
from nightscore.registry.manifest import File, Input, Manifest, digest
from nightscore.registry.model import Model
from nightscore.scoring.engine import usable_cpus

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".nightscore/benchmarks"
KINDS = ("logistic", "boosting", "histogram")
INPUTS = [f"f{number:02d}" for number in range(23)]
PIECE = 250_000
FITTED_ROWS = 50_000
DAY = dt.date(2026, 11, 19)


def parse(doc: str, *, rows: int, repeats: int = 5, **further: dict[str, Any]) -> argparse.Namespace:
    """Return the command line's arguments: `--rows`, `--repeats`, and those of the benchmark's own."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=rows)
    parser.add_argument("--repeats", type=int, default=repeats)
    for name, options in further.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **options)
    found = parser.parse_args()
    libraries = ", ".join(f"{name} {version(name)}" for name in ("numpy", "pyarrow", "pandas", "scikit-learn"))
    print(f"{processor()}, {usable_cpus()} processors; Python {platform.python_version()}, {libraries}")
    return found


def processor() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def say(text: str) -> None:
    """Show progress."""
    print(f"  {text}", file=sys.stderr, flush=True)


def pieces(rows: int) -> Iterator[pa.RecordBatch]:
    """Yield made-up rows: `id`, 23 doubles without NULL, `_key_hash` and `outcome`; the same every time."""
    for start in range(0, rows, PIECE):
        count = min(PIECE, rows - start)
        rng = np.random.default_rng([7, start])
        values = rng.normal(size=(len(INPUTS), count))
        signal = values[0] + 0.7 * values[1] * values[2] + np.abs(values[3]) + rng.normal(size=count)
        columns = {
            "id": np.arange(start, start + count),
            **{name: values[number] for number, name in enumerate(INPUTS)},
            "_key_hash": rng.integers(0, 2**60, count),
            "outcome": (signal > 1.5).astype(np.int64),
        }
        yield pa.record_batch(columns)


def features(rows: int) -> Path:
    """Return a Parquet file of made-up rows; it is kept for the next time."""
    path = FOLDER / f"features-{rows}.parquet"
    if not path.exists():
        say(f"writing {rows:,} rows to {path}")
        FOLDER.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        writer: Any = None
        for piece in pieces(rows):
            writer = writer or parquet.ParquetWriter(unfinished, piece.schema)
            writer.write_batch(piece)
        writer.close()
        unfinished.rename(path)
    return path


def artifact(kind: str) -> Path:
    """Return the skops file of a fitted model, one of `KINDS`; it is kept for the next time."""
    path = FOLDER / f"{kind}.skops"
    if not path.exists():
        say(f"fitting the model: {kind}")
        FOLDER.mkdir(parents=True, exist_ok=True)
        frame = next(pieces(FITTED_ROWS)).to_pandas()
        unfinished = path.with_suffix(f".{os.getpid()}")
        skops_io.dump(_estimator(kind).fit(frame[INPUTS], frame["outcome"]), unfinished)
        unfinished.rename(path)
    return path


def _estimator(kind: str) -> Any:
    from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if kind == "logistic":
        return make_pipeline(StandardScaler(), LogisticRegression())
    if kind == "boosting":  # 100 trees of depth 3
        return GradientBoostingClassifier(random_state=0)
    return HistGradientBoostingClassifier(max_iter=100, early_stopping=False, random_state=0)


def load_estimator(kind: str) -> Any:
    """Return the estimator as whoever fitted it has it."""
    data = artifact(kind).read_bytes()
    sklearn_skops.audit(kind, sklearn_skops.describe(kind, data))
    return sklearn_skops.construct(kind, data)


def load_model(kind: str, number: int = 1) -> Model:
    """Return the model as the registry loads it."""
    data = artifact(kind).read_bytes()
    fitted = sklearn_skops.fitted(kind, load_estimator(kind))
    manifest = Manifest(
        name=kind,
        version=number,
        format="sklearn-skops",
        estimator=fitted.kind,
        task="binary",
        classes=("0", "1"),
        named_inputs=True,
        inputs=tuple(Input(name=name, type="double", nullable=False) for name in INPUTS),
        files={sklearn_skops.FILE: File(sha256=digest(data), size=len(data))},
        libraries=require_installed(kind, sklearn_skops.LIBRARIES, sklearn_skops.EXTRA),
        sample_rows=FITTED_ROWS,
        created_at="2026-11-19T00:00:00+00:00",
        created_by="benchmark",
    )
    return Model(manifest, digest(data), fitted, fitted.prepare(manifest.inputs, named=True))


def constants(label: str) -> dict[str, pa.Scalar]:
    """Return the columns that are the same in every row of a part."""
    return {
        "snapshot_date": pa.scalar(DAY, pa.date32()),
        "model_version": pa.scalar(label),
        "run_id": pa.scalar(f"{DAY}-00000000"),
        "scored_at": pa.scalar(dt.datetime(2026, 11, 20, tzinfo=dt.UTC), pa.timestamp("us", "UTC")),
    }


def seconds(function: Callable[[], object]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def measured(command: Sequence[str], variables: Mapping[str, str] | None = None) -> tuple[float, int, bytes]:
    """Run a process, which must not fail; return its seconds, its peak memory in bytes, and its output."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, env={**os.environ, **(variables or {})}, stdout=subprocess.PIPE, stderr=errors
        )
        output = process.stdout.read() if process.stdout else b""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        taken = time.perf_counter() - began
        if process.returncode:
            errors.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{errors.read().decode()[-2000:]}")
    size = usage.ru_maxrss if sys.platform == "darwin" else usage.ru_maxrss * 1024
    return taken, size, output


def in_turn(repeats: int, **functions: Callable[[], object]) -> dict[str, list[float]]:
    """Return the seconds of calls made in turn, A B A B …, after one of each that does not count."""
    for function in functions.values():
        function()
    found: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(repeats):
        for name, function in functions.items():
            found[name].append(seconds(function))
        say(f"repeat {repeat + 1} of {repeats}: " + ", ".join(f"{n} {t[-1]:.2f} s" for n, t in found.items()))
    return found


def median_ratio(these: Sequence[float], those: Sequence[float]) -> float:
    """Return the median of the ratios of neighbours: a drift of the machine's speed meets both."""
    return statistics.median(a / b for a, b in zip(these, those, strict=True))


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table."""
    import pandas as pd  # here, so that the processes that are measured do without it

    frame = pd.DataFrame(rows, columns=list(columns))
    print(frame.to_string(index=False))


def ratio(what: str, value: float, goal: float | None = None, *, at_least: bool = False) -> None:
    """Print a ratio, beside its goal where it has one."""
    if goal is None:
        print(f"ratio  {what}: {value:.2f}")
        return
    met = value >= goal if at_least else value <= goal
    print(f"ratio  {what}: {value:.2f}  (goal {'≥' if at_least else '≤'} {goal}: {'met' if met else 'missed'})")
