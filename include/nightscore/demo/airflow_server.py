"""Airflow on this machine: the processes of `airflow standalone`, bound to 127.0.0.1, and its REST API.

`airflow standalone` itself also starts two log servers that listen on every address of the machine and cannot be told
otherwise; with one host nobody needs them.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightscore.errors import TransientError
from nightscore.local.ports import HOST, PortTakenError, free_ports, is_free
from nightscore.local.processes import ProcessId, is_running, spawn, stop_group
from nightscore.progress import Tell

if TYPE_CHECKING:
    import httpx

UI_PORT = 8080
COMPONENTS: Mapping[str, tuple[str, ...]] = {
    "api-server": ("--host", HOST),
    "scheduler": ("--skip-serve-logs",),
    "dag-processor": (),
    "triggerer": ("--skip-serve-logs",),
}
START_SECONDS = 120
STOP_SECONDS = 15


class AirflowError(TransientError):
    """Airflow did not start, or answered with an error."""


@dataclass(frozen=True)
class AirflowServer:
    """A running Airflow."""

    home: Path
    port: int
    host: str = HOST

    @property
    def url(self) -> str:
        """Where the UI is."""
        return f"http://{self.host}:{self.port}"

    def token(self, client: "httpx.Client") -> str:
        """Return what lets a request in; here everybody is an administrator."""
        return str(client.get("/auth/token").raise_for_status().json()["access_token"])

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Call the REST API and return its answer.

        Raises:
            AirflowError: it answered with an error, or not at all.
        """
        import httpx

        try:
            with httpx.Client(base_url=self.url, timeout=30, trust_env=False) as client:
                headers = {"Authorization": f"Bearer {self.token(client)}"}
                answer = client.request(method, f"/api/v2{path}", json=body, headers=headers).raise_for_status()
        except httpx.HTTPStatusError as error:
            text = error.response.text[:300]
            raise AirflowError(f"Airflow answered {error.response.status_code} to {method} {path}: {text}") from error
        except httpx.HTTPError as error:
            raise AirflowError(f"Airflow at {self.url} did not answer {method} {path}: {error}") from error
        found = answer.json()
        return dict(found)

    def find_dag(self, dag_id: str) -> dict[str, Any] | None:
        """Return a DAG, or None while the DAG processor has not seen it."""
        try:
            return self.call("GET", f"/dags/{dag_id}")
        except AirflowError as error:
            if "answered 404" in str(error):
                return None
            raise

    def runs_of(self, dag_id: str, partition: str) -> list[dict[str, Any]]:
        """Return the DAG's runs of one partition, the latest first."""
        found = self.call("GET", f"/dags/{dag_id}/dagRuns?limit=100&order_by=-run_after")["dag_runs"]
        return [run for run in found if run.get("partition_key") == partition]

    def task_states(self, dag_id: str, run_id: str) -> dict[str, str]:
        """Return task id, with the shard's label where mapped → state."""
        found = self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=200")["task_instances"]
        names = {
            f"{item['task_id']} {item.get('rendered_map_index') or ''}".strip()
            if item["map_index"] >= 0
            else item["task_id"]: str(item["state"] or "waiting")
            for item in found
        }
        return dict(names)


