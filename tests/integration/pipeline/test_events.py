"""What a night announces: each occurrence once, whoever comes back to it, and an end in any case."""

import datetime as dt
import json
import logging

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression

from nightscore import events, pipeline, run_events
from nightscore.cloud_log import _log_of
from nightscore.deadline import announce_if_missed
from nightscore.errors import LeaseLostError, TransientError
from nightscore.gates.gate import GateStoppedError
from nightscore.lease import Holder, LeaseHeldError, acquire
from nightscore.logs import JsonFormatter
from nightscore.pipeline import run_pipeline, start
from nightscore.run_events import unplanned
from nightscore.warehouse import WarehouseError
from sinks import running_sink

ROWS = 1_000
EARLIER = dt.date(2026, 11, 18)


@pytest.fixture
def told():
    """The payloads of all events that are announced, in their order."""
    found = []

    def listen(entry):
        found.append(entry.payload)

    events.subscribe(listen)
    yield found
    events._listeners.remove(listen)


def names(told):
    return [(item["event"], item.get("gate") or item.get("status") or item.get("resumed")) for item in told]


@pytest.fixture
def cards(bench):
    """Two nights of 1,000 accounts, and a champion."""
    rng = np.random.default_rng(7)
    balance = rng.normal(size=2 * ROWS)
    days = pa.array([bench.day] * ROWS + [EARLIER] * ROWS, pa.date32())
    table = pa.table({"id": [*range(ROWS), *range(ROWS)], "balance": balance, "snapshot_date": days})
    bench.write("features", table)
    rows = table.select(["balance"]).to_pandas()
    bench.register(LogisticRegression().fit(rows, rows.balance > 0), table.select(["balance"]))
    return bench


NIGHT = [
    ("run_planned", False),
    ("gate_judged", "feature_gate"),
    ("gate_judged", "prediction_gate"),
    ("run_ended", "published"),
]


def test_a_published_night_and_the_next_one(cards, told):
    summary = cards.run(day=EARLIER)
    assert names(told) == NIGHT
    planned, features, predictions, ended = told
    assert {item["run_id"] for item in told} == {summary["run_id"]}
    assert len({item["trace_id"] for item in told}) == 1
    assert (planned["rows"], planned["model_version"]) == (ROWS, f"{cards.name}/1")
    assert "queue_delay_seconds" not in planned
    assert (features["verdict"], features["failed_checks"], predictions["verdict"]) == ("pass", "", "pass")
    assert (ended["rows_frozen"], ended["rows_scored"], ended["rows_published"]) == (ROWS, ROWS, ROWS)
    assert (ended["rows_rejected"], ended["stopped_at"], ended["model_version"]) == (0, "", f"{cards.name}/1")
    assert ended["rows_per_second"] > 0
    assert ended["bytes_billed"] >= summary["bytes_processed"] > 0
    told.clear()
    cards.run()
    assert names(told) == [*NIGHT[:3], ("drift_measured", None), NIGHT[3]]
    drift = told[3]
    assert drift["rows_change"] == 0
    assert 0 < drift["psi"] < 0.2
    assert 0 <= drift["mean_shift"] < 0.2
    about, now, minute = events.About(cards.name, cards.day), dt.datetime.now(dt.UTC), dt.timedelta(minutes=1)
    assert not announce_if_missed(cards.services, about, "06:00", now, now + minute)
    assert announce_if_missed(cards.services, about, "06:00", now - minute, now), "it came too late"


def test_a_refused_night_says_where(cards, told):
    checks = {"features": [{"expect": "expect_table_row_count_to_be_between", "min_value": ROWS + 1}]}
    spec = cards.spec(checks=checks)
    with pytest.raises(GateStoppedError):
        cards.run(spec)
    assert names(told) == [*NIGHT[:2], ("run_ended", "refused")]
    assert (told[1]["verdict"], told[1]["failed_checks"]) == ("stop", "expect_table_row_count_to_be_between")
    assert (told[2]["stopped_at"], told[2]["rows_frozen"]) == ("feature_gate", ROWS)
    assert "rows_published" not in told[2]


