"""The Storage Read API breaks off or falls silent: each row is read exactly once, or the run says what failed."""

import re

import pytest

from faults.stream import Cut

DAYS = 7
ROWS = 130_000  # several messages
PATIENT, IMPATIENT = 30.0, 5.0


@pytest.fixture(scope="module")
def size(nights, network):
    """How many bytes a partition is on the wire."""
    network.begin()
    assert nights.start(nights.next_day(), network).wait().code == 0
    [size] = network.stream.passed
    assert size > ROWS * 8 * 3
    return size


def test_streams_that_break_off_are_read_on_from_where_they_were(nights, network, size):
    day = nights.next_day()
    network.begin()
    cuts = [Cut(0), Cut(1_000), Cut(size // 3), Cut(size // 2), Cut(10_000)]
    network.stream.cuts = list(cuts)
    ended = nights.start(day, network, patience=PATIENT).wait()
    assert ended.code == 0, ended.err
    assert nights.content(day) == nights.new
    assert network.stream.passed[:5] == [cut.after for cut in cuts]
    assert len(network.stream.passed) > 5


def test_a_stream_that_falls_silent_is_left(nights, network, size):
    day = nights.next_day()
    network.begin()
    network.stream.cuts = [Cut(size // 2, silent=60)]
    ended = nights.start(day, network, patience=IMPATIENT).wait()
    assert ended.code == 0, ended.err
    assert nights.content(day) == nights.new


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(Cut(0), id="refused", marks=pytest.mark.thorough),
        pytest.param(Cut(2_000), id="cut short"),
        pytest.param(Cut(0, silent=60), id="silent", marks=pytest.mark.thorough),
    ],
)
def test_a_service_that_stays_away_is_given_up_and_the_next_run_goes_on(nights, network, cut):
    day = nights.next_day()
    network.begin()
    network.stream.always = cut
    ended = nights.start(day, network, patience=IMPATIENT).wait()
    assert (ended.code, nights.content(day)) == (3, nights.old), ended.err
    assert re.search(rf"WarehouseError: BigQuery failed while reading shard 0 of {nights.name}: .", ended.err)
    assert "Traceback" not in ended.err
    network.begin()
    assert nights.start(day, network).wait().code == 0
    assert nights.content(day) == nights.new
