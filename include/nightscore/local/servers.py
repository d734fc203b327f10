"""Start, stop and inspect the local servers of one checkout: `up`, `down`, `status`, `reset`.

Everything is under `<root>/.nightscore/`: `bigquery/` and `storage/` hold data, `logs/` the output, `servers.json` says
which processes are ours, `env` is what `settings` reads. Checkouts run side by side, each with its own ports and data.
"""

import contextlib
import fcntl
import hashlib
import http.client
import json
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

from nightscore.errors import TransientError
from nightscore.local import bigquery_environment, processes
from nightscore.local.ports import HOST, PortTakenError, free_ports, is_free
from nightscore.local.processes import ProcessId
from nightscore.settings import LOCAL_DIR, LOCAL_ENV

PROJECT = "local"
BUCKET = "nightscore-local"
START_SECONDS = 60
ANSWER_SECONDS = 10
STOP_SECONDS = 10
LOG_LINES = 20
BIGQUERY, STORAGE = "bigquery", "storage"
NAMES = (STORAGE, BIGQUERY)
HERE = Path(__file__).parent
SOURCES = {STORAGE: ("storage_*.py",), BIGQUERY: ("bigquery_server/**/*.py", "bigquery_server/*.txt")}

Progress = Callable[[str], None]


class ServerStartError(TransientError):
    """A local server ended, or did not answer in time."""

    def __init__(self, name: str, reason: str, log: Path, since: int) -> None:
        with log.open("rb") as file:
            file.seek(since)
            lines = file.read().decode(errors="replace").splitlines()[-LOG_LINES:]
        shown = "\n".join(f"  {line}" for line in lines) or "  (it printed nothing)"
        super().__init__(f"The local {name} server {reason}. The end of {log}:\n{shown}")
        self.name = name
        self.log = log


@dataclass(frozen=True)
class Ports:
    """The three ports of a checkout's servers."""

    bigquery: int
    bigquery_storage: int
    storage: int


@dataclass(frozen=True)
class LocalServers:
    """Where the servers of `root` answer."""

    root: Path
    ports: Ports

    @property
    def bigquery_url(self) -> str:
        """The REST endpoint of BigQuery."""
        return f"http://{HOST}:{self.ports.bigquery}"

    @property
    def bigquery_storage_address(self) -> str:
        """The gRPC endpoint of the Storage Read API, without a scheme."""
        return f"{HOST}:{self.ports.bigquery_storage}"

    @property
    def storage_url(self) -> str:
        """The endpoint of Cloud Storage."""
        return f"http://{HOST}:{self.ports.storage}"

    def environment(self) -> dict[str, str]:
        """Return the variables that point nightscore and Google's clients at these servers."""
        return {
            "NIGHTSCORE_PROJECT": PROJECT,
            "NIGHTSCORE_BUCKET": BUCKET,
            "BIGQUERY_EMULATOR_HOST": self.bigquery_url,
            "BIGQUERY_STORAGE_EMULATOR_HOST": self.bigquery_storage_address,
            "STORAGE_EMULATOR_HOST": self.storage_url,
        }


@dataclass(frozen=True)
class ServerStatus:
    """One server as it is now; `pid` is None when it is not running."""

    name: str
    urls: tuple[str, ...]
    pid: int | None
    running: bool
    answering: bool
    data_bytes: int


@dataclass(frozen=True)
class _State:
    """What `servers.json` holds."""

    ports: Ports
    processes: Mapping[str, ProcessId]
    fingerprints: Mapping[str, str]  # of what each process was started from


def up(
    root: Path, *, ports: Ports | None = None, environment: Path | None = None, progress: Progress | None = None
) -> LocalServers:
    """Make both servers of `root` run and answer, starting only what does not; quick when all is up.

    Args:
        root: the checkout.
        ports: where to listen; by default the ports of last time, or free ones.
        environment: virtual environment of the BigQuery server; by default `<root>/.nightscore/bigquery-env`.
        progress: called with a sentence about each thing that takes time.

    Raises:
        ConfigurationError: Python 3.13 or uv is missing, or a port that was asked for is taken.
        TransientError: a server did not start, or its packages could not be installed.
    """
    tell = progress or _quiet
    folder = _folder(root)
    python = bigquery_environment.ensure(environment or folder / "bigquery-env", tell)
    with _locked(folder):
        servers = LocalServers(root.resolve(), _settle_ports(folder, ports))
        commands = _commands(folder, servers, python)
        started = {name: _start(folder, name, commands[name], servers, tell) for name in NAMES}
        for name, log_size in started.items():
            _await(folder, name, servers, log_size)
        _create_bucket(servers)
        if any(size is not None for size in started.values()):
            tell(f"BigQuery answers at {servers.bigquery_url}, Cloud Storage at {servers.storage_url}.")
        _write(folder / LOCAL_ENV, "".join(f"{key}={value}\n" for key, value in servers.environment().items()))
    return servers


