"""Leases on the real storage server: who gets one, who waits, who loses it."""

import datetime as dt
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from nightscore.errors import LeaseLostError
from nightscore.lease import Holder, LeaseHeldError, acquire, this_process

DAY = dt.date(2026, 11, 19)
MINUTE = dt.timedelta(minutes=1)
SHORT = dt.timedelta(seconds=0.6)


@pytest.fixture
def take(bench):
    """Take the lease of the test's own pipeline."""

    def take(name, span=MINUTE, **kwargs):
        holder = name if isinstance(name, Holder) else Holder(id=name, who=f"the run of {name}")
        return acquire(bench.services.bucket, bench.name, DAY, holder, span, **kwargs)

    return take


def test_a_second_run_is_refused_and_told_who_holds_it(take, bench):
    take("anna")
    with pytest.raises(LeaseHeldError) as refusal:
        take("ben")
    message = str(refusal.value)
    assert message.startswith(f"{bench.name}: 2026-11-19 is being worked on by the run of anna, since 20")
    assert "its lease ends in 60 s" in message
    assert refusal.value.exit_code == 3


def test_a_lease_that_was_given_back_is_free_and_the_next_token_is_greater(take):
    first = take("anna")
    first.release()
    assert take("ben").token > first.token


def test_the_same_holder_takes_it_up_again_with_its_token(take):
    assert take("anna").token == take("anna").token


def test_an_expired_lease_is_taken_over_and_its_holder_finds_out(take):
    slow = take("anna", SHORT)
    time.sleep(0.7)
    successor = take("ben")
    assert successor.token > slow.token
    for action in (slow.require, slow.renew, slow.advance):
        with pytest.raises(LeaseLostError, match="2026-11-19 was taken over by the run of ben"):
            action()
    slow.release()  # changes nothing any more
    successor.require()


def test_renewing_keeps_it(take):
    with take("anna", SHORT).renewed() as lease:
        time.sleep(1.5)
        with pytest.raises(LeaseHeldError):
            take("ben")
        lease.require()
    assert [thread.name for thread in threading.enumerate() if thread.name == "lease"] == []


def test_a_dead_process_of_this_host_frees_it_at_once(take):
    code = "from nightscore.lease import this_process as p; h = p(); print(h.id, h.host, h.pid, h.started)"
    words = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    dead = Holder(id=words[0], who="a dead process", host=words[1], pid=int(words[2]), started=int(words[3]))
    assert dead.is_dead
    take(dead)
    take("ben").require()


def test_this_process_is_alive_and_one_of_another_host_may_be():
    me = this_process()
    assert not me.is_dead
    assert me.pid == os.getpid()
    elsewhere = Holder(id="x", who="x", host="another-host/0", pid=me.pid, started=1)
    assert not elsewhere.is_dead


def test_waiting_ends_when_it_is_given_back(take):
    first, told = take("anna"), []
    threading.Timer(0.5, first.release).start()
    second = take("ben", wait=20, tell=told.append)
    assert second.token > first.token
    assert len(told) == 1
    assert "waiting for the run of anna" in told[0]


def test_waiting_ends_in_a_refusal(take):
    take("anna")
    began = time.monotonic()
    with pytest.raises(LeaseHeldError):
        take("ben", wait=0.5)
    assert time.monotonic() - began >= 0.5


def test_it_can_be_taken_from_one_that_is_alive(take):
    first = take("anna")
    take("ben", take_over=True).require()
    with pytest.raises(LeaseLostError):
        first.require()


def test_an_earlier_process_of_the_same_run_is_left_behind(take):
    earlier, later = take("the airflow run"), take("the airflow run")
    later.advance()
    with pytest.raises(LeaseLostError, match="a later attempt of the same run"):
        earlier.require()
    later.require()


def test_the_token_grows_even_when_the_object_was_deleted(take, bench):
    first = take("anna")
    bench.services.bucket._bucket.blob(f"leases/{bench.name}/{DAY}.json").delete()
    with pytest.raises(LeaseLostError, match="another run"):
        first.require()
    time.sleep(0.002)
    assert take("ben").token > first.token


def test_of_sixteen_that_ask_at_once_one_gets_it(take):
    def ask(number):
        try:
            return take(f"number {number}")
        except LeaseHeldError:
            return None

    with ThreadPoolExecutor(16) as pool:
        found = [lease for lease in pool.map(ask, range(16)) if lease]
    assert len(found) == 1
    found[0].require()
