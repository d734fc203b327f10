"""A run is killed at any moment: one more run completes it, and no reader ever sees anything in between.

`KILLS=300 pytest -n 0 -s` (`make torture N=300`) kills as often as that, before, during and after every request that
is sent to write and then at random times, and prints what it found.
"""

import itertools
import os
import random
import sys

import pytest

from faults.kills import AFTER, BEFORE, Kill, boundaries, every_boundary, figures, kill_and_run_again
from faults.nights import Content

KILLS = int(os.environ.get("KILLS", "0"))
DAYS = KILLS + 80
RANDOM_KILLS = 3
NO_HEARTBEAT = {"NIGHTSCORE_LEASE_SECONDS": "3600"}
HEARTBEATS = {"NIGHTSCORE_LEASE_SECONDS": "2"}
NOTHING = Content(0, 0, 0, 0)

pytestmark = pytest.mark.timeout(0 if KILLS else 3000)


@pytest.fixture(scope="module")
def undisturbed(nights, network):
    """What a run asks of its services when nothing happens to it, and how long it takes."""
    day = nights.next_day()
    assert nights.content(day) == nights.old
    network.begin()
    ended = nights.start(day, network, **NO_HEARTBEAT).wait()
    assert (ended.code, nights.content(day)) == (0, nights.new), ended.err
    return network.journal.calls, ended.seconds


@pytest.fixture(scope="module")
def shown(nights, undisturbed):
    """What became of every kill; printed at the end of a long run."""
    outcomes = []
    yield outcomes
    tell(figures(outcomes, undisturbed[0], nights.old, nights.new))


def tell(text):
    if KILLS:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def places(calls):
    kills = list(boundaries(calls))
    return list(dict.fromkeys([*kills, *every_boundary(calls)]))[: KILLS * 2 // 3] if KILLS else kills


def faults_of(nights, network, kills, shown, **variables):
    """Kill a run in every one of these ways, and return what was not as it must be."""
    found = []
    for kill in kills:
        outcome = kill_and_run_again(nights, network, kill, **variables)
        shown.append(outcome)
        found += outcome.faults(nights.old, nights.new)
        tell(f"{len(shown):4}  killed {kill}; {outcome.counts.total()} polls; {len(found)} faults so far")
    return found


def test_one_more_run_completes_what_was_killed_at_a_request_that_writes(nights, network, undisturbed, shown):
    kills = places(undisturbed[0])
    assert KILLS or len(kills) + RANDOM_KILLS >= 30  # daily; a long run says itself how many it wants
    assert faults_of(nights, network, kills, shown, **NO_HEARTBEAT) == []


def test_one_more_run_completes_what_was_killed_at_a_random_time(nights, network, undisturbed, shown):
    calls, seconds = undisturbed
    seed = random.randrange(10**6)
    times = random.Random(seed)
    number = max(RANDOM_KILLS, KILLS - len(places(calls)))
    kills = [Kill(AFTER, seconds=times.uniform(0.1, seconds)) for _ in range(number)]
    assert (seed, faults_of(nights, network, kills, shown, **HEARTBEATS)) == (seed, [])


@pytest.mark.thorough
def test_one_more_run_completes_a_first_night(nights, network, undisturbed):
    """There is no predictions table yet, and no dataset for it."""
    pipelines = (f"{nights.name}x{number}" for number in itertools.count())
    first = next(pipelines)
    nights.add_pipeline(first)
    network.begin()
    assert nights.start(nights.next_day(), network, pipeline=first, **NO_HEARTBEAT).wait().code == 0
    known = {call.what for call in undisturbed[0]}
    calls = [call for call in network.journal.calls if call.changes and call.what not in known]
    assert [call.what for call in calls] == ["create dataset PIPELINE", "create table predictions"]
    for kill in (Kill(BEFORE, calls[0]), Kill(BEFORE, calls[1]), Kill(AFTER, calls[1])):
        pipeline = next(pipelines)
        nights.add_pipeline(pipeline)
        outcome = kill_and_run_again(nights, network, kill, pipeline=pipeline, **NO_HEARTBEAT)
        assert outcome.faults(NOTHING, nights.new) == []
