"""Airflow's settings: those whose defaults cost a night, or that must be the same everywhere."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from nightscore.doctor.deployment import Deployment
from nightscore.doctor.finding import Finding, fault, not_checked, ok, unreachable, warning
from nightscore.errors import shorten

PROGRAM = "nightscore.orchestration.airflow_settings"
LONGEST_TASK = 6 * 3600  # seconds; a shard may take that
LEAST_SECRET = 64  # bytes that HS512 wants

Airflow = Mapping[str, Any]


def check_airflow(deployment: Deployment) -> Iterator[Finding]:
    """Look at Airflow's settings as this process would use them, and at the variables beside them."""
    environment = deployment.environment
    home = Path(environment.get("AIRFLOW_HOME") or Path(environment.get("HOME", "/")) / "airflow")
    configured = any(name.startswith("AIRFLOW__") for name in environment)
    if not (configured or environment.get("AIRFLOW_HOME") or (home / "airflow.cfg").is_file()):
        yield not_checked(
            "Airflow", "no Airflow is set up here: neither AIRFLOW_HOME nor any AIRFLOW__ variable is set"
        )
        return
    with tempfile.TemporaryDirectory(prefix="nightscore-doctor-") as folder:
        # Airflow would write a file of settings where it finds none.
        config = environment.get("AIRFLOW_CONFIG") or home / "airflow.cfg"
        own = {} if Path(config).is_file() else {"AIRFLOW_CONFIG": os.path.join(folder, "airflow.cfg")}  # noqa: PTH118
        try:
            ended = subprocess.run(  # noqa: S603 - this interpreter, and a module of ours
                [sys.executable, "-m", PROGRAM],
                env={**environment, **own},
                capture_output=True,
                text=True,
                timeout=deployment.timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            yield unreachable(
                "Airflow", f"Its settings could not be read within {deployment.timeout:g} s.", "airflow info"
            )
            return
    if ended.returncode:
        last = ended.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        yield fault("Airflow", f"Its settings cannot be read: {shorten(last[0], 300)}", "airflow config list")
        return
    found = json.loads(ended.stdout[ended.stdout.index("{") :])
    for check in CHECKS:
        yield from check(deployment, found)


def _executor(_: Deployment, airflow: Airflow) -> Iterator[Finding]:
    executor, database = str(airflow["core.executor"]), airflow["database"]
    name = executor.rsplit(".", 1)[-1]
    if name == "SequentialExecutor":
        yield fault("executor", "SequentialExecutor runs one task at a time.", "AIRFLOW__CORE__EXECUTOR=CeleryExecutor")
    elif database == "sqlite":
        text = f"{name} on SQLite, which locks as a whole: for a laptop only."
        fix = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=postgresql+psycopg2://…"
        yield (warning if name == "LocalExecutor" else fault)("executor", text, fix)
    else:
        yield ok("executor", f"{name} on {database}")


def _celery(_: Deployment, airflow: Airflow) -> Iterator[Finding]:
    if "Celery" not in str(airflow["core.executor"]):
        return
    try:
        version = metadata.version("celery")
    except metadata.PackageNotFoundError:
        yield fault(
            "celery", "CeleryExecutor is chosen, and celery is not installed.", "pip install 'nightscore[stack]'"
        )
        return
    if tuple(map(int, version.split(".")[:2])) >= (5, 7):
        text = f"celery {version} lacks what Airflow's provider imports: scheduler and workers do not start."
        yield fault("celery", text, "pip install 'celery<5.7'")
    else:
        yield ok("celery", f"celery {version}")
    timeout = airflow["celery.visibility_timeout"]
    seconds = 86400 if timeout is None else int(float(timeout))  # the provider's default
    if seconds < LONGEST_TASK:
        text = f"Redis gives a task out a second time after {seconds} s, though it may still run."
        yield fault("visibility timeout", text, "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT=86400")
    else:
        yield ok("visibility timeout", f"{seconds} s")


def _secrets(_: Deployment, airflow: Airflow) -> Iterator[Finding]:
    apart = "LocalExecutor" not in str(airflow["core.executor"])
    for option, variable, why in (
        (
            "api_auth.jwt_secret",
            "AIRFLOW__API_AUTH__JWT_SECRET",
            "processes make up their own, and tasks are refused",
        ),
        ("api.secret_key", "AIRFLOW__API__SECRET_KEY", "the page cannot fetch logs from workers"),
    ):
        secret = airflow[option]
        fix = f"{variable}=$(python -c 'import secrets; print(secrets.token_urlsafe(64))'), the same in every service"
        if not secret["given"]:
            text = f"{option} is not set: {why}."
            yield fault(option, text, fix) if apart else warning(option, text, fix)
        elif option == "api_auth.jwt_secret" and secret["length"] < LEAST_SECRET:
            yield warning(option, f"{option} has {secret['length']} characters; {LEAST_SECRET} are wanted.", fix)
        else:
            same = f"; its digest {secret['digest']} must be the same in every service" if secret["digest"] else ""
            yield ok(option, f"set, {secret['length']} characters{same}")
    if not airflow["core.fernet_key"]["given"]:
        make = "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"
        fix = f"AIRFLOW__CORE__FERNET_KEY=$(python -c '{make}'), the same in every service"
        yield warning("core.fernet_key", "core.fernet_key is not set: connections are stored unencrypted.", fix)
    if apart and not airflow["core.execution_api_server_url"]:
        text = "core.execution_api_server_url is not set: workers look for the API server on their own machine."
        yield warning(
            "execution API", text, "AIRFLOW__CORE__EXECUTION_API_SERVER_URL=http://api-server:8080/execution/"
        )


def _heartbeats(_: Deployment, airflow: Airflow) -> Iterator[Finding]:
    interval, failed = float(airflow["workers.min_heartbeat_interval"]), int(airflow["workers.max_failed_heartbeats"])
    if interval > 1:
        text = f"workers.min_heartbeat_interval is {interval:g} s: so long may a slot stay taken after a short task."
        fix = "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL=1 AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS=20"
        yield warning("heartbeats", text, fix)
    elif interval * failed < 15:
        text = f"A task gives up after {interval * failed:g} s without the API server, which a restart of it takes."
        yield warning("heartbeats", text, "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS=20")
    else:
        yield ok("heartbeats", f"every {interval:g} s; a task bears {interval * failed:g} s without the API server")
    idle = float(airflow["scheduler.scheduler_idle_sleep_time"])
    if idle > 0.5:
        text = f"scheduler.scheduler_idle_sleep_time is {idle:g} s: every level of a DAG waits for it."
        yield warning("scheduler loop", text, "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME=0.2")
    else:
        yield ok("scheduler loop", f"every {idle:g} s")


def _dags(deployment: Deployment, airflow: Airflow) -> Iterator[Finding]:
    folder = Path(str(airflow["core.dags_folder"]))
    if not folder.is_dir():
        # A worker of Kubernetes may get its DAGs from a bundle, so that this is nobody's fault for sure.
        text = f"There is no folder {folder}."
        yield warning("DAGs' folder", text, "AIRFLOW__CORE__DAGS_FOLDER=…/dags, the folder with scoring.py")
    elif not (folder / "scoring.py").is_file():
        fix = "AIRFLOW__CORE__DAGS_FOLDER=…/dags, the folder with scoring.py"
        yield warning("DAGs' folder", f"{folder} holds no scoring.py, which makes the DAGs of pipelines.", fix)
    elif deployment.folder.resolve() != (folder / "pipelines").resolve():
        text = f"Airflow runs the pipelines of {folder / 'pipelines'}; this process reads those of {deployment.folder}."
        yield warning("DAGs' folder", text, f"NIGHTSCORE_PIPELINES_DIR={folder / 'pipelines'}")
    else:
        yield ok("DAGs' folder", str(folder))
    if _is_true(airflow["core.load_examples"]):
        yield warning("examples", "Airflow shows its example DAGs.", "AIRFLOW__CORE__LOAD_EXAMPLES=False")
    parsing = len(deployment.items) * 0.031  # seconds that a DAG took to parse, serialise and store, measured
    for option in ("core.dagbag_import_timeout", "dag_processor.dag_file_processor_timeout"):
        limit = float(airflow[option])
        if 0 < limit < 2 * parsing:
            text = f"{len(deployment.items):,} pipelines take about {parsing:.0f} s to parse; {option} is {limit:g} s."
            yield fault("parsing", text, f"AIRFLOW__{option.replace('.', '__').upper()}={int(4 * parsing)}")


def _users(_: Deployment, airflow: Airflow) -> Iterator[Finding]:
    simple = "SimpleAuthManager" in str(airflow["core.auth_manager"])
    if simple and _is_true(airflow["core.simple_auth_manager_all_admins"]):
        host = airflow["api.host"] or "0.0.0.0"  # noqa: S104 - Airflow's default
        text = f"Everybody who reaches {host} is an administrator."
        fix = "AIRFLOW__CORE__AUTH_MANAGER=airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
        if host in ("127.0.0.1", "localhost"):
            yield ok("users", f"{text[:-1]}: this machine alone")
        else:
            yield fault("users", text, fix)
    elif simple:
        text = "SimpleAuthManager keeps passwords in a file, and is meant for development."
        fix = "AIRFLOW__CORE__AUTH_MANAGER=airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
        yield warning("users", text, fix)
    else:
        yield ok("users", str(airflow["core.auth_manager"]).rsplit(".", 1)[-1])


def _traces(deployment: Deployment, airflow: Airflow) -> Iterator[Finding]:
    if not _is_true(airflow["traces.otel_on"]):
        return
    environment = deployment.environment
    protocol = environment.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    if protocol.startswith("http") and "http" not in environment.get("OTEL_TRACES_EXPORTER", ""):
        text = f"Traces go by gRPC whatever OTEL_EXPORTER_OTLP_PROTOCOL={protocol} says, and every task waits for them."
        yield fault("traces", text, "OTEL_TRACES_EXPORTER=otlp_proto_http")
    else:
        yield ok("traces", "on")


CHECKS: tuple[Callable[[Deployment, Airflow], Iterator[Finding]], ...] = (
    _executor,
    _celery,
    _secrets,
    _heartbeats,
    _dags,
    _users,
    _traces,
)


def _is_true(value: object) -> bool:
    return str(value).lower() in ("true", "t", "1", "yes", "on")