def down(root: Path, *, progress: Progress | None = None) -> None:
    """Stop the servers of `root`; their data and ports stay."""
    folder = _folder(root)
    if (folder / "servers.json").exists():
        with _locked(folder):
            _stop_all(folder, progress or _quiet)


def reset(root: Path, *, progress: Progress | None = None) -> None:
    """Stop the servers of `root` and delete their data and logs, but not the BigQuery server's environment."""
    tell = progress or _quiet
    folder = _folder(root)
    if folder.exists():
        with _locked(folder):
            _stop_all(folder, tell)
            for name in (*NAMES, "logs"):
                shutil.rmtree(folder / name, ignore_errors=True)
            tell(f"Deleted the local data under {folder}.")


def status(root: Path) -> tuple[ServerStatus, ...]:
    """Return each server's state; nothing at all when `root` never had any."""
    folder = _folder(root)
    state = _read_state(folder)
    if state is None:
        return ()
    servers = LocalServers(root.resolve(), state.ports)
    return tuple(_status(folder, name, servers, state) for name in NAMES)


def _status(folder: Path, name: str, servers: LocalServers, state: _State) -> ServerStatus:
    process = state.processes.get(name)
    running = process is not None and processes.is_running(process)
    urls = (servers.storage_url,) if name == STORAGE else (servers.bigquery_url, servers.bigquery_storage_address)
    return ServerStatus(
        name=name,
        urls=urls,
        pid=process.pid if process and running else None,
        running=running,
        answering=running and _answers(name, servers),
        data_bytes=_size(folder / name),
    )


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a running server creates and deletes files all the time
            total += path.stat().st_size if path.is_file() else 0
    return total


def _commands(folder: Path, servers: LocalServers, python: Path) -> dict[str, tuple[list[str], dict[str, str]]]:
    """Return the argument list and the complete environment of each server.

    Nothing is inherited: the servers read variables of their own from the environment, and DuckDB reads its home.
    """
    ports = servers.ports
    storage = [sys.executable, "-m", "nightscore.local.storage_server"]
    bigquery = [str(python), "-P", "-m", "bigquery_server", "--project", PROJECT]
    home = bigquery_environment.home(python.parent.parent)
    return {
        STORAGE: (
            [*storage, "--host", HOST, "--port", str(ports.storage), "--data-dir", str(folder / STORAGE)],
            {"PATH": "/usr/bin:/bin"},
        ),
        BIGQUERY: (
            [
                *bigquery,
                *("--host", HOST, "--port", str(ports.bigquery), "--grpc-port", str(ports.bigquery_storage)),
                *("--data-dir", str(folder / BIGQUERY)),
            ],
            {
                "PATH": "/usr/bin:/bin",
                "HOME": str(home),
                "PYTHONPATH": str(HERE),
                "STORAGE_EMULATOR_HOST": servers.storage_url,
            },
        ),
    }


def _start(
    folder: Path, name: str, command: tuple[list[str], dict[str, str]], servers: LocalServers, tell: Progress
) -> int | None:
    """Start one server unless it runs as it should; return the size of its log before, or None when it ran already."""
    state = _read_state(folder) or _State(servers.ports, {}, {})
    fingerprint = _fingerprint(name, command)
    process = state.processes.get(name)
    if process and processes.is_running(process):
        if state.fingerprints.get(name) == fingerprint and _answers(name, servers):
            return None
        tell(f"Restarting the {name} server …")
        processes.stop(process, STOP_SECONDS)
    else:
        tell(f"Starting the {name} server …")
    (folder / name).mkdir(parents=True, exist_ok=True)
    log = _log(folder, name)
    log_size = log.stat().st_size if log.exists() else 0
    arguments, environment = command
    started = processes.spawn(arguments, environment, log)
    _write_state(
        folder,
        _State(servers.ports, {**state.processes, name: started}, {**state.fingerprints, name: fingerprint}),
    )
    return log_size


