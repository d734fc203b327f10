"""Several runs of one partition at once, and runs that wake up after others took their place."""

import re
import time
from concurrent.futures import Future

import pytest

from faults.exchange import Held
from faults.network import Rule, only

DAYS = 12
FEWER = 250  # rows that are left for a successor
ENDS = {"LeaseLostError": 3, "SupersededError": 1}  # whichever a run that was replaced meets first


def publications(nights, day):
    return list(nights.bench.services.bucket.iter_names(f"publications/{nights.name}/{day}/"))


@pytest.mark.parametrize("number", [2, 8])
def test_of_runs_at_once_one_publishes_and_the_others_name_it(nights, network, number):
    day, held = nights.next_day(), Held()
    network.begin(Rule(only("storage: create runs/PIPELINE/RUN/plan.json"), held))
    processes = [nights.start(day, network) for _ in range(number)]
    assert held.arrived.wait(60)
    while sum(process.process.exitcode is None for process in processes) > 1:
        [process.process.join(0.05) for process in processes]
    held.let_go()
    ended = {process.pid: process.wait() for process in processes}
    [winner] = [pid for pid, found in ended.items() if found.code == 0]
    del ended[winner]
    assert {found.code for found in ended.values()} == {3}
    for found in ended.values():
        assert f"LeaseHeldError: {nights.name}: {day} is being worked on by" in found.err
        assert f"(process {winner})" in found.err
    assert nights.content(day) == nights.new
    assert len(publications(nights, day)) == 1


def test_runs_that_wait_for_each_other_all_publish(nights, network):
    day = nights.next_day()
    network.begin()
    processes = [nights.start(day, network, "--wait", "120") for _ in range(2)]
    assert [process.wait().code for process in processes] == [0, 0]
    assert nights.content(day) == nights.new
    assert len(publications(nights, day)) == 2


def test_a_run_whose_server_is_slow_keeps_its_lease(nights, network):
    """It waits for one answer longer than its lease lasts, and renews it all the while."""
    day, held = nights.next_day(), Held()
    network.begin(Rule(only("bigquery: load into PIPELINE__RUN__staged"), held))
    slow = nights.start(day, network, NIGHTSCORE_LEASE_SECONDS="3")
    assert held.arrived.wait(60)
    time.sleep(6)
    other = nights.start(day, network).wait()
    assert (other.code, f"(process {slow.pid})" in other.err) == (3, True), other.err
    held.let_go()
    assert slow.wait().code == 0
    assert nights.content(day) == nights.new


@pytest.mark.parametrize(
    ("request_", "forwarded"),
    [
        pytest.param("bigquery: load into PIPELINE__RUN__staged", False, marks=pytest.mark.thorough),
        pytest.param("bigquery: job MERGE fences", False, marks=pytest.mark.thorough),
        ("bigquery: job MERGE predictions", False),
        ("bigquery: job MERGE predictions", True),
    ],
    ids=["before staging", "before its fence", "before its MERGE", "after its MERGE"],
)
def test_a_run_that_sleeps_over_its_lease_changes_nothing_any_more(nights, network, request_, forwarded):
    """It is suspended, its lease expires, another run publishes other rows, and it wakes up."""
    day, sleeper = nights.next_day(), Future()
    held = Held(lambda: sleeper.result().stop(), forwarded=forwarded)
    network.begin(Rule(only(request_), held))
    sleeper.set_result(nights.start(day, network, NIGHTSCORE_LEASE_SECONDS="2"))
    assert held.arrived.wait(60)
    network.begin()
    nights.keep_first(day, FEWER)
    assert nights.start(day, network, "--wait", "60").wait().code == 0
    assert nights.content(day) == nights.first(FEWER)
    held.let_go()
    sleeper.result().resume()
    ended = sleeper.result().wait()
    [error] = re.findall(r"^(\w+Error):", ended.err, re.MULTILINE)
    assert ended.code == ENDS[error], ended.err
    assert nights.content(day) == nights.first(FEWER)
