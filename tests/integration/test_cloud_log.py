"""Cloud Logging by Google's client, against a server that speaks its REST method: it takes, refuses, hangs, is away."""

import dataclasses
import datetime as dt
import logging
import time

import pytest

from nightscore import cloud_log
from nightscore.events import About, DeadlineMissed, RunEnded, announce
from nightscore.settings import Settings
from sinks import running_sink

ABOUT = About("cards", dt.date(2026, 11, 19), "2026-11-19-06aae3cf")


@pytest.fixture
def sink():
    with running_sink() as server:
        yield server


@pytest.fixture
def config(sink):
    """Settings with a log; the cache of logs is left as it was found."""
    yield Settings(project="night", bucket="b", events_log="nightscore", logging_host=sink.url)
    cloud_log._log_of.cache_clear()


@pytest.fixture
def warnings(caplog):
    """What was warned of, in the order in which it was."""
    caplog.set_level(logging.INFO)
    return lambda: [r.getMessage() for r in caplog.records if r.levelname == "WARNING" and r.name != "nightscore.event"]


def test_an_entry_is_what_alerts_filter_by(config, sink, warnings):
    announce(config, RunEnded("refused", "feature_gate", rows_frozen=500), ABOUT)
    [entry] = sink.entries
    assert entry["logName"] == "projects/night/logs/nightscore"
    assert entry["severity"] == "WARNING"
    assert entry["resource"] == {"type": "global", "labels": {"project_id": "night"}}
    payload = entry["jsonPayload"]
    assert payload == {
        "event": "run_ended",
        "message": "cards 2026-11-19: the run 2026-11-19-06aae3cf ended: refused at feature_gate.",
        "pipeline": "cards",
        "partition": "2026-11-19",
        "run_id": "2026-11-19-06aae3cf",
        "trace_id": payload["trace_id"],
        "status": "refused",
        "stopped_at": "feature_gate",
        "rows_frozen": 500,
    }
    assert entry["trace"] == f"projects/night/traces/{payload['trace_id']}"
    assert warnings() == []


def test_the_same_occurrence_has_the_same_id_and_time(config, sink):
    """By which Cloud Logging keeps one of the two."""
    store = {}
    for _ in range(2):
        announce(config, RunEnded("published"), ABOUT, keep=store.setdefault)
        time.sleep(0.01)
    first, second = sink.entries
    assert (first["insertId"], first["timestamp"]) == (second["insertId"], second["timestamp"])


def test_a_refusal_is_told_once_and_asked_once(config, sink, warnings):
    sink.answer = 403
    began = time.monotonic()
    for _ in range(2):
        announce(config, DeadlineMissed("06:00"), ABOUT)
    assert time.monotonic() - began < 4
    assert len(sink.bodies["/v2/entries:write"]) == 2, "a refusal was tried again"
    [warning] = warnings()
    assert "refuses events: Forbidden" in warning


def test_a_passing_failure_is_tried_again(config, sink, warnings):
    sink.answer = 503

    def heal(*_):
        sink.answer = 200

    announcing = time.monotonic()
    import threading

    threading.Timer(0.3, heal).start()
    announce(config, RunEnded("published"), ABOUT)
    assert time.monotonic() - announcing < 5
    assert len(sink.entries) >= 2
    assert warnings() == []


def test_a_log_that_hangs_costs_some_seconds_once(config, sink, warnings, monkeypatch):
    monkeypatch.setattr(cloud_log, "PATIENCE", 1.0)
    sink.open.clear()
    began = time.monotonic()
    for _ in range(5):
        announce(config, RunEnded("published"), ABOUT, occurrence=str(_))
    assert time.monotonic() - began < 2
    assert len(warnings()) == 1
    sink.open.set()  # it comes back while the process still works
    limit = time.monotonic() + 20
    while len(sink.entries) < 5 and time.monotonic() < limit:
        time.sleep(0.05)
    assert len({entry["insertId"] for entry in sink.entries}) == 5


def test_entries_that_are_taken_use_up_no_patience(config, sink, warnings, monkeypatch):
    monkeypatch.setattr(cloud_log, "PATIENCE", 0.5)
    sink.delay = 0.1
    for number in range(10):
        announce(config, RunEnded("published"), ABOUT, occurrence=str(number))
    assert len(sink.entries) == 10
    assert warnings() == []


def test_a_log_that_is_away_costs_no_night(config, sink, warnings, monkeypatch):
    monkeypatch.setattr(cloud_log, "PAUSES", (0.05,))
    away = dataclasses.replace(config, logging_host="http://127.0.0.1:1")
    began = time.monotonic()
    announce(away, RunEnded("published"), ABOUT)
    assert time.monotonic() - began < 4
    [warning] = warnings()
    assert "refuses events: ConnectionError" in warning


def test_without_the_setting_nothing_is_sent(config, sink):
    announce(dataclasses.replace(config, events_log=None), RunEnded("published"), ABOUT)
    assert sink.bodies == {}
