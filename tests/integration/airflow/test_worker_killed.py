"""A live Airflow whose worker process dies in the middle of a shard."""

import datetime as dt
import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from faults.valve import Valve, eventually
from nightscore.demo.airflow_server import running
from nightscore.lease import Holder, acquire
from nightscore.local.ports import free_ports
from nightscore.records import RunRecords, run_ids
from nightscore.spec import Schedule

ROOT = Path(__file__).resolve().parents[3]
CRON = "0 2 * * *"
ROWS = 60_000
SHARDS = 2


@pytest.fixture
def valve(local_servers):
    made = Valve(local_servers.bigquery_storage_address)
    yield made
    made.close()


@pytest.fixture
def cards(pipelines):
    """A scheduled pipeline of two shards, and the partition of its last night."""
    day = Schedule(cron=CRON).latest_partition(dt.datetime.now(dt.UTC))
    rng = np.random.default_rng(0)
    table = pa.table({"id": range(ROWS), "snapshot_date": [day] * ROWS, "balance": rng.normal(size=ROWS)})
    pipelines.write("features", table)
    rows = table.select(["balance"]).to_pandas()
    pipelines.estimator = HistGradientBoostingClassifier(max_iter=10).fit(rows, rows.balance > 0.5)
    pipelines.expected = pipelines.estimator.predict_proba(rows)[:, 1]
    pipelines.register(pipelines.estimator, table.select(["balance"]))
    pipelines.add_pipeline(pipelines.spec_text(schedule=CRON, limits={"shards": SHARDS}))
    pipelines.night = day
    return pipelines


@pytest.mark.slow
def test_the_retry_of_a_killed_shard_completes_the_night(cards, valve, local_servers):
    """Only that shard is scored again, and every row is published once."""
    root = cards.folder / "checkout"
    (root / "dags").mkdir(parents=True)
    (root / "dags" / "scoring.py").write_text((ROOT / "dags" / "scoring.py").read_text())
    cards.pipelines.rename(root / "dags" / "pipelines")
    dag_id = f"score_{cards.name}"
    environment = local_servers.environment() | {"BIGQUERY_STORAGE_EMULATOR_HOST": valve.address}
    [port] = free_ports(cards.name, 1)
    with running(root, port, environment, print) as airflow:
        eventually(lambda: airflow.find_dag(dag_id))
        airflow.call("PATCH", f"/dags/{dag_id}?update_mask=is_paused", {"is_paused": False})
        run = eventually(lambda: next(iter(airflow.runs_of(dag_id, cards.night.isoformat())), None))
        eventually(lambda: airflow.task_states(dag_id, run["dag_run_id"]).get("feature_gate") == "success")
        valve.open.clear()
        victim = eventually(valve.reader)
        victim.send_signal(signal.SIGKILL)
        valve.open.set()
        ended = eventually(lambda: finished(airflow, dag_id, cards.night), seconds=300)
        tries = airflow.call("GET", f"/dags/{dag_id}/dagRuns/{run['dag_run_id']}/taskInstances?limit=100")
    assert ended["state"] == "success"
    shards = {item["map_index"]: item["try_number"] for item in tries["task_instances"] if item["task_id"] == "score"}
    assert sorted(shards.values()) == [1, 2]
    found = cards.published()
    assert found["id"].to_pylist() == list(range(ROWS))
    assert found["score"].to_numpy().tolist() == cards.expected.tolist()
    [run_id] = run_ids(cards.services.bucket, cards.name)
    records = RunRecords(cards.services.bucket, cards.name, run_id)
    assert sum(receipt["rows"] for receipt in records.receipts()) == ROWS
    span = dt.timedelta(seconds=10)
    acquire(cards.services.bucket, cards.name, cards.night, Holder("next", "the next run"), span).require()


def finished(airflow, dag_id, night):
    runs = airflow.runs_of(dag_id, night.isoformat())
    return runs[0] if runs and runs[0]["state"] in ("success", "failed") else None
