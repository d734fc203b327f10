"""A live Airflow in which a challenger is due after its first night, and is promoted only by whom the policy names."""

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

from .test_waiting import log_of, states

ROOT = Path(__file__).resolve().parents[3]
DAY = dt.date(2026, 11, 19)
ROWS = 300
LIFECYCLE = "model_lifecycle"


@pytest.fixture
def cards(pipelines):
    """A pipeline with a champion and a challenger; nobody here may approve, which this Airflow does not mind."""
    frame = pd.DataFrame({"balance": np.linspace(0, 1, ROWS)})
    days = pa.array([DAY] * ROWS, pa.date32())
    table = pa.table({"id": range(ROWS), "balance": frame.balance.to_numpy(), "snapshot_date": days})
    pipelines.write("features", table)
    for alias, strength in (("champion", 1.0), ("challenger", 0.1)):
        pipelines.register(
            LogisticRegression(C=strength).fit(frame, frame.balance > 0.5), table.select(["balance"]), alias
        )
    add(pipelines, {"min_nights": 1, "approvers": ["somebody else"], "timeout": "1h"})
    return pipelines


def add(bench, policy):
    model = {"name": bench.name, "challengers": ["challenger"]}
    predictions = {"table": f"{bench.name}.predictions", "threshold": 0.5}
    text = bench.spec_text(model=model, predictions=predictions, limits={"shards": 1}, promotion=policy)
    bench.add_pipeline(text)


@pytest.mark.slow
def test_a_challenger_is_proposed_by_its_pipeline_and_promoted_by_a_human(cards, local_servers):
    root = cards.folder / "checkout"
    (root / "dags").mkdir(parents=True)
    for file in ("scoring.py", "model_lifecycle.py"):
        (root / "dags" / file).write_text((ROOT / "dags" / file).read_text())
    specs = root / "dags" / "pipelines"
    cards.pipelines.rename(specs)
    cards.pipelines.symlink_to(specs)  # the test writes where it wrote before
    score, registry = f"score_{cards.name}", cards.services.registry
    [port] = free_ports(cards.name, 1)
    with running(root, port, local_servers.environment(), print) as airflow:
        for dag_id in (score, LIFECYCLE):
            eventually(lambda dag_id=dag_id: airflow.find_dag(dag_id))
        airflow.call("PATCH", f"/dags/{score}?update_mask=is_paused", {"is_paused": False})
        start(airflow, score, {"partition": str(DAY)})

        proposed = eventually(lambda: first_run(airflow, LIFECYCLE))
        assert proposed["conf"] == {
            "model": cards.name,
            "version": "2",
            "alias": "champion",
            "reason": f"{cards.name}/2 meets the policy of {cards.name} and of all that publish {cards.name}@champion.",
        }
        asked = eventually(lambda: open_question(airflow, proposed))
        assert asked["subject"] == f"Shall {cards.name}/2 become {cards.name}@champion?"
        assert "| min_nights | met | at least 1 | 1 night |" in asked["body"]
        assert f"* 1 nights, {DAY} to {DAY}, {ROWS} rows" in asked["body"]
        assert [user["id"] for user in asked["assigned_users"]] == ["somebody else"]
        # This Airflow lets everybody answer; the promotion does not.
        ended = eventually(lambda: answered(airflow, proposed, "Approve"))
        assert ended["state"] == "failed"
        words = f"was approved by '{me(airflow)}', whom promotion.approvers does not name: somebody else."
        assert words in log_of(airflow, LIFECYCLE, proposed, "promote")
        assert registry.alias(cards.name, "champion").version == 1
        night = eventually(lambda: ended_run(airflow, score, first_run(airflow, score)))
        assert (night["state"], states(airflow, score, night)) == ("success", {"success"})

        add(cards, {"min_nights": 1, "approvers": [me(airflow)], "timeout": "5s"})
        given = {"model": cards.name, "version": "challenger", "reason": "steadier"}
        unanswered = start(airflow, LIFECYCLE, given)
        ended = eventually(lambda: ended_run(airflow, LIFECYCLE, unanswered))
        assert ended["state"] == "success"
        assert airflow.task_states(LIFECYCLE, unanswered["dag_run_id"])["promote"] == "skipped"
        assert registry.alias(cards.name, "champion").version == 1, "no answer in time is a no"

        add(cards, {"min_nights": 1, "approvers": [me(airflow)], "timeout": "1h"})
        by_hand = start(airflow, LIFECYCLE, given)
        ended = eventually(lambda: answered(airflow, by_hand, "Approve"))
        assert ended["state"] == "success", log_of(airflow, LIFECYCLE, by_hand, "promote")
        moved = registry.alias(cards.name, "champion")
        assert (moved.version, moved.last["from"], moved.last["reason"]) == (2, 1, "steadier")
        assert moved.last["by"] == f"{me(airflow)} in Airflow, {by_hand['dag_run_id']}"
        assert moved.last["evidence"][0]["nights"] == 1
        assert moved.last["proposal"] in asked_body(airflow, by_hand)

        add(cards, {"min_nights": 5, "approvers": [me(airflow)], "timeout": "1h"})
        too_early = start(airflow, LIFECYCLE, {**given, "version": "1", "reason": "impatience"})
        ended = eventually(lambda: ended_run(airflow, LIFECYCLE, too_early))
        assert ended["state"] == "failed"
        found = log_of(airflow, LIFECYCLE, too_early, "gather")
        assert f"{cards.name}: min_nights: 0 nights; wanted: at least 5: NOT met" in found


def me(airflow):
    import base64
    import json

    import httpx

    token = httpx.get(f"{airflow.url}/auth/token", trust_env=False).json()["access_token"]
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sub"]


def start(airflow, dag_id, conf):
    return airflow.call("POST", f"/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf})


def first_run(airflow, dag_id):
    return next(iter(airflow.call("GET", f"/dags/{dag_id}/dagRuns?order_by=run_after")["dag_runs"]), None)


def ended_run(airflow, dag_id, run):
    found = airflow.call("GET", f"/dags/{dag_id}/dagRuns/{run['dag_run_id']}")
    return found if found["state"] in ("success", "failed") else None


def path_of(run):
    return f"/dags/{LIFECYCLE}/dagRuns/{run['dag_run_id']}/taskInstances/approve/-1/hitlDetails"


def open_question(airflow, run):
    """Return the question once its task waits."""
    is_waiting = airflow.task_states(LIFECYCLE, run["dag_run_id"]).get("approve") == "awaiting_input"
    return airflow.call("GET", path_of(run)) if is_waiting else None


def answered(airflow, run, option):
    """Answer, and return the run when it has ended; an answer that came too soon is given again."""
    asked = open_question(airflow, run)
    if asked is not None and not asked["response_received"]:
        airflow.call("PATCH", path_of(run), {"chosen_options": [option], "params_input": {}})
    return ended_run(airflow, LIFECYCLE, run)


def asked_body(airflow, run):
    return airflow.call("GET", path_of(run))["body"]
