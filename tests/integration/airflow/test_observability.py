"""A live Airflow that says what it does: events, metrics, lineage, and lines of a task's log.

One night is published while another one waits for data beyond its deadline.
"""

import datetime as dt
import json
import re
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression

from faults.valve import eventually
from nightscore.demo.airflow_server import running
from nightscore.local.ports import free_ports
from nightscore.records import RunRecords, run_ids
from nightscore.spec import Schedule
from sinks import running_sink

ROOT = Path(__file__).resolve().parents[3]
FACET = json.loads((ROOT / "docs" / "openlineage" / "NightscoreRunFacet.json").read_text())
ROWS = 500


@pytest.fixture
def sink():
    with running_sink() as server:
        yield server


@pytest.fixture
def cards(pipelines):
    """A pipeline whose night is due, and one whose data will not come and whose deadline is when its night is due."""
    now = dt.datetime.now(dt.UTC)
    tick = now - dt.timedelta(minutes=1)
    cron = f"{tick.minute} {tick.hour} * * *"
    day = Schedule(cron=cron).latest_partition(now)
    frame = pd.DataFrame({"balance": np.linspace(0, 1, ROWS), "age": np.linspace(20, 70, ROWS)})
    table = pa.table({"id": range(ROWS), **{name: frame[name].to_numpy() for name in frame}})
    table = table.append_column("snapshot_date", pa.array([day] * ROWS, pa.date32()))
    pipelines.write("features", table)
    pipelines.register(LogisticRegression().fit(frame, frame.balance > 0.5), table.select(["balance", "age"]))
    features = {"reject": {"young": "age < 18"}}
    pipelines.add_pipeline(pipelines.spec_text(schedule=cron, features=features, limits={"shards": 1}))
    wait = {"timeout": "30m", "every": "5s", "until": f"rows >= {ROWS + 1}"}
    text = pipelines.spec_text(
        schedule=cron,
        deadline=f"{tick:%H:%M}",
        features={"wait": wait},
        predictions={"table": f"{pipelines.name}.late"},
    )
    pipelines.add_pipeline(text, name=f"late_{pipelines.name}")
    pipelines.night = day
    return pipelines


@pytest.mark.slow
def test_what_a_night_says_of_itself(cards, local_servers, sink):
    root = cards.folder / "checkout"
    (root / "dags").mkdir(parents=True)
    (root / "dags" / "scoring.py").write_text((ROOT / "dags" / "scoring.py").read_text())
    cards.pipelines.rename(root / "dags" / "pipelines")
    night, late = f"score_{cards.name}", f"score_late_{cards.name}"
    transport = {"type": "http", "url": sink.url, "endpoint": "api/v1/lineage"}
    environment = local_servers.environment() | {
        "NIGHTSCORE_EVENTS_LOG": "nightscore",
        "LOGGING_EMULATOR_HOST": sink.url,
        "AIRFLOW__METRICS__OTEL_ON": "True",
        "OTEL_SDK_DISABLED": "false",
        "OTEL_EXPORTER_OTLP_ENDPOINT": sink.url,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport),
        "AIRFLOW__OPENLINEAGE__NAMESPACE": "nights",
    }
    [port] = free_ports(cards.name, 1)
    with running(root, port, environment, print) as airflow:
        for dag_id in (late, night):
            eventually(lambda dag_id=dag_id: airflow.find_dag(dag_id))
            airflow.call("PATCH", f"/dags/{dag_id}?update_mask=is_paused", {"is_paused": False})
        ended = eventually(lambda: ended_run(airflow, night, cards.night))
        assert ended["state"] == "success"
        missed = eventually(lambda: [e for e in sink.entries if e["jsonPayload"]["event"] == "deadline_missed"])
        assert not ended_run(airflow, late, cards.night)
        log = airflow.call("GET", f"/dags/{night}/dagRuns/{ended['dag_run_id']}/taskInstances/feature_gate/logs/1")
        [run_id] = run_ids(cards.services.bucket, cards.name)
    check_events(sink, cards, run_id)
    [entry] = missed
    assert (entry["severity"], entry["jsonPayload"]["pipeline"]) == ("ERROR", f"late_{cards.name}")
    assert entry["jsonPayload"]["partition"] == cards.night.isoformat()
    check_log(log, cards, run_id, trace_of(sink, cards))
    check_metrics(sink, cards)
    check_lineage(sink, cards, run_id)


def check_events(sink, cards, run_id):
    found = [entry["jsonPayload"] for entry in sink.entries if entry["jsonPayload"]["pipeline"] == cards.name]
    assert [item["event"] for item in found] == ["run_planned", "gate_judged", "gate_judged", "run_ended"]
    assert {item["run_id"] for item in found} == {run_id}
    assert {item["trace_id"] for item in found} == {trace_of(sink, cards)}
    assert 0 < found[0]["queue_delay_seconds"] < 600
    assert (found[3]["status"], found[3]["rows_published"]) == ("published", ROWS)


