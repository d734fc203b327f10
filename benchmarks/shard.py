"""Scoring a shard through the local BigQuery server against only draining the same stream.

    .venv/bin/python benchmarks/shard.py

Servers of its own are started, a table is frozen as one shard, and the two are done in turn: `score_rows`, which loads
the model, reads, scores, and uploads the part; and Google's client reading the same columns and forgetting them.
"""

import statistics
import tempfile
import uuid
from pathlib import Path
from typing import Any

import _common as common
import pyarrow as pa
from google.cloud import bigquery
from pyarrow import parquet

from nightscore.local import servers
from nightscore.pipeline import run_stage, start
from nightscore.run import Run, Services, build_services
from nightscore.scoring.reading import _open_session
from nightscore.scoring.shard import score_rows
from nightscore.settings import read_settings
from nightscore.snapshot import freeze
from nightscore.specs import parse_spec

GOALS = {"logistic": 1.15, "boosting": None}  # logistic regression predicts faster than the server sends
SPEC = """
features: {{table: benchmark.features, partition: snapshot_date, keys: [id]}}
model: {{name: {kind}}}
predictions: {{table: benchmark.predictions}}
limits: {{shards: 1}}
"""


def write_features(services: Services, rows: int, folder: Path) -> None:
    """Load the made-up rows into a table, a piece at a time."""
    services.warehouse.create_dataset("benchmark", "Of a benchmark.")
    config = bigquery.LoadJobConfig(
        source_format="PARQUET", time_partitioning=bigquery.TimePartitioning(field="snapshot_date")
    )
    for piece in common.pieces(rows):
        common.say(f"loading {piece.num_rows:,} rows into the local BigQuery server")
        days = pa.array([common.DAY] * piece.num_rows, pa.date32())
        table = pa.Table.from_batches([piece]).drop_columns(["_key_hash", "outcome"])
        parquet.write_table(table.append_column("snapshot_date", days), folder / "piece.parquet")
        with (folder / "piece.parquet").open("rb") as file:
            services.warehouse.client.load_table_from_file(file, "benchmark.features", job_config=config).result()


def frozen(services: Services, kind: str, folder: Path) -> Run:
    """Return a run whose rows are frozen as one shard."""
    sample = folder / "sample.parquet"
    parquet.write_table(pa.Table.from_batches([next(common.pieces(1_000))]).select(common.INPUTS), sample)
    services.registry.register(kind, common.artifact(kind), sample, alias="champion")
    run = start(parse_spec(kind, SPEC.format(kind=kind), folder), common.DAY, services)
    run_stage(run, freeze)
    run.require_lease().release()
    return run


def drain(run: Run) -> int:
    """Read the shard with Google's client, and return how many rows came."""
    reader = run.warehouse.reader
    wanted = ["id", *common.INPUTS, "_key_hash"]
    session = _open_session(
        reader, run.warehouse.config.project, run.snapshot_table, wanted, "_shard = 0 AND _rejected_by IS NULL"
    )
    return sum(message.row_count for stream in session.streams for message in reader.read_rows(stream.name))


def score(run: Run) -> int:
    """Score the shard and return how many rows were."""
    return int(score_rows(run, 0, f"{run.records.prefix}benchmark/{uuid.uuid4().hex}/")["rows"])


def main() -> None:
    """Measure both models."""
    asked = common.parse(__doc__ or "", rows=2_000_000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = servers.up(folder, environment=common.ROOT / ".nightscore/bigquery-env", progress=common.say)
        try:
            services = build_services(read_settings(started.environment()))
            write_features(services, asked.rows, folder)
            for kind in GOALS:
                measure(frozen(services, kind, folder), kind, asked)
        finally:
            servers.down(folder)


def measure(run: Run, kind: str, asked: Any) -> None:
    """Measure one model and print its figures."""
    assert score(run) == drain(run) == asked.rows
    times = common.in_turn(asked.repeats, drained=lambda: drain(run), scored=lambda: score(run))
    print(f"\n{kind}: a shard of {asked.rows:,} rows, {len(common.INPUTS)} doubles, local BigQuery and Cloud Storage")
    common.table(
        ["", "seconds (median)", "least"],
        [(name, round(statistics.median(t), 2), round(min(t), 2)) for name, t in times.items()],
    )
    value = common.median_ratio(times["scored"], times["drained"])
    common.ratio(f"{kind}, scoring the shard / draining it", value, GOALS[kind])


if __name__ == "__main__":
    main()
