"""The services of docker-compose.yaml as processes of this machine, where no Docker engine runs.

Each is started by its own command, with its own environment and that of its image's Dockerfile, in the order of
`depends_on`, and asked by its own health check. What is not as in containers is all here:

* A service's name with a port is replaced by an address of its own in 127.0.0.0/8, as are 127.0.0.1, localhost and
  0.0.0.0 by the service's own; ports stay as they are. Replicas have addresses of their own.
* Paths in the image become paths under a temporary folder, and the image's virtual environment the checkout's.
* The log servers of workers and triggerer are left out: they listen on every address of the machine.
* What the entrypoint of PostgreSQL's image does with POSTGRES_*, `initdb` and `createdb` do here. PostgreSQL does not
  run as root. Users, rights and limits are the engine's, and are not shown here.
"""

import contextlib
import os
import pwd
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from nightscore.demo.airflow_server import AirflowServer
from nightscore.local import bigquery_environment
from stack.compose import ROOT, make_env, read_dockerfile, resolve

VENV = Path(sys.prefix)
START_SECONDS = 180
PROGRAMS = ("redis-server", "redis-cli", "docker-compose")


def missing_programs() -> list[str]:
    """Return which of Debian's programs are not here; `make stack-tools` installs them."""
    return [name for name in PROGRAMS if not shutil.which(name)] + ([] if postgres_programs() else ["postgresql"])


