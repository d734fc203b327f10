"""Peak memory of scoring many rows against few: the engine over a Parquet file, once and again and again.

    .venv/bin/python benchmarks/memory.py

Each process scores the same file of 1,000,000 rows, `--times` 1 and 16 times over, into one Parquet file. A process's
memory is its peak resident size, as the operating system accounts for it.
"""

import statistics
import sys
import tempfile
from pathlib import Path

import _common as common
from engine import HERE, KINDS, measured


def main() -> None:
    """Measure both models."""
    asked = common.parse(__doc__ or "", rows=1_000_000, repeats=3, times={"type": int, "default": 16})
    source = str(common.features(asked.rows))
    for kind in KINDS:
        common.artifact(kind)
        peaks: dict[int, list[int]] = {1: [], asked.times: []}
        with tempfile.TemporaryDirectory() as folder:
            for repeat in range(asked.repeats):
                for times, found in peaks.items():
                    target = str(Path(folder) / "scored.parquet")
                    script = str(HERE / "_engine_script.py")
                    taken, peak = measured([sys.executable, script, kind, target, *[source] * times])
                    found.append(peak)
                    common.say(f"{kind}, {repeat + 1} of {asked.repeats}: {times} times in {taken:.1f} s, {peak:,} B")
        print(f"\n{kind}")
        common.table(
            ["rows", "peak MB (median)"],
            [(f"{asked.rows * times:,}", round(statistics.median(found) / 1e6)) for times, found in peaks.items()],
        )
        common.ratio(
            f"{kind}, peak memory of {asked.times} times the rows / of the rows once",
            statistics.median(peaks[asked.times]) / statistics.median(peaks[1]),
            1.1,
        )


if __name__ == "__main__":
    main()
