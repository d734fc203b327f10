"""The whole way of a card portfolio, by command line, by `dag.test()` and by a live Airflow: file, model, predictions.

The public data set of 30,000 credit card clients goes it, where it lies in a `data` folder beside the checkout;
otherwise the generated portfolio does.
"""

import datetime as dt
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skops import io as skops_io

from nightscore.demo import portfolio
from nightscore.demo.airflow_server import running
from nightscore.orchestration.factory import iter_dags
from nightscore.spec import Schedule

ROOT = Path(__file__).resolve().parents[3]
REAL = next(iter(sorted(ROOT.parent.glob("*/data/credit_card_clients.csv"))), None)
CRON = "0 2 * * *"
NUMBERS = ["limit_bal", "age"]


class Cards:
    """A portfolio in a CSV file, its features and outcomes, and how it is loaded."""

    def __init__(self, frame, outcome, key, load_options):
        self.frame, self.outcome, self.key, self.load_options = frame, outcome, key, load_options
        self.inputs = [name for name in frame.columns if name != key]


def real_cards():
    frame = pd.read_csv(REAL)
    outcome = frame["default.payment.next.month"] == 1
    options = ["--rename", "default.payment.next.month=default_next_month"]
    return Cards(frame.drop(columns="default.payment.next.month"), outcome, "ID", options)


def generated_cards():
    day = dt.date(2026, 11, 1)
    frame = portfolio.night_of(day, 5_000, 20).to_pandas()
    frame = frame[frame.limit_bal.gt(0) & frame.age.between(18, 110)].reset_index(drop=True)
    outcomes = portfolio.outcomes_of(day, 5_000, 20).to_pandas().set_index("account_id")
    numbers = frame.select_dtypes("number").columns
    return Cards(frame[numbers].fillna(0), outcomes.loc[frame.account_id].default_next_month == 1, "account_id", [])


# Both go the whole way by `make thorough`; daily, one of them is enough.
BOTH = ["real", pytest.param("generated", marks=pytest.mark.thorough)] if REAL else ["generated"]


@pytest.fixture(scope="module", params=BOTH)
def cards(request):
    return real_cards() if request.param == "real" else generated_cards()


@pytest.fixture
def day():
    """The partition that a schedule of 02:00 scored last."""
    return Schedule(cron=CRON).latest_partition(dt.datetime.now(dt.UTC))


@pytest.fixture
def shell(pipelines, local_servers):
    """Run `nightscore …` as a user does; return exit code, standard output and standard error."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
    environment |= {**local_servers.environment(), "NIGHTSCORE_PIPELINES_DIR": str(pipelines.pipelines)}

    def run(*arguments):
        command = [str(Path(sys.executable).parent / "nightscore"), *map(str, arguments)]
        done = subprocess.run(
            command, env=environment, cwd=pipelines.folder, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout, done.stderr

    return run


def load(shell, pipelines, cards, frame, day):
    file = pipelines.folder / "cards.csv"
    frame.to_csv(file, index=False)
    target = f"{pipelines.name}.features"
    options = ["--partition", "snapshot_date", "--set", f"snapshot_date={day}", *cards.load_options]
    code, out, err = shell("local", "load", target, file, *options)
    assert code == 0, err
    assert f"{len(frame):,} rows" in out


def prepare(shell, pipelines, cards, day, estimator):
    """Load the night, train on its first two thirds, register, and write the spec."""
    whole = cards.frame.assign(**{"default.payment.next.month": cards.outcome}) if cards.load_options else cards.frame
    load(shell, pipelines, cards, whole, day)
    part = len(cards.frame) * 2 // 3
    estimator.fit(cards.frame[cards.inputs][:part], cards.outcome[:part])
    model, sample = pipelines.folder / "model.skops", pipelines.folder / "sample.parquet"
    skops_io.dump(estimator, model)
    cards.frame[:200].to_parquet(sample)
    code, out, err = shell(
        "models", "register", pipelines.name, model, "--sample", sample, "--alias", "champion", "--metric", "auc=0.77"
    )
    assert code == 0, err
    assert f"Registered {pipelines.name}/" in out
    limit = next(name for name in cards.inputs if name.lower() == "limit_bal")
    mean = float(cards.frame[limit].mean())
    check = {"column": limit, "min_value": mean * 0.5, "max_value": mean * 1.5}
    text = pipelines.spec_text(
        schedule=CRON,
        features={"keys": [cards.key]},
        checks={"features": [{"expect": "expect_column_mean_to_be_between", **check}]},
        limits={"shards": 3},
    )
    pipelines.add_pipeline(text)
    code, out, err = shell("pipelines", "check")
    assert code == 0, err
    return whole, limit


def assert_published(pipelines, cards, estimator, day, tolerance):
    """Assert that every account has one prediction, and that it is the estimator's own."""
    found = pipelines.published(cards.key).to_pandas()
    assert len(found) == found[cards.key].nunique() == len(cards.frame)
    assert set(found.snapshot_date) == {day}
    ordered = cards.frame.sort_values(cards.key)
    expected = estimator.predict_proba(ordered[cards.inputs])[:, 1]
    np.testing.assert_allclose(found.score.to_numpy(), expected, rtol=0, atol=tolerance)
    return found


