"""A lease on one partition of one pipeline: who may plan, score and publish it now.

    leases/<pipeline>/<partition>.json    replaced by compare-and-swap, never deleted

The holder renews it while it works. When it stops renewing, the lease expires and another run may take it. A holder
that was only slow, or suspended, finds out at its next step; and because it might already be beyond that, each taking
over also gives out a greater *token*, which BigQuery compares inside the publishing statement. The clocks of two
machines decide when a lease is given up, and never whether a publication is right.
"""

import contextvars
import datetime as dt
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from nightscore.errors import LeaseLostError, TransientError
from nightscore.objects import Bucket, Json, to_json
from nightscore.settings import user_name

ROOT = "leases/"
RENEWALS = 4  # in the time after which a lease expires: three may be lost
SLACK = 0.2  # of that time: Cloud Storage takes one change of an object a second, and many tasks share a lease
LOOK_AGAIN = 1.0  # seconds between two looks of a run that waits
CLOCK_STEPS = 5000  # milliseconds: when a process started is told from the clock, which is put right at times
HANDOVER = dt.timedelta(minutes=30)  # between two tasks of an Airflow run nobody renews

log = logging.getLogger(__name__)


class LeaseHeldError(TransientError):
    """Another run holds the partition."""

    def __init__(self, pipeline: str, partition: dt.date, state: "State", now: dt.datetime) -> None:
        left = max(0, round((state.expires_at - now).total_seconds()))
        super().__init__(
            f"{pipeline}: {partition} is being worked on by {state.who}, since {state.since:%Y-%m-%d %H:%M:%S} UTC. "
            f"Wait for it (`--wait SECONDS`), or try again when it has ended; should it be dead, its lease ends in "
            f"{left} s. `--take-over` does not wait: whatever that run still does, it can then no longer publish."
        )
        self.state = state


@dataclass(frozen=True)
class Holder:
    """Who holds a lease.

    Attributes:
        id: the same for every process that may act under one lease, as the tasks of one Airflow run do.
        who: for people.
        host, pid, started: the process, where the holder is one; its death then frees the lease at once on its host.
    """

    id: str
    who: str
    host: str | None = None
    pid: int | None = None
    started: int | None = None

    @property
    def is_dead(self) -> bool:
        """Whether the holder is a process of this host that is no more; False whenever that cannot be told."""
        if self.pid is None or self.started is None or self.host != _host():
            return False
        found = _process_start(self.pid)
        return found is None or abs(found - self.started) > CLOCK_STEPS


def this_process() -> Holder:
    """Return this process as a holder."""
    host, pid = _host(), os.getpid()
    started = _process_start(pid)
    who = f"{user_name()} on {socket.gethostname()} (process {pid})"
    return Holder(id=f"{host}/{pid}/{started}", who=who, host=host, pid=pid, started=started)


@dataclass(frozen=True)
class State:
    """What the lease's object holds; `since` and `expires_at` are UTC.

    `term` is the token with which the holder took the lease over, and stays what it is until another one does.
    """

    token: int
    term: int
    holder: Holder | None
    since: dt.datetime
    expires_at: dt.datetime
    generation: int

    @property
    def who(self) -> str:
        """The holder, for people."""
        return self.holder.who if self.holder else "nobody"

    @classmethod
    def parse(cls, content: Json, generation: int) -> "State":
        """Return the state that an object's content describes."""
        holder = content["holder"]
        return cls(
            token=int(content["token"]),
            term=int(content["term"]),
            holder=None if holder is None else Holder(**holder),
            since=dt.datetime.fromisoformat(content["since"]),
            expires_at=dt.datetime.fromisoformat(content["expires_at"]),
            generation=generation,
        )

    def to_json(self) -> Json:
        """Return the object's content."""
        holder = self.holder and {key: value for key, value in vars(self.holder).items() if value is not None}
        return {
            "token": self.token,
            "term": self.term,
            "holder": holder,
            "since": self.since.isoformat(),
            "expires_at": self.expires_at.isoformat(),
        }