def trace_of(sink, cards):
    """Return the one trace of the night's events: Airflow's own, which all tasks of its run share."""
    [found] = {e["jsonPayload"]["trace_id"] for e in sink.entries if e["jsonPayload"]["pipeline"] == cards.name}
    assert re.fullmatch("[0-9a-f]{32}", found)
    return found


def check_log(log, cards, run_id, trace_id):
    """Airflow's lines hold what tells a run; the event is one of them, and JSON itself."""
    lines = [line for line in log["content"] if line.get("logger", "").startswith("nightscore")]
    ours = [line for line in lines if line.get("run_id") == run_id]
    assert ours
    assert {line["pipeline"] for line in ours} == {cards.name}
    assert {line["trace_id"] for line in ours} == {trace_id}
    assert all(line["airflow_run_id"] for line in ours)
    [event] = [json.loads(line["event"]) for line in ours if line["logger"] == "nightscore.event"]
    assert (event["event"], event["gate"], event["verdict"]) == ("gate_judged", "feature_gate", "pass")


def check_metrics(sink, cards):
    found = {name: points for name, points in sink.metrics.items() if "nightscore." in name}
    tags = {"pipeline": cards.name, "model": cards.name}
    assert (tags, ROWS) in found["airflow.nightscore.rows"]
    for name in ("rows_per_second", "bytes_billed", "queue_delay"):
        assert [value for own, value in found[f"airflow.nightscore.{name}"] if own == tags and value > 0], name
    for gate in ("feature_gate", "prediction_gate"):
        assert ({**tags, "gate": gate, "result": "pass"}, 1) in found["airflow.nightscore.gate"]
    assert ({**tags, "status": "published"}, 1) in found["airflow.nightscore.run"]


def check_lineage(sink, cards, run_id):
    dag_id = f"score_{cards.name}"
    [event] = [e for e in sink.lineage if e["job"]["name"] == f"{dag_id}.publish" and e["eventType"] == "RUNNING"]
    project = cards.services.warehouse.config.project
    source, target = f"{project}.{cards.name}.features", f"{project}.{cards.name}.predictions"
    [read], [written] = event["inputs"], event["outputs"]
    assert (read["namespace"], read["name"]) == ("bigquery", source)
    assert (written["namespace"], written["name"]) == ("bigquery", target)
    columns = {field["name"]: field["type"] for field in read["facets"]["schema"]["fields"]}
    assert columns == {"id": "INT64", "snapshot_date": "DATE", "balance": "FLOAT64", "age": "FLOAT64"}
    assert [field["name"] for field in written["facets"]["schema"]["fields"]] == [
        *("id", "snapshot_date", "score", "model_version", "run_id", "scored_at")
    ]
    lineage = written["facets"]["columnLineage"]
    origins = {
        name: [(item["name"], item["field"], item["transformations"][0]["subtype"]) for item in field["inputFields"]]
        for name, field in lineage["fields"].items()
    }
    assert origins == {
        "id": [(source, "id", "IDENTITY")],
        "snapshot_date": [(source, "snapshot_date", "IDENTITY")],
        "score": [(source, "balance", "TRANSFORMATION"), (source, "age", "TRANSFORMATION")],
    }
    assert [(i["field"], i["transformations"][0]["subtype"]) for i in lineage["dataset"]] == [
        ("snapshot_date", "FILTER"),
        ("age", "FILTER"),
    ]
    assert written["outputFacets"]["outputStatistics"]["rowCount"] == ROWS
    for facets in (read["inputFacets"], written["facets"]):
        verdicts = facets["dataQualityAssertions"]["assertions"]
        assert verdicts
        assert all(item["success"] for item in verdicts)
    facet = event["run"]["facets"]["nightscore"]
    jsonschema.validate(facet, FACET, cls=jsonschema.Draft202012Validator)
    assert facet["_schemaURL"] == FACET["$id"]
    plan = RunRecords(cards.services.bucket, cards.name, run_id).read("plan")
    assert (facet["modelName"], facet["modelVersion"], facet["runId"]) == (cards.name, 1, run_id)
    assert facet["modelDigest"] == plan["model"]["digest"]
    # What it says belongs to the run of the task, as Airflow's own events know it.
    [start] = [e for e in sink.lineage if e["job"]["name"] == f"{dag_id}.publish" and e["eventType"] == "START"]
    assert event["run"]["runId"] == start["run"]["runId"]
    assert event["run"]["facets"]["parent"]["run"] == start["run"]["facets"]["parent"]["run"]


def ended_run(airflow, dag_id, night):
    runs = airflow.runs_of(dag_id, night.isoformat())
    return runs[0] if runs and runs[0]["state"] in ("success", "failed") else None