def _fingerprint(name: str, command: tuple[list[str], dict[str, str]]) -> str:
    """Return what changes with a server's command line, environment or code: a changed server is restarted."""
    (_, *arguments), environment = command  # not the interpreter: python, python3 and python3.11 are one and the same
    digest = hashlib.sha256(json.dumps([arguments, environment]).encode())
    for path in sorted(path for pattern in SOURCES[name] for path in HERE.glob(pattern)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _await(folder: Path, name: str, servers: LocalServers, log_size: int | None) -> None:
    if log_size is None:
        return
    state = _read_state(folder)
    process = state.processes[name] if state else None
    deadline = time.monotonic() + START_SECONDS
    while not _answers(name, servers):
        if process is None or not processes.is_running(process):
            raise ServerStartError(name, "ended while it was starting", _log(folder, name), log_size)
        if time.monotonic() > deadline:
            raise ServerStartError(name, f"did not answer in {START_SECONDS} s", _log(folder, name), log_size)
        time.sleep(processes.POLL_SECONDS)


def _answers(name: str, servers: LocalServers) -> bool:
    if name == STORAGE:
        return _get(f"{servers.storage_url}/storage/v1/b?project={PROJECT}")
    # The server opens its gRPC port before it serves REST.
    return _get(f"{servers.bigquery_url}/bigquery/v2/projects")


def _get(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS):  # noqa: S310  # a server of ours on this machine
            return True
    except (OSError, http.client.HTTPException):
        return False


def _create_bucket(servers: LocalServers) -> None:
    request = urllib.request.Request(  # noqa: S310
        f"{servers.storage_url}/storage/v1/b?project={PROJECT}",
        data=json.dumps({"name": BUCKET}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        urllib.request.urlopen(request, timeout=ANSWER_SECONDS).close()  # noqa: S310
    except urllib.error.HTTPError as error:
        with error:
            if error.code != HTTPStatus.CONFLICT:  # it exists already
                raise


def _stop_all(folder: Path, tell: Progress) -> None:
    state = _read_state(folder)
    for name, process in state.processes.items() if state else ():
        if processes.is_running(process):
            tell(f"Stopping the {name} server …")
            if not processes.stop(process, STOP_SECONDS):
                tell(f"The {name} server did not stop in {STOP_SECONDS} s and was killed.")
    if state:
        _write_state(folder, replace(state, processes={}, fingerprints={}))
    # Without it, settings say that the servers must be started, which beats a refused connection.
    (folder / LOCAL_ENV).unlink(missing_ok=True)


def _settle_ports(folder: Path, wanted: Ports | None) -> Ports:
    """Return the ports to use: the wanted ones, those of last time, or free ones."""
    state = _read_state(folder)
    held = _held_ports(state)
    if wanted is not None:
        for port in asdict(wanted).values():
            if port not in held and not is_free(port):
                raise PortTakenError(port)
        return wanted
    free = free_ports(str(folder), 3)
    if state is None:
        return Ports(*free)
    kept = asdict(state.ports).items()
    return Ports(**{name: port if port in held or is_free(port) else free.pop() for name, port in kept})


def _held_ports(state: _State | None) -> set[int]:
    """Return the ports on which a running server of ours listens."""
    if state is None:
        return set()
    ports = state.ports
    held: dict[str, set[int]] = {BIGQUERY: {ports.bigquery, ports.bigquery_storage}, STORAGE: {ports.storage}}
    return set().union(*(held[name] for name, process in state.processes.items() if processes.is_running(process)))


def _folder(root: Path) -> Path:
    return root.resolve() / LOCAL_DIR


def _log(folder: Path, name: str) -> Path:
    return folder / "logs" / f"{name}.log"


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one `up`, `down` or `reset` of a checkout run at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read_state(folder: Path) -> _State | None:
    try:
        found: dict[str, Any] = json.loads((folder / "servers.json").read_text())
    except FileNotFoundError:
        return None
    running = {name: ProcessId(**process) for name, process in found["processes"].items()}
    return _State(Ports(**found["ports"]), running, found["fingerprints"])


def _write_state(folder: Path, state: _State) -> None:
    _write(folder / "servers.json", json.dumps(asdict(state), indent=2) + "\n")


def _write(path: Path, text: str) -> None:
    """Replace a file in one step: a reader sees the old or the new one."""
    draft = path.with_name(f"{path.name}.new")
    draft.write_text(text)
    draft.replace(path)


def _quiet(_: str) -> None:
    pass
