"""Servers and networks fail: a run completes exactly, or ends with an error that says so and that a retry cures."""

import re

import pytest

from faults import exchange
from faults.network import BIGQUERY, STORAGE, Rule, all_from, first_of_each, only

DAYS = 30
# Ample for a fault that passes; a service that stays away is given up after so many seconds.
PATIENT, IMPATIENT = 20.0, 1.0
NOT_OURS = re.compile(r"Traceback|Error: \S+ is not")
CLEAR = re.compile(r"(WarehouseError|ObjectStoreError): (BigQuery|Cloud Storage) failed while \w+")

FAULTS = {
    "429": exchange.status(429),
    "500": exchange.status(500),
    "503": exchange.status(503),
    "reset": exchange.reset,
    "lost answer": exchange.lost_answer,
    "503 for what was done": exchange.done_but_unavailable,
    "half an answer": exchange.half_answer,
    "half a request": exchange.half_request,
    "stall": exchange.stalled(0.2),
}

SIMILAR = ("500", "503", "reset", "503 for what was done")  # each is like one of the others


def failed_clearly(ended):
    return ended.code == 3 and CLEAR.search(ended.err) is not None and NOT_OURS.search(ended.err) is None


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.thorough if name in SIMILAR else []) for name in FAULTS]
)
def test_a_run_survives_a_fault_of_every_kind_of_request(nights, network, name):
    """Each kind of request that a run sends fails once, all in the same run."""
    day, rule = nights.next_day(), Rule(first_of_each, FAULTS[name])
    network.begin(rule)
    ended = nights.start(day, network, patience=PATIENT).wait()
    assert ended.code == 0, ended.err
    assert nights.content(day) == nights.new
    assert len(rule.met) > 40
    assert {call.server for call in rule.met} == {BIGQUERY, STORAGE}


OUTAGES = (
    "storage: read registry/models/PIPELINE/aliases/champion.json",
    "bigquery: get table features",
    "bigquery: job CREATE TABLE PIPELINE__RUN__frozen",
    "storage: create runs/PIPELINE/RUN/freeze.json",
    "bigquery: query SELECT table_row_count",
    "storage: create runs/PIPELINE/RUN/feature_gate.json",
    "storage: read registry/models/PIPELINE/versions/1/model.skops",
    "storage: create runs/PIPELINE/RUN/score.json",
    "bigquery: load into PIPELINE__RUN__staged",
    "storage: create runs/PIPELINE/RUN/prediction_gate.json",
    "bigquery: job MERGE predictions",
    "storage: create runs/PIPELINE/RUN/publish.json",
    "bigquery: job MERGE runs",
    "storage: create runs/PIPELINE/RUN/run.json",
)


def test_a_service_that_goes_away_in_any_stage_is_named_and_the_next_run_goes_on(nights, network):
    """One night: every run of it meets an outage in the stage that it reaches, and the last one none."""
    day = nights.next_day()
    for first in OUTAGES:
        rule = Rule(all_from(first), exchange.status(503))
        network.begin(rule)
        ended = nights.start(day, network, patience=IMPATIENT).wait()
        assert rule.met, first
        assert failed_clearly(ended), (first, ended.code, ended.err)
        assert nights.content(day) in (nights.old, nights.new)
    network.begin()
    assert nights.start(day, network).wait().code == 0
    assert nights.content(day) == nights.new


@pytest.mark.parametrize(
    "what",
    [
        pytest.param("bigquery: query SELECT table_row_count", marks=pytest.mark.thorough),
        "bigquery: job MERGE predictions",
    ],
)
def test_a_request_that_is_never_answered_is_given_up(nights, network, what):
    day, rule = nights.next_day(), Rule(only(what), exchange.stalled(300))
    network.begin(rule)
    ended = nights.start(day, network, patience=IMPATIENT).wait()
    assert rule.met
    assert failed_clearly(ended), (ended.code, ended.err)
    network.begin()
    assert nights.start(day, network).wait().code == 0
    assert nights.content(day) == nights.new


@pytest.mark.thorough
def test_a_refusal_that_breaks_off_is_an_outage_and_not_an_answer(nights, network):
    """`There is no such record` must not be heard in half of it."""
    day, rule = nights.next_day(), Rule(only("storage: read runs/PIPELINE/RUN/freeze.json"), exchange.half_refusal)
    network.begin(rule)
    ended = nights.start(day, network, patience=PATIENT).wait()
    assert rule.met
    assert failed_clearly(ended), (ended.code, ended.err)
    network.begin()
    assert nights.start(day, network).wait().code == 0
    assert nights.content(day) == nights.new
