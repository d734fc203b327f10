"""A pipeline's DAG, run whole: states, XCom, asset events, failures."""

import datetime as dt
import functools

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from sklearn.linear_model import LogisticRegression

from nightscore import events
from nightscore.clients import build_storage
from nightscore.lease import Holder, acquire
from nightscore.orchestration import tasks
from nightscore.orchestration.factory import iter_dags, make_rollback_dag
from nightscore.publications import read_publications
from nightscore.records import RunRecords, run_ids

DAY = "2026-11-19"


@pytest.fixture
def cards(pipelines):
    """A pipeline with 500 accounts of one night, and a champion."""
    frame = pd.DataFrame({"balance": np.linspace(0, 1, 500)})
    table = pa.table({"id": range(500), "balance": frame.balance.to_numpy()})
    table = table.append_column("snapshot_date", pa.array([dt.date(2026, 11, 19)] * 500, pa.date32()))
    pipelines.write("features", table)
    pipelines.register(LogisticRegression().fit(frame, frame.balance > 0.5), table.select(["balance"]))
    pipelines.add_pipeline(pipelines.spec_text(schedule="0 2 * * *", limits={"shards": 3}))
    return pipelines


@pytest.fixture
def ends():
    """What is announced of the ends of runs."""
    found = []

    def listen(entry):
        event = entry.payload
        if event["event"] == "run_ended":
            found.append(tuple(event[name] for name in ("status", "stopped_at", "partition", "run_id")))

    events.subscribe(listen)
    yield found
    events._listeners.remove(listen)


def dag_of(cards):
    [dag] = iter_dags(cards.pipelines)
    return dag


def test_a_night_through_airflow(cards, run_dag):
    run, states = run_dag(dag_of(cards), partition_key=DAY)
    assert run.state == "success"
    assert states == {
        ("plan", -1): "success",
        ("freeze", -1): "success",
        ("feature_gate", -1): "success",
        ("score", 0): "success",
        ("score", 1): "success",
        ("score", 2): "success",
        ("prediction_gate", -1): "success",
        ("publish", -1): "success",
        ("record", -1): "success",
    }
    assert cards.published().num_rows == 500
    labels = {ti.map_index: ti.rendered_map_index for ti in run.get_task_instances() if ti.task_id == "score"}
    assert labels == {0: "shard 1 of 3", 1: "shard 2 of 3", 2: "shard 3 of 3"}


def test_the_assets_event_carries_partition_rows_and_version(cards, run_dag):
    run, _ = run_dag(dag_of(cards), partition_key=DAY)
    [run_id] = run_ids(cards.services.bucket, cards.name)
    [event] = events_of(run)
    assert event.asset.name == f"{cards.name}.predictions"
    assert event.partition_key == DAY
    assert event.extra == {"partition": DAY, "rows": 500, "model_version": f"{cards.name}/1", "run_id": run_id}


def test_a_manual_run_takes_its_date_model_and_reason_from_the_form(cards, run_dag):
    cards.register(LogisticRegression(C=0.1).fit(*rows()), pa.Table.from_pandas(rows()[0]), alias="challenger")
    conf = {"partition": DAY, "model": f"{cards.name}@challenger", "reason": "compare"}
    run, _ = run_dag(dag_of(cards), conf)
    assert run.state == "success"
    [run_id] = run_ids(cards.services.bucket, cards.name)
    summary = RunRecords(cards.services.bucket, cards.name, run_id).read("run")
    assert (summary["model_version"], summary["reason"]) == (f"{cards.name}/2", "compare")
    [event] = events_of(run)
    assert event.partition_key == DAY


