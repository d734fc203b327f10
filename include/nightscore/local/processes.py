"""Background processes that outlive the command that started them, and are never mistaken for another process."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.05
KILL_SECONDS = 10


@dataclass(frozen=True)
class ProcessId:
    """A process, told apart from a later one with the same pid by when it started."""

    pid: int
    started: str


@dataclass(frozen=True)
class _Found:
    started: str
    is_zombie: bool


def spawn(command: Sequence[str], environment: Mapping[str, str], log: Path) -> ProcessId:
    """Start `command` in a session of its own, which Ctrl-C in this terminal does not reach; output goes to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603  # the command is ours, and there is no shell
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    process.returncode = 0  # it outlives us on purpose: without this, Popen warns when it is collected
    found = _find(process.pid)
    return ProcessId(process.pid, found.started if found else "gone")


def is_running(process: ProcessId) -> bool:
    """Return whether that very process is alive."""
    found = _find(process.pid)
    if found is None or found.started != process.started:
        return False
    if found.is_zombie:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)  # our own dead child: collect it
    return not found.is_zombie


def stop(process: ProcessId, grace_seconds: float) -> bool:
    """End the process, politely first; return False when it had to be killed."""
    if not is_running(process):
        return True
    os.kill(process.pid, signal.SIGTERM)
    if _gone(process, grace_seconds):
        return True
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    _gone(process, KILL_SECONDS)
    return False


def stop_group(process: ProcessId, grace_seconds: float) -> None:
    """End the process, politely first, and then whatever it has left behind in its session."""
    if _find(process.pid) is not None and not is_running(process):
        return  # the pid belongs to somebody else by now
    stop(process, grace_seconds)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _gone(process: ProcessId, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while is_running(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _find(pid: int) -> _Found | None:
    """Return what now holds `pid`, or None when nothing does."""
    return _find_in_proc(pid) if Path("/proc/self/stat").exists() else _find_by_ps(pid)


def _find_in_proc(pid: int) -> _Found | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the command's name, in parentheses, may itself hold spaces
    state, threads, ticks_since_boot = fields[0], int(fields[17]), fields[19]
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    # The first thread of a killed process is a zombie before the others have ended, and these still hold its ports.
    return _Found(f"{boot}/{ticks_since_boot}", is_zombie=state in "ZX" and threads <= 1)


def _find_by_ps(pid: int) -> _Found | None:
    shown = subprocess.run(  # noqa: S603  # a number is the only thing that varies
        ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    state, _, started = shown.stdout.strip().partition(" ")
    return _Found(started.strip(), is_zombie=state.startswith("Z")) if state else None
