"""Every benchmark runs with a few rows and prints its ratios; how fast it is, is not judged here."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
RATIO = re.compile(r"^ratio  (.+): -?\d+\.\d\d  \(goal [≤≥] [\d.]+: (?:met|missed)\)$", re.MULTILINE)

BENCHMARKS: dict[str, tuple[list[str], list[str]]] = {
    "engine": (
        ["--rows", "3000", "--repeats", "1"],
        [
            "logistic, engine / pandas",
            "logistic, engine's peak memory / 1 GB",
            "boosting, engine / pandas",
            "boosting, engine's peak memory / 1 GB",
        ],
    ),
    "in_memory": (
        ["--rows", "3000", "--repeats", "1"],
        [
            "logistic, rows/s of the engine / of predict_proba alone",
            "boosting, rows/s of the engine / of predict_proba alone",
        ],
    ),
    "memory": (
        ["--rows", "3000", "--times", "2", "--repeats", "1"],
        [
            "logistic, peak memory of 2 times the rows / of the rows once",
            "boosting, peak memory of 2 times the rows / of the rows once",
        ],
    ),
    "challengers": (
        ["--rows", "3000", "--repeats", "1"],
        ["cost of the challengers / their own prediction times"],
    ),
    "gates": (
        ["--rows", "3000", "--repeats", "1"],
        ["seconds of the gate / of pandas", "peak memory of the gate / of pandas"],
    ),
    "orchestration": (
        ["--rows", "8000", "--repeats", "1", "--wait", "15"],
        [
            "beyond the work, tuned / defaults",
            "beyond the work, tuned / 12 s",
            "one worker / two",
        ],
    ),
    "parsing": (
        ["--pipelines", "3", "--repeats", "1"],
        [
            "parse and serialise / dag-factory, processor seconds",
            "a task's process beyond Airflow / 0.3 s, processor seconds",
        ],
    ),
    "shard": (
        ["--rows", "3000", "--repeats", "1"],
        ["logistic, scoring the shard / draining it"],
    ),
}


def test_every_benchmark_of_the_engine_is_here() -> None:
    scripts = {
        path.stem for path in FOLDER.glob("*.py") if not path.name.startswith("_") and "_common" in path.read_text()
    }
    assert scripts == set(BENCHMARKS)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == "shard" else pytest.mark.thorough) for name in BENCHMARKS],
)
def test_a_benchmark_prints_its_ratios(name: str, bigquery_environment_path: Path) -> None:
    assert bigquery_environment_path.name == "bigquery-env"  # which the benchmark's own servers need
    arguments, ratios = BENCHMARKS[name]
    command = [sys.executable, str(FOLDER / f"{name}.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert RATIO.findall(done.stdout) == ratios