def test_a_dry_run_skips_publish_and_emits_nothing(cards, run_dag, monkeypatch):
    logged = []
    monkeypatch.setattr(tasks.log, "info", lambda text, *values: logged.append(text % values))
    run, states = run_dag(dag_of(cards), {"dry_run": True}, partition_key=DAY)
    plan = logged[0].splitlines()
    assert plan[:3] == [
        f"{cards.name} {DAY}: what a run would do",
        "dry run: nothing will be published",
        f"  source      {cards.name}.features, 500 rows",
    ]
    assert plan[-1] == "ready, as a dry run: nothing will be published"
    assert run.state == "success"
    assert states["publish", -1] == "skipped"
    assert states["record", -1] == "success"
    assert {states["score", shard] for shard in range(3)} == {"success"}
    [run_id] = run_ids(cards.services.bucket, cards.name)
    summary = RunRecords(cards.services.bucket, cards.name, run_id).read("run")
    assert (summary["status"], summary["rows_scored"], summary["rows_published"]) == ("dry_run", 500, None)
    assert read_publications(cards.services.bucket, cards.name, dt.date(2026, 11, 19)) == []
    assert events_of(run) == []
    assert cards.services.warehouse.find_table(f"{cards.name}.predictions") is None


@pytest.mark.thorough
def test_a_refused_night_fails_the_run_and_is_recorded(cards, run_dag):
    checks = {"features": [{"expect": "expect_table_row_count_to_be_between", "min_value": 1000}]}
    cards.add_pipeline(cards.spec_text(schedule="0 2 * * *", checks=checks))
    run, states = run_dag(dag_of(cards), partition_key=DAY)
    assert run.state == "failed"
    assert states["feature_gate", -1] == "failed"
    assert states["publish", -1] == "upstream_failed"
    assert states["record", -1] == "failed"
    [run_id] = run_ids(cards.services.bucket, cards.name)
    summary = RunRecords(cards.services.bucket, cards.name, run_id).read("run")
    assert summary["status"] == "refused"
    assert summary["stopped_by"] == ["expect_table_row_count_to_be_between: wanted min_value 1000, seen 500"]
    assert events_of(run) == []


def test_a_partition_over_its_limit_is_refused_by_the_first_task(cards, run_dag, monkeypatch, ends):
    logged = []
    monkeypatch.setattr(tasks.log, "info", lambda text, *values: logged.append(text % values))
    cards.add_pipeline(cards.spec_text(schedule="0 2 * * *", limits={"max_rows": 499}))
    run, states = run_dag(dag_of(cards), partition_key=DAY)
    assert run.state == "failed"
    assert states["plan", -1] == "failed"
    assert states["freeze", -1] == "upstream_failed"
    assert logged[0].splitlines()[-1] == "blocked, for 1 reason: nothing would be frozen, scored or published"
    assert run_ids(cards.services.bucket, cards.name) == []
    assert ends == [("refused", "plan", DAY, "")]


@pytest.mark.thorough
def test_a_plan_that_cannot_be_shown_costs_no_night(cards, run_dag, monkeypatch):
    monkeypatch.setattr("nightscore.preview.preview", lambda *_, **__: 1 / 0)
    run, _ = run_dag(dag_of(cards), partition_key=DAY)
    assert run.state == "success"
    assert cards.published().num_rows == 500


@pytest.mark.thorough
def test_a_publication_that_fails_makes_the_run_fail(cards, run_dag, monkeypatch):
    """The staged predictions, and the parts that could be staged again, vanish between their gate and the MERGE."""
    dag = dag_of(cards)
    publish = dag.get_task("publish")

    def lose_what_was_staged(body, pipeline, run, **context):
        table = f"nightscore_staging.{pipeline}__{run.replace('-', '')}__staged"
        cards.services.warehouse.client.delete_table(table)
        bucket = cards.services.bucket
        for name in list(bucket.iter_names(f"runs/{pipeline}/{run}/shards/", match_glob="**.parquet")):
            storage_client(cards.services).bucket(bucket.name).delete_blob(name)
        body(pipeline, run, **context)

    body = functools.partial(lose_what_was_staged, publish.python_callable)
    monkeypatch.setattr(publish, "python_callable", body)
    run, states = run_dag(dag, partition_key=DAY)
    assert run.state == "failed"
    assert states["prediction_gate", -1] == "success"
    assert states["publish", -1] == "failed"
    assert states["record", -1] == "failed"
    assert events_of(run) == []
    [recorded] = cards.sql(f"SELECT status FROM nightscore_operations.runs WHERE pipeline = '{cards.name}'")
    assert recorded == {"status": "failed"}


