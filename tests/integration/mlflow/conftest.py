"""A real MLflow server for the tests: its own environment, a SQLite database, and the files of its models."""

import fcntl
import hashlib
import os
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from nightscore.local.bigquery_environment import _find_uv
from nightscore.local.ports import HOST, free_ports
from nightscore.local.processes import ProcessId, is_running, spawn, stop_group
from nightscore.settings import LOCAL_DIR

REPOSITORY = Path(__file__).parents[3]
REQUIREMENTS = Path(__file__).parent / "requirements.txt"
MARKER = "requirements.sha256"
LONGEST_START = 90.0

# The client in this process tells nobody that tests ran, and does not wait for a server that a test has stopped.
os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}


@pytest.fixture(scope="session")
def mlflow_environment() -> Path:
    """The server's environment, shared by the checkout's tests and created by whoever needs it first."""
    environment = REPOSITORY / LOCAL_DIR / "mlflow-env"
    environment.parent.mkdir(parents=True, exist_ok=True)
    with environment.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # pytest runs in several processes
        digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
        marker = environment / MARKER
        if not marker.is_file() or marker.read_text() != digest:
            print(f"Creating the MLflow server's environment in {environment} (once) …", file=sys.__stderr__)
            uv = _find_uv()
            python = environment / "bin" / "python"
            install = ["pip", "install", "--quiet", "--python", str(python), "--requirement", str(REQUIREMENTS)]
            subprocess.run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, environment], check=True)
            subprocess.run([*uv, *install], check=True)
            marker.write_text(digest)
    return environment


class MlflowServer:
    """One MLflow server, which can be stopped and started again on the same port and the same data."""

    def __init__(self, environment: Path, folder: Path) -> None:
        self.folder = folder
        self.artifacts = folder / "artifacts"
        self._environment = environment
        [self._port] = free_ports(str(folder), 1)
        self._process: ProcessId | None = None
        self.url = f"http://{HOST}:{self._port}"

    def start(self) -> None:
        """Start it, unless it runs, and wait until it answers."""
        if self._process is not None and is_running(self._process):
            return
        gunicorn = f"--log-level warning --access-logfile {shlex.quote(str(self.folder / 'requests.log'))}"
        command = [str(self._environment / "bin" / "python"), "-m", "mlflow", "server"]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db", "--host", HOST]
        command += ["--artifacts-destination", str(self.artifacts), "--port", str(self._port)]
        # On gunicorn it is the registry alone; on uvicorn it would also import its gateway to language models.
        command += ["--workers", "1", "--gunicorn-opts", gunicorn]
        settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        path = f"{self._environment / 'bin'}:/usr/bin:/bin"
        inherited = {"HOME": str(self.folder), "PATH": path}
        self._process = spawn(command, {**inherited, **settings}, self.folder / "server.log")
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + LONGEST_START
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                log = (self.folder / "server.log").read_text()[-3000:]
                assert self._process is not None
                assert is_running(self._process), log
                assert time.monotonic() < deadline, log
                time.sleep(0.1)

    def stop(self) -> None:
        """Stop it; its data stays."""
        if self._process is not None:
            stop_group(self._process, 5)

    def requests(self) -> list[str]:
        """Return method and path of what it was asked, in order."""
        lines = (self.folder / "requests.log").read_text().splitlines()
        return [line.split('"')[1].rsplit(" ", 1)[0] for line in lines]


@pytest.fixture(scope="module")
def _mlflow(mlflow_environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    server = MlflowServer(mlflow_environment, tmp_path_factory.mktemp("mlflow"))
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def server(_mlflow: MlflowServer) -> MlflowServer:
    """The running server; a test may stop it."""
    _mlflow.start()
    return _mlflow