@pytest.mark.thorough
def test_from_file_to_predictions_by_command_line(shell, pipelines, cards, day):
    boosting = HistGradientBoostingClassifier(max_iter=30, random_state=0)
    whole, limit = prepare(shell, pipelines, cards, day, boosting)

    code, out, err = shell("run", pipelines.name, "--partition", day, "--json")
    assert code == 0, err
    summary = json.loads(out)
    assert (summary["status"], summary["rows_published"]) == ("published", len(cards.frame))
    first = assert_published(pipelines, cards, boosting, day, tolerance=0)

    code, out, _ = shell("run", pipelines.name, "--partition", day, "--json")
    assert code == 0
    again = assert_published(pipelines, cards, boosting, day, tolerance=0)
    assert (again.score == first.score).all()

    load(shell, pipelines, cards, whole.assign(**{limit: 0}), day)
    code, out, err = shell("run", pipelines.name, "--partition", day, "--json")
    assert code == 1
    refused = json.loads(out)
    assert (refused["status"], refused["exit_code"], refused["gate"]["verdict"]) == ("refused", 1, "stop")
    assert f"expect_column_mean_to_be_between on {limit}" in err
    assert pipelines.published(cards.key).to_pandas().equals(again)

    code, out, _ = shell("runs", "list", pipelines.name, "--json")
    assert code == 0
    assert sorted((run["status"], run["live"]) for run in json.loads(out)) == [
        ("published", False),
        ("published", True),
        ("refused", False),
    ]


@pytest.mark.thorough
def test_a_linear_model_through_dag_test(shell, pipelines, cards, day, run_dag):
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    prepare(shell, pipelines, cards, day, linear)
    [dag] = iter_dags(pipelines.pipelines)
    run, states = run_dag(dag, partition_key=day.isoformat())
    assert run.state == "success", states
    assert_published(pipelines, cards, linear, day, tolerance=1e-12)


@pytest.mark.slow
@pytest.mark.thorough  # daily, the stack of tests/integration/stack has a scheduled night and a backfill
@pytest.mark.parametrize("cards", ["real" if REAL else "generated"], indirect=True)
def test_the_schedule_and_a_backfill_in_a_live_airflow(shell, pipelines, cards, day, local_servers):
    """LocalExecutor, SQLite, four processes: the night of the schedule and the nights before it."""
    boosting = HistGradientBoostingClassifier(max_iter=30, random_state=0)
    whole, _ = prepare(shell, pipelines, cards, day, boosting)
    nights = [day - dt.timedelta(days=back) for back in (1, 2)]
    for night in nights:
        load(shell, pipelines, cards, whole, night)
    root = pipelines.folder / "checkout"
    (root / "dags").mkdir(parents=True)
    (root / "dags" / "scoring.py").write_text((ROOT / "dags" / "scoring.py").read_text())
    pipelines.pipelines.rename(root / "dags" / "pipelines")
    dag_id = f"score_{pipelines.name}"
    with running(root, free_port(), local_servers.environment(), print) as airflow:
        wait(lambda: airflow.find_dag(dag_id))
        airflow.call("PATCH", f"/dags/{dag_id}?update_mask=is_paused", {"is_paused": False})
        scheduled = ended(airflow, dag_id, day)
        assert (scheduled["state"], scheduled["run_type"]) == ("success", "scheduled")
        assert_published(pipelines, cards, boosting, day, tolerance=0)
        states = airflow.task_states(dag_id, scheduled["dag_run_id"])
        assert {name for name in states if name.startswith("score")} == {f"score shard {i} of 3" for i in (1, 2, 3)}
        [event] = airflow.call("GET", f"/assets/events?source_dag_id={dag_id}")["asset_events"]
        assert event["extra"]["rows"] == len(cards.frame)
        assert event["partition_key"] == day.isoformat()

        # Backfill ends are moments: the end of the last day, or its run is left out.
        body = {
            "dag_id": dag_id,
            "from_date": f"{nights[-1]}T00:00:00Z",
            "to_date": f"{nights[0]}T23:59:59Z",
            "max_active_runs": 2,
            "reprocess_behavior": "none",
            "dag_run_conf": {},
        }
        airflow.call("POST", "/backfills", body)
        for night in nights:
            assert ended(airflow, dag_id, night)["state"] == "success"
    counts = pipelines.sql(
        "SELECT CAST(snapshot_date AS STRING) AS d, COUNT(*) AS n FROM {dataset}.predictions GROUP BY 1 ORDER BY 1"
    )
    assert counts == [{"d": str(night), "n": len(cards.frame)} for night in sorted([day, *nights])]


def ended(airflow, dag_id, day):
    """Wait for the run of a partition to end, and return it."""

    def look():
        runs = airflow.runs_of(dag_id, day.isoformat())
        return runs[0] if runs and runs[0]["state"] in ("success", "failed") else None

    return wait(look)


def wait(look, seconds=240):
    import time

    deadline = time.monotonic() + seconds
    while (found := look()) is None:
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.5)
    return found


def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