def test_a_night_that_cannot_be_planned_has_ended_all_the_same(cards, run_dag, ends):
    cards.add_pipeline(cards.spec_text(schedule="0 2 * * *", model={"name": cards.name, "alias": "nobody"}))
    run, states = run_dag(dag_of(cards), partition_key=DAY)
    assert (run.state, states["plan", -1], states["record", -1]) == ("failed", "failed", "failed")
    assert ends == [("failed", "", DAY, "")]


def test_a_run_without_a_date_fails_and_publishes_nothing(cards, run_dag):
    run, states = run_dag(dag_of(cards))
    assert run.state == "failed"
    assert states["plan", -1] == "failed"
    assert states["record", -1] == "failed"


def test_a_broken_spec_fails_its_own_dag_only(cards, run_dag):
    cards.add_pipeline(yaml.safe_dump({"features": {}}), name="broken")
    dags = {dag.dag_id: dag for dag in iter_dags(cards.pipelines)}
    run, _ = run_dag(dags["score_broken"], partition_key=DAY)
    assert run.state == "failed"
    run, _ = run_dag(dags[f"score_{cards.name}"], partition_key=DAY)
    assert run.state == "success"


def test_a_rollback_through_airflow(cards, run_dag):
    """The form of the DAG `roll_back`; whoever reads the predictions hears of it."""
    for _ in range(2):
        run, _ = run_dag(dag_of(cards), partition_key=DAY)
        assert run.state == "success"
    live = [item["run_id"] for item in read_publications(cards.services.bucket, cards.name, dt.date(2026, 11, 19))]
    conf = {"pipeline": cards.name, "partition": DAY, "reason": "the wrong night"}
    run, states = run_dag(make_rollback_dag(), conf)
    assert (run.state, states) == ("success", {("roll_back", -1): "success"})
    last = read_publications(cards.services.bucket, cards.name, dt.date(2026, 11, 19))[-1]
    assert (last["kind"], last["run_id"], last["reason"]) == ("rollback", live[0], "the wrong night")
    assert set(cards.published()["run_id"].to_pylist()) == {live[0]}
    [event] = events_of(run)
    assert event.asset.name == f"{cards.name}.predictions"
    assert (event.extra["run_id"], event.extra["partition"]) == (live[0], DAY)


@pytest.mark.thorough
def test_an_airflow_run_holds_the_lease_until_it_is_recorded(cards, run_dag):
    span = dt.timedelta(minutes=1)
    other = acquire(cards.services.bucket, cards.name, dt.date(2026, 11, 19), Holder("other", "the other run"), span)
    run, states = run_dag(dag_of(cards), partition_key=DAY)
    assert (run.state, states["plan", -1]) == ("failed", "failed")
    other.release()
    run, _ = run_dag(dag_of(cards), partition_key=DAY)
    assert run.state == "success"
    acquire(cards.services.bucket, cards.name, dt.date(2026, 11, 19), Holder("next", "the next run"), span).require()


def test_an_airflow_run_that_was_taken_over_goes_no_further(cards, run_dag):
    """Not even when whoever took it over has ended and published nothing."""

    def taken_over(pipeline, run, term, dag_run=None):
        span, day = dt.timedelta(minutes=1), dt.date(2026, 11, 19)
        acquire(cards.services.bucket, pipeline, day, Holder("anna", "anna"), span, take_over=True).release()

    dag = dag_of(cards)
    dag.get_task("feature_gate").python_callable = taken_over
    run, states = run_dag(dag, partition_key=DAY)
    assert run.state == "failed"
    assert {state for (task, _), state in states.items() if task == "score"} == {"failed"}
    assert cards.services.warehouse.find_table(f"{cards.name}.predictions") is None


def storage_client(services):
    return build_storage(services.warehouse.config)


def rows():
    frame = pd.DataFrame({"balance": np.linspace(0, 1, 500)})
    return frame, frame.balance > 0.5


def events_of(run):
    from airflow.models.asset import AssetEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select
    from sqlalchemy.orm import joinedload

    with create_session() as session:
        query = select(AssetEvent).where(AssetEvent.source_run_id == run.run_id, AssetEvent.source_dag_id == run.dag_id)
        found = list(session.scalars(query.options(joinedload(AssetEvent.asset))))
        session.expunge_all()
    return found