def airflow_environment(root: Path, home: Path, port: int, settings: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment of the Airflow processes: nothing of another Airflow's settings gets in."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "NIGHTSCORE"))}
    inherited.pop("PYTHONDONTWRITEBYTECODE", None)  # every task is a process; without .pyc files each compiles Airflow
    chosen = {
        "CORE__DAGS_FOLDER": str(root / "dags"),
        "CORE__PLUGINS_FOLDER": str(root / "plugins"),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": "4",
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",  # one user, one machine, one loopback address
        "CORE__EXECUTION_API_SERVER_URL": f"http://{HOST}:{port}/execution/",
        "API__HOST": HOST,
        "API__PORT": str(port),
        "API__BASE_URL": f"http://{HOST}:{port}",
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        # Defaults that cost a small machine seconds per task: how long a slot stays taken, how often a loop looks.
        "WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "WORKERS__MAX_FAILED_HEARTBEATS": "20",
        "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
        "DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
    }
    return {
        **inherited,
        **settings,
        "NIGHTSCORE_HOME": str(root),
        "AIRFLOW_HOME": str(home),
        "GX_ANALYTICS_ENABLED": "false",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        **{f"AIRFLOW__{key}": value for key, value in chosen.items()},
    }


@contextlib.contextmanager
def running(root: Path, port: int | None, settings: Mapping[str, str], tell: Tell) -> Iterator[AirflowServer]:
    """Start Airflow, yield it when it is healthy, and stop all its processes in the end.

    Args:
        root: the checkout; Airflow's home is `.nightscore/airflow` in it.
        port: the UI's port; None: 8080, or a free one where that is taken.
        settings: variables for the tasks.
        tell: called with a sentence about each thing that takes time.

    Raises:
        PortTakenError: the port that was asked for is taken.
        AirflowError: it did not become healthy; says where the log is.
    """
    home = root / ".nightscore" / "airflow"
    home.mkdir(parents=True, exist_ok=True)
    _stop_leftovers(home)
    chosen = _port(port, home, tell)
    environment = airflow_environment(root, home, chosen, settings)
    server = AirflowServer(home, chosen)
    _migrate(home, environment, tell)
    tell("Starting Airflow …")
    started: dict[str, ProcessId] = {}
    try:
        for name, arguments in COMPONENTS.items():
            command = [sys.executable, "-m", "airflow", name, *arguments]
            started[name] = spawn(command, environment, home / f"{name}.log")
            _pid_file(home).write_text(json.dumps([asdict(process) for process in started.values()]))
        _await_health(server, started)
        yield server
    finally:
        tell("Stopping Airflow …")
        _stop(list(started.values()))
        _pid_file(home).unlink(missing_ok=True)


def _migrate(home: Path, environment: Mapping[str, str], tell: Tell) -> None:
    from importlib.metadata import version

    stamp, wanted = home / "migrated", version("apache-airflow-core")
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    tell("Creating Airflow's database …")
    command = [sys.executable, "-m", "airflow", "db", "migrate"]
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise AirflowError(f"`airflow db migrate` failed:\n{done.stderr[-2000:]}")
    stamp.write_text(wanted)


def _await_health(server: AirflowServer, started: Mapping[str, ProcessId]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _is_healthy(server):
        dead = [name for name, process in started.items() if not is_running(process)]
        if dead or time.monotonic() > deadline:
            name = dead[0] if dead else "api-server"
            log = server.home / f"{name}.log"
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.is_file() else ""
            what = f"Airflow's {name} ended" if dead else f"Airflow was not healthy after {START_SECONDS} s"
            raise AirflowError(f"{what}; the log is {log}:\n{tail}")
        time.sleep(0.3)


def _is_healthy(server: AirflowServer) -> bool:
    try:
        health = server.call("GET", "/monitor/health")
    except AirflowError:
        return False
    return all(health[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "dag_processor"))


def _port(wanted: int | None, home: Path, tell: Tell) -> int:
    if wanted is not None and not is_free(wanted):
        raise PortTakenError(wanted)
    if wanted is not None or is_free(UI_PORT):
        return wanted or UI_PORT
    [free] = free_ports(str(home), 1)
    tell(f"Port {UI_PORT} is taken; the UI will be at http://{HOST}:{free}. PORT=… chooses another.")
    return free


def _stop_leftovers(home: Path) -> None:
    """End what an earlier start left behind when it was killed; two schedulers would share one SQLite file."""
    file = _pid_file(home)
    if file.is_file():
        _stop([ProcessId(**item) for item in json.loads(file.read_text())])
        file.unlink(missing_ok=True)


def _stop(started: list[ProcessId]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=max(len(started), 1)) as pool:
        list(pool.map(lambda process: stop_group(process, STOP_SECONDS), started))


def _pid_file(home: Path) -> Path:
    return home / "processes.json"
