"""A pipeline's deadline as an alert of its DAG, and what the triggerer makes of it."""

import asyncio
import datetime as dt
import time

import pytest
from airflow.serialization.serialized_objects import DagSerialization

from nightscore.orchestration import deadlines
from nightscore.orchestration.factory import make_dag
from nightscore.specs import parse_spec

SPEC = """
schedule: {schedule}
features: {{table: features.cards, partition: snapshot_date, keys: [account_id]}}
model: {{name: credit_default}}
predictions: {{table: predictions.cards}}
deadline: "06:00"
"""


def spec_of(schedule, deadline="06:00"):
    return parse_spec("cards", SPEC.format(schedule=schedule).replace("06:00", deadline))


@pytest.mark.parametrize(
    ("schedule", "deadline", "interval"),
    [
        ('"0 2 * * *"', "06:00", "4:00:00"),
        ('{cron: "30 1 * * *", timezone: Europe/Amsterdam}', "06:00", "4:30:00"),
        ('{cron: "0 22 * * *", timezone: Asia/Kolkata}', "06:00", "8:00:00"),
        ('"0 2,14 * * *"', "06:00", "4:00:00"),
        ('"0 4 * * 1"', "03:00", "23:00:00"),
        ('"0 2 * * *"', "02:00", "0:00:00"),
        ("{after: features.cards_raw}", "06:00", "None"),
    ],
)
def test_the_interval_is_from_the_tick_to_the_deadline(schedule, deadline, interval):
    assert str(deadlines.shortest_interval(spec_of(schedule, deadline))) == interval


def test_a_dag_with_a_deadline_survives_being_stored():
    dag = make_dag(spec_of('"0 2 * * *"'))
    stored = DagSerialization.to_dict(dag)
    [alert] = stored["dag"]["deadline"]
    text = str(alert)
    assert deadlines.CALLBACK in text
    assert "DagRunQueuedAtDeadline" in text
    assert DagSerialization.from_dict(stored).dag_id == "score_cards"


def test_a_dag_without_one_has_no_alert():
    assert (
        make_dag(parse_spec("cards", SPEC.format(schedule='"0 2 * * *"').replace('deadline: "06:00"', ""))).deadline
        is None
    )


def run_of(**changes):
    """Return a run as Airflow's API, and so the context of an alert, shows it."""
    return {
        "dag_id": "score_cards",
        "dag_run_id": "scheduled__2026-11-20",
        "run_type": "scheduled",
        "state": "running",
        "run_after": "2026-11-20T02:00:00Z",
        "queued_at": "2026-11-20T02:00:03Z",
        "partition_key": "2026-11-19",
        **changes,
    }


@pytest.fixture
def looks(monkeypatch):
    """What was looked at, instead of the bucket: the live test has a real one."""
    found = []

    def look(*arguments):
        found.append(arguments)
        return True

    monkeypatch.setattr(deadlines, "_look", look)
    return found


def look(run, schedule='"0 2 * * *"', deadline="06:00"):
    arguments = deadlines.alert_of(spec_of(schedule, deadline)).callback.kwargs
    return asyncio.run(deadlines.look(**arguments, context={"dag_run": run, "deadline": {}}))


def test_a_scheduled_run_that_goes_on_is_looked_at(looks):
    assert look(run_of()) == "the deadline was missed"
    moment = dt.datetime(2026, 11, 20, 6, tzinfo=dt.UTC)
    assert looks == [("cards", dt.date(2026, 11, 19), "06:00", moment)]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"run_type": "backfill"}, "nobody waits for it by the clock: the run is backfill"),
        ({"run_type": "manual"}, "nobody waits for it by the clock: the run is manual"),
        ({"run_type": "asset_triggered"}, "nobody waits for it by the clock: the run is asset_triggered"),
        ({"state": "failed"}, "the run ended before: failed"),
        ({"state": "success"}, "the run ended before: success"),
        ({"partition_key": "2026-10-01"}, "this run has no deadline"),
        ({"partition_key": None}, "this run has no deadline"),
    ],
)
def test_nobody_is_called_for_what_nobody_waits_for(looks, changes, why):
    assert look(run_of(**changes)) == why
    assert looks == []


def test_an_alert_that_comes_early_waits(looks, monkeypatch):
    """The night on which the clocks are put back has an hour more than Airflow's interval."""
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    now = dt.datetime.now(dt.UTC)
    tick = now - dt.timedelta(hours=1)
    deadline = now + dt.timedelta(minutes=30)
    night = (tick - dt.timedelta(days=1)).date().isoformat()
    run = run_of(run_after=tick.isoformat(), partition_key=night)
    look(run, f'"{tick.minute} {tick.hour} * * *"', f"{deadline:%H:%M}")
    [seconds] = slept
    assert 28 * 60 < seconds <= 30 * 60
    assert len(looks) == 1


def test_looking_does_not_hold_up_the_triggerer(monkeypatch):
    monkeypatch.setattr(deadlines, "_look", lambda *_: time.sleep(0.5))

    async def both():
        arguments = deadlines.alert_of(spec_of('"0 2 * * *"')).callback.kwargs
        looking = asyncio.create_task(deadlines.look(**arguments, context={"dag_run": run_of()}))
        turns = 0
        while not looking.done():
            await asyncio.sleep(0.02)
            turns += 1
        return turns

    assert asyncio.run(both()) > 5