def test_a_run_that_is_taken_up_announces_what_was_not_announced(cards, told, monkeypatch):
    """A server fails at the publication; the next attempt does not repeat the gates' events."""
    stage = next(stage for stage in pipeline.STAGES if stage.__name__ == "publish")

    def publish(run):
        raise TransientError("the server is away")

    broken = tuple(publish if item is stage else item for item in pipeline.STAGES)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "STAGES", broken)
        with pytest.raises(TransientError):
            cards.run()
    assert names(told) == [*NIGHT[:3], ("run_ended", "failed")]
    failed = told[-1]
    assert (failed["rows_frozen"], failed["rows_scored"], failed["stopped_at"]) == (ROWS, ROWS, "")
    told.clear()
    cards.run()
    assert names(told) == [("run_planned", True), ("run_ended", "published")]


@pytest.mark.thorough
def test_a_death_between_an_event_and_its_record_repeats_the_same_entry(cards, monkeypatch):
    """Cloud Logging keeps one of two entries with the same id and time; the second attempt writes such a one."""
    entries = []
    events.subscribe(entries.append)
    run = start(cards.spec(), cards.day, cards.services)
    write = type(run.records).write_once

    def dying(self, name, content):
        if name == "run":
            raise KeyboardInterrupt
        return write(self, name, content)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(type(run.records), "write_once", dying)
            with pytest.raises(KeyboardInterrupt):
                run_pipeline(run)
        cards.run()
    finally:
        events._listeners.remove(entries.append)
    first, second = [entry for entry in entries if entry.payload["event"] == "run_ended"]
    assert first == second


def test_what_cannot_be_planned_has_ended_too(cards, told):
    with (
        pytest.raises(Exception, match="has no row"),
        unplanned(cards.services, cards.name, dt.date(2020, 1, 1), "plan"),
    ):
        start(cards.spec(), dt.date(2020, 1, 1), cards.services)
    with pytest.raises(Exception, match="nobody"), unplanned(cards.services, cards.name, cards.day, "plan"):
        start(cards.spec(model={"name": cards.name, "alias": "nobody"}), cards.day, cards.services)
    assert [(item["status"], item["stopped_at"], item["run_id"]) for item in told] == [
        ("refused", "plan", ""),
        ("failed", "", ""),
    ]


def test_a_second_run_beside_the_first_is_no_failure_of_the_night(cards, told):
    span = dt.timedelta(minutes=1)
    first = acquire(cards.services.bucket, cards.name, cards.day, Holder("first", "the first run"), span)
    with pytest.raises(LeaseHeldError), unplanned(cards.services, cards.name, cards.day, "plan"):
        start(cards.spec(), cards.day, cards.services)
    assert told == []
    first.release()


def test_a_deadline_is_missed_once(cards, told):
    about, deadline = events.About(cards.name, cards.day), dt.datetime(2026, 11, 20, 6, tzinfo=dt.UTC)
    early, late = deadline - dt.timedelta(seconds=1), deadline + dt.timedelta(minutes=1)
    assert not announce_if_missed(cards.services, about, "06:00", deadline, early)
    assert announce_if_missed(cards.services, about, "06:00", deadline, late)
    assert not announce_if_missed(cards.services, about, "06:00", deadline, late)
    assert [(item["event"], item["deadline"]) for item in told] == [("deadline_missed", "06:00")]


def test_a_deadline_that_was_kept_and_not_said_is_said_by_the_next(cards, told, monkeypatch):
    about, deadline = events.About(cards.name, cards.day), dt.datetime(2026, 11, 20, 6, tzinfo=dt.UTC)
    late = deadline + dt.timedelta(minutes=1)

    def die(_):
        raise SystemExit

    with monkeypatch.context() as killed:
        killed.setattr(events, "write_line", die)
        with pytest.raises(SystemExit):
            announce_if_missed(cards.services, about, "06:00", deadline, late)
    assert told == []
    assert announce_if_missed(cards.services, about, "06:00", deadline, late)
    assert not announce_if_missed(cards.services, about, "06:00", deadline, late)
    assert [item["event"] for item in told] == ["deadline_missed"]


