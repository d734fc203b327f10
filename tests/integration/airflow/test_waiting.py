"""A live Airflow in which an upstream DAG's event starts pipelines, and they wait for their data."""

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression

from faults.valve import eventually
from nightscore.demo.airflow_server import running
from nightscore.local.ports import free_ports

ROOT = Path(__file__).resolve().parents[3]
DAY = dt.date(2026, 11, 19)
ROWS = 500
UPSTREAM = """
from airflow.sdk import DAG, Asset, task

features = Asset(name="{features}")

with DAG("upstream", schedule=None):

    @task(outlets=[features])
    def load(params=None, outlet_events=None):
        for partition in params["partitions"]:
            outlet_events[features].add_partitions(partition)

    load()
"""


@pytest.fixture
def cards(pipelines):
    """A pipeline that waits for a marker, and one that waits for more rows than there are."""
    frame = pd.DataFrame({"balance": np.linspace(0, 1, ROWS)})
    days = pa.array([DAY] * ROWS, pa.date32())
    table = pa.table({"id": range(ROWS), "balance": frame.balance.to_numpy(), "snapshot_date": days})
    features = pipelines.write("features", table)
    pipelines.register(LogisticRegression().fit(frame, frame.balance > 0.5), table.select(["balance"]))
    pipelines.sql("CREATE TABLE {dataset}.loads (snapshot_date DATE, state STRING)")
    schedule = {"after": features, "timezone": "Europe/Amsterdam"}
    until = ["rows >= 500", f"{pipelines.name}.loads has row where state = 'ok'"]
    wait = {"timeout": "10m", "every": "1s", "until": until}
    pipelines.add_pipeline(pipelines.spec_text(schedule=schedule, features={"wait": wait}, limits={"shards": 1}))
    late = {"timeout": "15s", "every": "1s", "until": "rows >= 501"}
    other = {"table": f"{pipelines.name}.late"}
    text = pipelines.spec_text(schedule=schedule, features={"wait": late}, predictions=other)
    pipelines.add_pipeline(text, name=f"late_{pipelines.name}")
    return pipelines


@pytest.mark.slow
def test_nights_that_wait_in_a_live_airflow(cards, local_servers):
    root = cards.folder / "checkout"
    (root / "dags").mkdir(parents=True)
    (root / "dags" / "scoring.py").write_text((ROOT / "dags" / "scoring.py").read_text())
    (root / "dags" / "upstream.py").write_text(UPSTREAM.format(features=f"{cards.name}.features"))
    cards.pipelines.rename(root / "dags" / "pipelines")
    waits, late = f"score_{cards.name}", f"score_late_{cards.name}"
    [port] = free_ports(cards.name, 1)
    with running(root, port, local_servers.environment(), print) as airflow:
        for dag_id in ("upstream", waits, late):
            eventually(lambda dag_id=dag_id: airflow.find_dag(dag_id))
            airflow.call("PATCH", f"/dags/{dag_id}?update_mask=is_paused", {"is_paused": False})

        trigger(airflow, [str(DAY)])
        run = eventually(lambda: run_of(airflow, waits))
        eventually(lambda: states(airflow, waits, run) == {"deferred"})
        eventually(lambda: states(airflow, late, run_of(airflow, late)) == {"deferred"})
        pool = airflow.call("GET", "/pools/default_pool")
        assert (pool["occupied_slots"], pool["deferred_slots"]) == (0, 2), "a wait holds no slot"

        ended = eventually(lambda: ended_run(airflow, late))
        assert ended["state"] == "failed"
        [attempt] = tries(airflow, late, ended, "wait")
        assert attempt["state"] == "failed"
        log = log_of(airflow, late, ended, "wait")
        assert "waiting for data: rows >= 501: 500 rows" in log
        missing = f"late_{cards.name}: the data of 2026-11-19 did not come in time: the run waited for "
        assert missing in log
        assert "features.wait.timeout is 15s. Last seen: rows >= 501: 500 rows. Nothing was published." in log
        assert states(airflow, waits, run) == {"deferred"}

        cards.sql("INSERT INTO {dataset}.loads VALUES ('2026-11-19', 'ok')")
        ended = eventually(lambda: ended_run(airflow, waits))
        assert (ended["state"], ended["run_type"]) == ("success", "asset_triggered")
        assert cards.published()["snapshot_date"].to_pylist() == [DAY] * ROWS
        [event] = airflow.call("GET", f"/assets/events?source_dag_id={waits}")["asset_events"]
        assert event["partition_key"] == str(DAY)

        airflow.call("PATCH", f"/dags/{late}?update_mask=is_paused", {"is_paused": True})
        trigger(airflow, ["eu"])
        trigger(airflow, [])
        ended = eventually(lambda: ended_run(airflow, waits, "eu"))
        log = log_of(airflow, waits, ended, "wait")
        assert "is not a scoring date; write it like 2026-11-19. The DAG that updates an asset" in log
        ended = eventually(lambda: ended_run(airflow, "events_without_partition", None))
        log = log_of(airflow, "events_without_partition", ended, "name_the_partition")
        assert f"An event of {cards.name}.features came without a partition key, so no run of" in log
        assert len(airflow.call("GET", f"/dags/{waits}/dagRuns")["dag_runs"]) == 2


def trigger(airflow, partitions):
    body = {"logical_date": None, "conf": {"partitions": partitions}}
    airflow.call("POST", "/dags/upstream/dagRuns", body)


def run_of(airflow, dag_id, key=str(DAY)):
    return next(iter(airflow.runs_of(dag_id, key)), None)


def ended_run(airflow, dag_id, key=str(DAY)):
    run = run_of(airflow, dag_id, key)
    return run if run and run["state"] in ("success", "failed") else None


def states(airflow, dag_id, run):
    """Return the states of the tasks that have one."""
    return set(airflow.task_states(dag_id, run["dag_run_id"]).values()) - {"waiting"} if run else set()


def tries(airflow, dag_id, run, task):
    path = f"/dags/{dag_id}/dagRuns/{run['dag_run_id']}/taskInstances/{task}/tries"
    return airflow.call("GET", path)["task_instances"]


def log_of(airflow, dag_id, run, task):
    path = f"/dags/{dag_id}/dagRuns/{run['dag_run_id']}/taskInstances/{task}/logs/1"
    return str(airflow.call("GET", path)["content"])
