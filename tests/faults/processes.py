"""Real processes that run `nightscore`, quick to start: one parent has imported everything and forks a child each time.

The parent is multiprocessing's fork server, which has one thread and no client of Google's. A child builds its clients
and threads itself, exactly like a process that was started from a shell.
"""

import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

SILENCE = 8.0  # seconds without an answer that a short patience bears; a busy machine may need some
IMPORTED_BEFORE = ["faults.imports", "faults.processes"]


@dataclass(frozen=True)
class Ended:
    """A process that has ended: its exit code (negative: the signal), what it said, and how long it ran."""

    code: int
    out: str
    err: str
    seconds: float


class Nightscore:
    """A process of `nightscore …`."""

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, patience: float | None = None
    ) -> None:
        _start_parent()
        self._said = folder / f"{time.monotonic_ns()}.out", folder / f"{time.monotonic_ns()}.err"
        self._started = time.monotonic()
        self.process: BaseProcess = multiprocessing.get_context("forkserver").Process(
            target=_nightscore, args=(list(arguments), dict(environment), folder, self._said, patience), daemon=True
        )
        self.process.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process.pid is not None
        return self.process.pid

    def kill(self) -> None:
        """End it at once, by SIGKILL; nothing happens to one that has ended."""
        if self.process.exitcode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def stop(self) -> None:
        """Suspend it, by SIGSTOP."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def wait(self, seconds: float = 120) -> Ended:
        """Wait until it has ended."""
        self.process.join(seconds)
        code = self.process.exitcode
        if code is None:
            self.kill()
            self.process.join()
            raise AssertionError(f"It was still running after {seconds} s. It said:\n{self._said[1].read_text()}")
        out, err = (path.read_text() for path in self._said)
        return Ended(code, out, err, time.monotonic() - self._started)


@functools.cache
def _start_parent() -> None:
    """Start the fork server, which imports; its own sys.path is the environment's, whatever ours is."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(IMPORTED_BEFORE)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    forkserver.ensure_running()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


def _nightscore(
    arguments: list[str], environment: dict[str, str], folder: Path, said: tuple[Path, Path], patience: float | None
) -> None:
    """Be a process of `nightscore`: what the console script does, in the environment and folder of a shell."""
    from nightscore.cli import main

    os.environ.update(environment)
    os.chdir(folder)
    for number, path in zip((1, 2), said, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if patience is not None:
        _shorten_patience(patience)
    sys.argv = ["nightscore", *arguments]
    main()


def _shorten_patience(seconds: float) -> None:
    """Let the clients give up after `seconds` instead of minutes; the way to the exit code is the same."""
    from google.cloud.bigquery import retry as bigquery
    from google.cloud.storage import retry as storage

    from nightscore import clients, warehouse
    from nightscore.scoring import reading

    warehouse.PATIENCE = seconds
    for retry in (bigquery.DEFAULT_RETRY, storage.DEFAULT_RETRY):
        retry._timeout, retry._initial, retry._maximum = seconds, 0.05, 0.2
    reading.PAUSE = 0.05
    clients.SILENCE = reading.SILENCE = SILENCE
    reading.SESSION_PATIENCE = max(seconds, 5.0)
    clients.KEEPALIVE = tuple((option, 3000) for option, _ in clients.KEEPALIVE)
