"""A gate of 134 expectations in the warehouse against reading the table and checking it in pandas.

    .venv/bin/python benchmarks/gates.py

A local BigQuery server is started and filled. Three processes check the same table in turn: the gate; Great
Expectations with its own BigQuery engine; and its pandas engine on the table read through the Storage Read API. The
seconds are those of the whole process, imports and all; the memory is the client's alone.
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import _common as common
import numpy as np
import pyarrow as pa
from _gates_script import DOUBLES, suite
from google.cloud import bigquery
from pyarrow import parquet

from nightscore.local import servers
from nightscore.run import Services, build_services
from nightscore.settings import read_settings

SCRIPT = Path(__file__).parent / "_gates_script.py"
CONTESTANTS = ("warehouse", "stock", "pandas")


def write_rows(services: Services, rows: int, folder: Path) -> None:
    """Load made-up rows into a table, a piece at a time."""
    services.warehouse.create_dataset("benchmark", "Of a benchmark.")
    config = bigquery.LoadJobConfig(source_format="PARQUET")
    for start in range(0, rows, common.PIECE):
        count = min(common.PIECE, rows - start)
        rng = np.random.default_rng([11, start])
        ids = np.arange(start, start + count)
        columns: dict[str, Any] = {"id": ids, "segment": [f"s{number % 7}" for number in ids]}
        columns |= {name: rng.normal(size=count) for name in DOUBLES}
        parquet.write_table(pa.table(columns), folder / "piece.parquet")
        with (folder / "piece.parquet").open("rb") as file:
            services.warehouse.client.load_table_from_file(file, "benchmark.rows", job_config=config).result()
        common.say(f"{start + count:,} of {rows:,} rows are in the local BigQuery server")


def main() -> None:
    """Measure all three."""
    asked = common.parse(__doc__ or "", rows=5_000_000, repeats=1)
    found: dict[str, list[tuple[float, int, dict[str, Any]]]] = {name: [] for name in CONTESTANTS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = servers.up(folder, environment=common.ROOT / ".nightscore/bigquery-env", progress=common.say)
        try:
            write_rows(build_services(read_settings(started.environment())), asked.rows, folder)
            for repeat in range(asked.repeats):
                for contestant in CONTESTANTS:
                    command = [sys.executable, str(SCRIPT), contestant, str(asked.rows)]
                    seconds, _, output = common.measured(command, started.environment())
                    said = json.loads(output.splitlines()[-1])
                    found[contestant].append((seconds, said["peak"], said))
                    shown = f"{contestant} {seconds:.1f} s, {said['peak'] / 1e6:,.0f} MB"
                    common.say(f"{repeat + 1} of {asked.repeats}: {shown}")
        finally:
            servers.down(folder)
    expectations = len(suite(asked.rows))
    for contestant, runs in found.items():
        if any(said["passed"] != expectations for _, _, said in runs):
            sys.exit(f"{contestant}: not all expectations passed: {runs}")
    print(f"\n{expectations} expectations, {asked.rows:,} rows, {len(DOUBLES) + 2} columns, whole process")
    common.table(
        ["", "seconds (median)", "least", "peak MB", "queries", "MB processed"],
        [
            (
                contestant,
                round(statistics.median(seconds for seconds, _, _ in runs), 2),
                round(min(seconds for seconds, _, _ in runs), 2),
                round(max(peak for _, peak, _ in runs) / 1e6),
                runs[0][2]["queries"],
                round(runs[0][2]["bytes_processed"] / 1e6),
            )
            for contestant, runs in found.items()
        ],
    )
    seconds = {name: [run[0] for run in runs] for name, runs in found.items()}
    peaks = {name: [run[1] for run in runs] for name, runs in found.items()}
    common.ratio("seconds of the gate / of pandas", common.median_ratio(seconds["warehouse"], seconds["pandas"]), 0.5)
    common.ratio("peak memory of the gate / of pandas", common.median_ratio(peaks["warehouse"], peaks["pandas"]), 0.15)
    print(f"       seconds of the gate / of stock: {common.median_ratio(seconds['warehouse'], seconds['stock']):.2f}")


if __name__ == "__main__":
    main()