class Lease:
    """A lease that this process acts under."""

    def __init__(
        self, bucket: Bucket, pipeline: str, partition: dt.date, holder: Holder, span: dt.timedelta, state: State
    ) -> None:
        self.pipeline = pipeline
        self.partition = partition
        self.holder = holder
        self.token = state.token
        self.term = state.term
        self._bucket = bucket
        self._span = span
        self._lost: str | None = None
        self._lock = threading.Lock()  # renewing happens on a thread of its own

    def require(self) -> None:
        """Check that the lease is still this run's, by asking the bucket.

        Raises:
            LeaseLostError: another run has it.
        """
        with self._lock:
            self._state()

    def advance(self) -> int:
        """Take a greater token under the same lease and return it: an earlier process of this run is then fenced off.

        Raises:
            LeaseLostError: another run has the lease.
        """
        self._replace(
            lambda state: replace(
                state, token=_next_token(state.token), expires_at=max(state.expires_at, _now() + self._span)
            )
        )
        return self.token

    def renew(self, span: dt.timedelta | None = None) -> None:
        """Make the lease last for `span` from now; nothing is written where it lasts about as long already.

        Raises:
            LeaseLostError: another run has it.
        """
        wanted = span or self._span
        self._replace(
            lambda state: state if _lasts(state, wanted) else replace(state, expires_at=_now() + wanted),
        )

    def release(self) -> None:
        """Give the lease back; nothing happens when another run has it, and where that fails the lease expires."""
        try:
            self._replace(lambda state: replace(state, holder=None, expires_at=_now()))
        except TransientError as error:
            log.info("%s: the lease of %s was not given back: %s", self.pipeline, self.partition, error)

    @contextmanager
    def renewed(self) -> Iterator["Lease"]:
        """Renew the lease on a thread of its own while the block runs."""
        ended = threading.Event()
        run = contextvars.copy_context().run  # a log's lines of the thread then say whose they are
        thread = threading.Thread(target=run, args=(self._renew_until, ended), name="lease", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            ended.set()
            thread.join()

    def _renew_until(self, ended: threading.Event) -> None:
        while not ended.wait(self._span.total_seconds() / RENEWALS):
            try:
                self.renew()
            except LeaseLostError as error:
                log.warning("%s", error)
                return
            except TransientError as error:  # the next renewal is near; what must be sure asks by itself
                log.warning("%s", error)

    def _state(self) -> State:
        if self._lost is None:
            state = _read(self._bucket, self.pipeline, self.partition)
            if state is not None and state.holder is not None and state.holder.id == self.holder.id:
                if state.token == self.token:
                    return state
                self._lost = f"a later attempt of the same run ({state.who})"
            else:
                self._lost = state.who if state and state.holder else "another run"
        raise LeaseLostError(self.pipeline, self.partition, self._lost)

    def _replace(self, change: Callable[[State], State]) -> None:
        with self._lock:
            while True:
                state = self._state()
                wanted = change(state)
                if wanted is state or _swap(self._bucket, self.pipeline, self.partition, wanted, state.generation):
                    self.token = wanted.token
                    return


def acquire(
    bucket: Bucket,
    pipeline: str,
    partition: dt.date,
    holder: Holder,
    span: dt.timedelta,
    *,
    wait: float = 0.0,
    take_over: bool = False,
    term: int | None = None,
    tell: Callable[[str], None] | None = None,
) -> Lease:
    """Take the lease of a partition.

    It is free when nobody holds it, when it has expired, or when its holder is a process of this host that has died.
    The same holder takes it up again.

    Args:
        bucket: where the leases are.
        pipeline: the pipeline's name.
        partition: the scoring date.
        holder: who asks.
        span: after this time without a renewal the lease expires.
        wait: seconds to wait for it.
        take_over: take it from a holder that seems to be alive.
        term: take it only if nobody else has had it since the holder began this term.
        tell: is given a sentence when it has to wait.

    Raises:
        LeaseHeldError: another run holds it, and still does after `wait` seconds.
        LeaseLostError: another run has had it since the term began.
    """
    deadline = time.monotonic() + wait
    told = False
    while True:
        state, now = _read(bucket, pipeline, partition), _now()
        if term is not None and (state is None or state.term != term):
            raise LeaseLostError(pipeline, partition, state.who if state and state.holder else "another run")
        if state is None or take_over or _is_free(state, holder, now):
            wanted = _taken(state, holder, now, span, term)
            if wanted is state or _swap(bucket, pipeline, partition, wanted, state.generation if state else 0):
                return Lease(bucket, pipeline, partition, holder, span, wanted)
            continue
        if time.monotonic() >= deadline:
            raise LeaseHeldError(pipeline, partition, state, now)
        if tell and not told:
            tell(f"{pipeline}: waiting for {state.who}, which works on {partition}")
            told = True
        time.sleep(min(LOOK_AGAIN, max(0.0, deadline - time.monotonic())))


def _taken(state: State | None, holder: Holder, now: dt.datetime, span: dt.timedelta, term: int | None) -> State:
    """Return a lease's state once `holder` has it; the same state, where it has it for about as long already."""
    if state is not None and state.holder is not None and state.holder.id == holder.id:
        return state if _lasts(state, span) else replace(state, expires_at=now + span)
    token = _next_token(state.token if state else 0)
    return State(token, term or token, holder, now, now + span, 0)


def _lasts(state: State, span: dt.timedelta) -> bool:
    return state.expires_at >= _now() + span * (1 - SLACK)


def _is_free(state: State, holder: Holder, now: dt.datetime) -> bool:
    found = state.holder
    return found is None or found.id == holder.id or now >= state.expires_at or found.is_dead


def _path(pipeline: str, partition: dt.date) -> str:
    return f"{ROOT}{pipeline}/{partition}.json"


def _read(bucket: Bucket, pipeline: str, partition: dt.date) -> State | None:
    stored = bucket.read(_path(pipeline, partition))
    return None if stored is None else State.parse(stored.json(), stored.generation)


def _swap(bucket: Bucket, pipeline: str, partition: dt.date, wanted: State, generation: int) -> bool:
    return bucket.swap(_path(pipeline, partition), to_json(wanted.to_json()), generation)


def _next_token(token: int) -> int:
    """Return a greater token. It is also a time, so that it grows even where the lease's object was deleted."""
    return max(token + 1, time.time_ns() // 1_000_000)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _host() -> str:
    """Return what tells this machine, since its last start, and this container's processes from all others."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
        processes = str(Path("/proc/self/ns/pid").readlink()).strip("pid:[]")  # containers may share a host's name
    except OSError:
        boot, processes = "unknown", str(os.getppid())
    return f"{socket.gethostname()}/{boot}/{processes}"


def _process_start(pid: int) -> int | None:
    """Return when a process started, in milliseconds since 1970; None when there is none."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time() * 1000)
    except psutil.NoSuchProcess:
        return None
