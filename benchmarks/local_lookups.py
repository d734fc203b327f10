"""How long a small query takes on the local BigQuery server once there are many tables: ours against stock's lookups.

    .venv/bin/python benchmarks/local_lookups.py --tables 150

Two servers are started, the second one without the patch `single_lookups`. Each makes the tables, one query each; the
figure is the median of 20 counts of the last one.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from nightscore.local import servers
from nightscore.run import build_services
from nightscore.settings import read_settings

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "include/nightscore/local/bigquery_server"
REPEATS = 20


def seconds_per_query(tables: int) -> float:
    """Return the median time of a query, in seconds, on a fresh server with this many tables."""
    with tempfile.TemporaryDirectory() as folder:
        started = servers.up(Path(folder), environment=ROOT / ".nightscore/bigquery-env")
        try:
            warehouse = build_services(read_settings(started.environment())).warehouse
            warehouse.create_dataset("many", "Many tables.")
            for number in range(tables):
                warehouse.query(f"CREATE TABLE many.t{number} AS SELECT 1 AS a", doing="measuring")
            times = []
            for _ in range(REPEATS):
                began = time.perf_counter()
                warehouse.query(f"SELECT COUNT(*) AS n FROM many.t{tables - 1}", doing="measuring")
                times.append(time.perf_counter() - began)
            return statistics.median(times)
        finally:
            servers.down(Path(folder))


def main() -> None:
    """Measure both and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=150)
    tables = parser.parse_args().tables
    ours = seconds_per_query(tables)
    print(f"ours   {ours * 1000:6.0f} ms a query with {tables} tables")
    with tempfile.TemporaryDirectory() as folder:
        stock = Path(folder) / "bigquery_server"
        shutil.copytree(SOURCE, stock)
        listed = stock / "patches/__init__.py"
        listed.write_text(listed.read_text().replace("    single_lookups.apply,\n", ""))
        servers.HERE = Path(folder)
        theirs = seconds_per_query(tables)
    print(f"stock  {theirs * 1000:6.0f} ms")
    print(f"ratio  {ours / theirs:6.2f}")


if __name__ == "__main__":
    main()