def test_nobody_is_called_for_a_night_that_is_taken_up_days_later(cards, told):
    about, deadline = events.About(cards.name, cards.day), dt.datetime(2026, 11, 20, 6, tzinfo=dt.UTC)
    assert not announce_if_missed(cards.services, about, "06:00", deadline, deadline + dt.timedelta(days=2))
    assert told == []


def test_what_fails_after_the_publication_is_no_failure_of_the_night(cards, told, monkeypatch):
    def fail(_):
        raise WarehouseError("recording", "it is away")

    with monkeypatch.context() as away:
        away.setattr(pipeline, "record", fail)
        with pytest.raises(WarehouseError):
            cards.run()
    assert names(told)[-1] == ("run_ended", "published")


def test_whoever_lost_the_lease_says_nothing_of_the_end(cards, told, monkeypatch):
    run = start(cards.spec(), cards.day, cards.services)

    def lose(*_):
        raise LeaseLostError(cards.name, cards.day, "another run")

    monkeypatch.setattr(pipeline, "run_stage", lose)
    with pytest.raises(LeaseLostError):
        pipeline.run_pipeline(run)
    assert names(told) == NIGHT[:1]


@pytest.mark.thorough
def test_stages_that_begin_after_the_deadline_say_so(cards, told, monkeypatch):
    """Where no scheduler looks at the clock: a run from a terminal, or one that an event started."""
    now = dt.datetime.now(dt.UTC)
    day = now.date()
    cards.sql(f"UPDATE {{dataset}}.features SET snapshot_date = DATE '{day}' WHERE snapshot_date = DATE '{cards.day}'")
    at = (now + dt.timedelta(minutes=2)).strftime("%H:%M")
    run = start(cards.spec(deadline=at), day, cards.services)
    monkeypatch.setattr(run_events, "utc_now", lambda: now + dt.timedelta(minutes=3))
    run_pipeline(run)
    late = [item for item in told if item["event"] == "deadline_missed"]
    assert [(item["deadline"], item["run_id"]) for item in late] == [(at, run.plan.run_id)]


def test_every_line_of_a_run_says_whose_it_is(cards, monkeypatch):
    """Also those of the threads that read, score and upload."""
    lines = []

    class Lines(logging.Handler):
        def emit(self, record):
            lines.append(json.loads(JsonFormatter().format(record)))

    from nightscore.registry import model

    predict = model.Model.predict_decoded

    def chatty(self, features):
        logging.getLogger("nightscore.test").info("scoring")
        return predict(self, features)

    monkeypatch.setattr(model.Model, "predict_decoded", chatty)
    logger, handler = logging.getLogger("nightscore"), Lines()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        summary = cards.run()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    ours = [line for line in lines if "run_id" in line]
    assert {line["run_id"] for line in ours} == {summary["run_id"]}
    assert len({line["trace_id"] for line in ours}) == 1
    assert all(line["pipeline"] == cards.name for line in lines)
    assert {line["shard"] for line in ours if line.get("message") == "scoring"} == {0, 1}


@pytest.mark.thorough
def test_a_log_service_that_hangs_costs_seconds_of_a_night(cards, monkeypatch):
    import dataclasses

    from nightscore import cloud_log

    monkeypatch.setattr(cloud_log, "PATIENCE", 0.5)
    with running_sink() as sink:
        sink.open.clear()
        warehouse = cards.services.warehouse
        monkeypatch.setattr(
            warehouse, "config", dataclasses.replace(warehouse.config, events_log="nightscore", logging_host=sink.url)
        )
        assert cards.run()["status"] == "published"
    _log_of.cache_clear()