def postgres_programs() -> Path | None:
    """Return the folder of the newest PostgreSQL of Debian's."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return found[-1].parent if found else None


class Fab(AirflowServer):
    """The REST API of an Airflow that has users."""

    password: str

    def token(self, client: Any) -> str:
        """Sign in as the first administrator."""
        if not hasattr(self, "_token"):
            answer = client.post("/auth/token", json={"username": "admin", "password": self.password})
            object.__setattr__(self, "_token", answer.raise_for_status().json()["access_token"])
        return str(self._token)


@dataclass
class Container:
    """What would be a container: one replica of a service."""

    name: str
    service: Mapping[str, Any]
    command: list[str]
    environment: dict[str, str]
    health: list[str] | None
    log: Path
    folder: Path
    user: str | None = None
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start its process, in a session of its own."""
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=self.user,
            )

    @property
    def said(self) -> str:
        """What it printed."""
        return self.log.read_text(errors="replace")

    def processes(self) -> list[psutil.Process]:
        """Return its process and all that descend from it."""
        try:
            main = psutil.Process(self.process.pid if self.process else -1)
            return [main, *main.children(recursive=True)]
        except (psutil.Error, ValueError):
            return []

    def is_running(self) -> bool:
        """Return whether its main process is."""
        return self.process is not None and self.process.poll() is None

    def is_healthy(self, seconds: float | None = None) -> bool:
        """Run its own health check, for as long as Docker would let it run, or for `seconds` on a busy machine."""
        assert self.health is not None
        seconds = seconds or float(str(self.service["healthcheck"]["timeout"]).removesuffix("s"))
        try:
            done = subprocess.run(
                self.health, env=self.environment, cwd=self.folder, capture_output=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def send(self, number: signal.Signals) -> None:
        """Send every process of it a signal, as the end of a container does by SIGKILL."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)

    def kill(self) -> None:
        """End all its processes at once."""
        for process in (found := self.processes()):
            with contextlib.suppress(psutil.Error):
                process.suspend()  # so that none begets another, or reports the others' death
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        if self.process:
            self.process.wait(10)


class NativeStack:
    """The whole stack; `redirect` maps an address of the compose file to another one, such as a proxy's."""

    def __init__(
        self,
        *,
        bigquery_env: Path,
        variables: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        redirect: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="nightscore-stack-"))
        self.folder.chmod(0o755)  # PostgreSQL's user must get to its own folder
        self.env_file = self.folder / ".env"
        make_env(self.env_file)
        with self.env_file.open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in (variables or {}).items())
        self.config = resolve(self.env_file, ROOT / "docker-compose.yaml", "local")
        self.services: dict[str, dict[str, Any]] = self.config["services"]
        self.images = read_dockerfile().stages
        built = (own for own in self.services.values() if "build" in own)
        self.targets = {own["image"]: own["build"]["target"] for own in built}
        self.containers: dict[str, list[Container]] = {}
        self.redirect = dict(redirect or {})
        self._more = dict(environment or {})
        self._bigquery_env = bigquery_env
        self._network = f"127.{random.SystemRandom().randint(2, 250)}.{random.SystemRandom().randint(0, 250)}"
        self._copy_dags()

    # Addresses and paths

    def address(self, service: str, replica: int = 1) -> str:
        """Return the address of a service."""
        return f"{self._network}.{10 * (list(self.services).index(service) + 1) + replica}"

    @property
    def home(self) -> Path:
        """What is /opt/airflow in the image."""
        return self.folder / "airflow"

    def mapped(self, text: str, service: str, replica: int = 1) -> str:
        """Return a text of the compose file or the Dockerfile as it is right on this machine."""
        names = "|".join(map(re.escape, self.services))
        text = re.sub(rf"(?<![\w.-])({names}):(\d+)", lambda at: f"{self.address(at[1])}:{at[2]}", text)
        own = self.address(service, replica)
        text = (
            re.sub(r"(?<![\d.])(127\.0\.0\.1|0\.0\.0\.0|localhost)(?![\d.]*\d)", own, text) if own not in text else text
        )
        for wanted, other in self.redirect.items():
            name, _, port = wanted.partition(":")
            text = text.replace(f"{self.address(name)}:{port}", other)
        for inside, here in self._paths(service):
            text = re.sub(rf"(?<![\w.]){inside}(?![\w-])", str(here), text)
        return text

    def _paths(self, service: str) -> list[tuple[str, Path | str]]:
        volume = self.folder / "volumes" / service
        packages = "/opt/local/venv/lib/python3.13/site-packages"
        include = ROOT / "include"
        return [
            ("/opt/airflow/venv", VENV),
            ("/opt/airflow", self.home),
            (f"{packages}/nightscore/local", f"{include / 'nightscore/local'}:{include}"),
            # What the checkout has of it are two: its own environment has what the storage server needs.
            ("/opt/local/venv", VENV if service == "storage" else self._bigquery_env),
            ("/opt/local/data", volume),
            ("/opt/local", bigquery_environment.home(self._bigquery_env)),
            ("/data", volume),
        ]

    def _copy_dags(self) -> None:
        """Do what the Dockerfile's COPY does with folders of the checkout."""
        copies = (text.split() for text in self.images["airflow"].all("COPY") if not text.startswith("--from"))
        for source, target in copies:
            shutil.copytree(
                ROOT / source, self.mapped(target, "scheduler"), ignore=shutil.ignore_patterns("__pycache__")
            )
        (self.home / "logs").mkdir(parents=True)

    # Starting

    def start(self, *wanted: str) -> None:
        """Start services and all that they depend on, each when what it needs is as `depends_on` says."""
        order: list[str] = []
        for service in wanted:
            self._visit(service, order)
        for service in order:
            if service not in self.containers:
                for other, needed in self.services[service].get("depends_on", {}).items():
                    self._await(other, needed["condition"])
                self._start(service)

    def _visit(self, service: str, order: list[str]) -> None:
        for other in self.services[service].get("depends_on", {}):
            self._visit(other, order)
        if service not in order:
            order.append(service)

    def _start(self, service: str) -> None:
        deploy = self.services[service].get("deploy", {})
        made = [self._container(service, number + 1) for number in range(int(deploy.get("replicas", 1)))]
        self.containers[service] = made
        if service == "postgres":
            self._initdb(made[0])
        for container in made:
            container.start()
        if service == "postgres":
            self._create_database(made[0])

    def _container(self, service: str, replica: int) -> Container:
        described = self.services[service]
        name = f"{service}-{replica}"
        target = self.targets.get(described["image"])
        image = self.images[target].environment() if target else {}
        own = {key: str(value) for key, value in described.get("environment", {}).items() if value is not None}
        environment = {key: self.mapped(value, service, replica) for key, value in {**image, **own}.items()}
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.folder),
            **environment,
            **(self._more if target else {}),
            "HOSTNAME": name,
        }
        volume = self.folder / "volumes" / service
        volume.mkdir(parents=True, exist_ok=True)
        command = [self.mapped(part, service, replica) for part in described["command"]]
        command = without_log_server(command)
        health = described.get("healthcheck", {}).get("test")
        check = None
        if health and health[0] != "NONE" and not described["healthcheck"].get("disable"):
            words = [self.mapped(part, service, replica) for part in health]
            check = words[1:] if words[0] == "CMD" else ["/bin/sh", "-c", words[1]]
        logs = self.folder / "logs"
        logs.mkdir(exist_ok=True)
        folder = self.home if image.get("AIRFLOW_HOME") else self.folder
        return Container(
            name, described, _found(command, environment), environment, check, logs / f"{name}.log", folder
        )

    def _initdb(self, container: Container) -> None:
        programs, data = postgres_programs(), self.folder / "volumes/postgres"
        assert programs is not None
        if os.geteuid() == 0:
            container.user = "postgres"
            os.chown(data, pwd.getpwnam("postgres").pw_uid, -1)
        address, given = self.address("postgres"), container.environment
        given |= {"PATH": f"{programs}:{given['PATH']}", "PGHOST": address}
        password = data.parent / "password"
        password.write_text(given["POSTGRES_PASSWORD"])
        password.chmod(0o644)
        subprocess.run(
            [
                *(programs / "initdb", "--no-sync", "--pgdata", data, "--username", given["POSTGRES_USER"]),
                *("--pwfile", password, *given["POSTGRES_INITDB_ARGS"].split()),
            ],
            env=given,
            user=container.user,
            cwd="/",
            check=True,
            capture_output=True,
        )
        password.unlink()
        container.command[0] = str(programs / "postgres")
        container.command += ["-D", str(data), "-c", f"listen_addresses={address}", "-c", "unix_socket_directories="]
        container.folder = Path("/")

    def _create_database(self, container: Container) -> None:
        given = container.environment
        self.until_healthy(container)
        subprocess.run(
            ["createdb", "--username", given["POSTGRES_USER"], given["POSTGRES_DB"]],
            env={**given, "PGPASSWORD": given["POSTGRES_PASSWORD"]},
            cwd="/",
            check=True,
        )

    def _await(self, service: str, condition: str) -> None:
        for container in self.containers[service]:
            if condition == "service_completed_successfully":
                code = container.process.wait(START_SECONDS) if container.process else None
                assert code == 0, f"{container.name} ended with {code}:\n{container.said[-3000:]}"
            elif condition == "service_healthy":
                self.until_healthy(container)

    def until_healthy(self, container: Container) -> None:
        """Wait until a container's own health check passes."""
        deadline = time.monotonic() + START_SECONDS
        while not container.is_healthy(60):
            assert container.is_running(), f"{container.name} ended:\n{container.said[-3000:]}"
            assert time.monotonic() < deadline, f"{container.name} is not healthy:\n{container.said[-3000:]}"
            time.sleep(0.3)

    # Using

    def __getitem__(self, name: str) -> Container:
        """Return a container by its name, such as worker-1."""
        service, _, number = name.rpartition("-")
        return self.containers[service][int(number) - 1]

    @property
    def password(self) -> str:
        """The first administrator's, as `init` printed it."""
        [found] = re.findall(r"the password (\S+)", self["init-1"].said)
        return str(found)

    @property
    def airflow(self) -> Fab:
        """The REST API."""
        server = Fab(self.home, 8080, self.address("api-server"))
        object.__setattr__(server, "password", self.password)
        return server

    def settings(self) -> dict[str, str]:
        """Return the variables that lead a process of this machine to the stack's warehouse and bucket."""
        names = ("NIGHTSCORE", "BIGQUERY", "STORAGE")
        given = self.services["worker"]["environment"]
        return {
            key: self.mapped(str(value), "worker")
            for key, value in given.items()
            if value is not None and key.startswith(names)
        }

    def owner(self, process: psutil.Process) -> Container:
        """Return the container in which a process is."""
        for container in self.all():
            if process.pid in {found.pid for found in container.processes()}:
                return container
        raise LookupError(process)

    def all(self) -> Iterable[Container]:
        """Return all containers."""
        return [container for found in self.containers.values() for container in found]

    def close(self) -> None:
        """Kill everything and delete the folder."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(Container.kill, self.all()))
        shutil.rmtree(self.folder, ignore_errors=True)


def without_log_server(command: list[str]) -> list[str]:
    """Return the command of a worker or triggerer that serves no logs."""
    if command[:2] == ["airflow", "triggerer"]:
        return [*command, "--skip-serve-logs"]
    return [part.replace("airflow celery worker", "airflow celery worker --skip-serve-logs") for part in command]


def _found(command: list[str], environment: Mapping[str, str]) -> list[str]:
    """Return the command with its program looked up in its own PATH and not in ours."""
    return [shutil.which(command[0], path=environment["PATH"]) or command[0], *command[1:]]
