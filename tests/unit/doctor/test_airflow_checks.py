"""What doctor says of Airflow's settings, as the program that reads them describes them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nightscore.doctor.airflow_checks import CHECKS, check_airflow
from nightscore.doctor.deployment import Deployment
from nightscore.doctor.finding import Finding

SECRET = "s3cr3t" * 12
STACK = {
    "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
    "AIRFLOW__CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__FERNET_KEY": "j1fmZS2-pYasI4uexIvsimXmXysnqfAoP9q_m8b0H8g=",
    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "http://api-server:8080/execution/",
    "AIRFLOW__API_AUTH__JWT_SECRET": SECRET,
    "AIRFLOW__API__SECRET_KEY": SECRET[::-1],
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql+psycopg2://airflow:pa55word@postgres/airflow",
    "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "86400",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "20",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
}


def place(folder: Path, environment: dict[str, str] | None = None, *, pipelines: int = 1, **changes: str) -> Deployment:
    dags = folder / "dags"
    for number in range(pipelines):
        (dags / "pipelines" / f"p{number}").mkdir(parents=True, exist_ok=True)
        (dags / "pipelines" / f"p{number}" / "pipeline.yaml").write_text("{}")
    (dags / "scoring.py").touch()
    given = STACK if environment is None else environment
    own = {"AIRFLOW__CORE__DAGS_FOLDER": str(dags), "AIRFLOW_HOME": str(folder / "home")}
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return Deployment({**inherited, **own, **given, **changes}, folder, dags / "pipelines", timeout=120.0)


def described(deployment: Deployment) -> dict[str, object]:
    program = [sys.executable, "-m", "nightscore.orchestration.airflow_settings"]
    ended = subprocess.run(program, env=dict(deployment.environment), capture_output=True, text=True, check=True)
    return dict(json.loads(ended.stdout[ended.stdout.index("{") :]))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The description of a stack that is well, as the program gives it."""
    return described(place(tmp_path_factory.mktemp("stack")))


def wrong(findings: list[Finding]) -> dict[str, tuple[str, str, str | None]]:
    return {item.check: (item.status, item.found, item.fix) for item in findings if item.status != "ok"}


def look(deployment: Deployment, airflow: dict[str, object]) -> dict[str, tuple[str, str, str | None]]:
    return wrong([finding for check in CHECKS for finding in check(deployment, airflow)])


def test_a_stack_that_is_well(tmp_path: Path) -> None:
    deployment = place(tmp_path)
    found = list(check_airflow(deployment))
    assert wrong(found) == {}
    assert [item.found for item in found if item.check == "executor"] == ["CeleryExecutor on postgresql"]
    shown = "".join(item.found + (item.fix or "") for item in found)
    assert "its digest" in shown
    assert [word for word in (SECRET, SECRET[::-1], "pa55word", "j1fmZS2") if word in shown] == []
    assert not (tmp_path / "home" / "airflow.cfg").exists()


def test_what_airflow_does_by_default(tmp_path: Path) -> None:
    found = wrong(list(check_airflow(place(tmp_path, {}))))
    assert {check: status for check, (status, _, _) in found.items()} == dict.fromkeys(
        (
            "executor",
            "api_auth.jwt_secret",
            "api.secret_key",
            "core.fernet_key",
            "heartbeats",
            "scheduler loop",
            "examples",
            "users",
        ),
        "warning",
    )
    assert found["heartbeats"] == (
        "warning",
        "workers.min_heartbeat_interval is 5 s: so long may a slot stay taken after a short task.",
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL=1 AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS=20",
    )


SECRET_FIX = "=$(python -c 'import secrets; print(secrets.token_urlsafe(64))'), the same in every service"
ABSENT = {"given": False, "length": 0, "digest": None}
FAB = "AIRFLOW__CORE__AUTH_MANAGER=airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"


@pytest.mark.parametrize(
    ("changes", "check", "wanted"),
    [
        (
            {"core.executor": "SequentialExecutor"},
            "executor",
            ("fault", "SequentialExecutor runs one task at a time.", "AIRFLOW__CORE__EXECUTOR=CeleryExecutor"),
        ),
        (
            {"database": "sqlite"},
            "executor",
            (
                "fault",
                "CeleryExecutor on SQLite, which locks as a whole: for a laptop only.",
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=postgresql+psycopg2://…",
            ),
        ),
        (
            {"celery.visibility_timeout": 3600},
            "visibility timeout",
            (
                "fault",
                "Redis gives a task out a second time after 3600 s, though it may still run.",
                "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT=86400",
            ),
        ),
        (
            {"api_auth.jwt_secret": ABSENT},
            "api_auth.jwt_secret",
            (
                "fault",
                "api_auth.jwt_secret is not set: processes make up their own, and tasks are refused.",
                f"AIRFLOW__API_AUTH__JWT_SECRET{SECRET_FIX}",
            ),
        ),
        (
            {"api_auth.jwt_secret": {"given": True, "length": 20, "digest": "00000000"}},
            "api_auth.jwt_secret",
            (
                "warning",
                "api_auth.jwt_secret has 20 characters; 64 are wanted.",
                f"AIRFLOW__API_AUTH__JWT_SECRET{SECRET_FIX}",
            ),
        ),
        (
            {"workers.max_failed_heartbeats": "3"},
            "heartbeats",
            (
                "warning",
                "A task gives up after 3 s without the API server, which a restart of it takes.",
                "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS=20",
            ),
        ),
        (
            {
                "core.auth_manager": "…SimpleAuthManager",
                "core.simple_auth_manager_all_admins": "True",
                "api.host": "0.0.0.0",
            },
            "users",
            ("fault", "Everybody who reaches 0.0.0.0 is an administrator.", FAB),
        ),
        (
            {"core.execution_api_server_url": None},
            "execution API",
            (
                "warning",
                "core.execution_api_server_url is not set: workers look for the API server on their own machine.",
                "AIRFLOW__CORE__EXECUTION_API_SERVER_URL=http://api-server:8080/execution/",
            ),
        ),
    ],
)
def test_a_setting_that_costs_a_night(
    stack: dict[str, object],
    tmp_path: Path,
    changes: dict[str, object],
    check: str,
    wanted: tuple[str, str, str],
) -> None:
    deployment = place(tmp_path)
    assert look(deployment, {**stack, "core.dags_folder": str(tmp_path / "dags"), **changes}) == {check: wanted}


def test_traces_that_every_task_waits_for(stack: dict[str, object], tmp_path: Path) -> None:
    airflow = {**stack, "core.dags_folder": str(tmp_path / "dags"), "traces.otel_on": "True"}
    text = "Traces go by gRPC whatever OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf says, and every task waits for them."
    deployment = place(tmp_path, OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf")
    assert look(deployment, airflow) == {"traces": ("fault", text, "OTEL_TRACES_EXPORTER=otlp_proto_http")}
    with_exporter = {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_TRACES_EXPORTER": "otlp_proto_http"}
    assert look(place(tmp_path, **with_exporter), airflow) == {}


def test_a_thousand_pipelines_take_time_to_parse(stack: dict[str, object], tmp_path: Path) -> None:
    deployment = place(tmp_path, pipelines=1000)
    found = look(deployment, {**stack, "core.dags_folder": str(tmp_path / "dags")})
    text = "1,000 pipelines take about 31 s to parse; dag_processor.dag_file_processor_timeout is 50 s."
    assert found == {"parsing": ("fault", text, "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT=124")}


def test_airflow_runs_other_pipelines(stack: dict[str, object], tmp_path: Path) -> None:
    deployment, other = place(tmp_path / "one"), tmp_path / "other" / "dags"
    other.mkdir(parents=True)
    airflow = {**stack, "core.dags_folder": str(other)}
    fix = "AIRFLOW__CORE__DAGS_FOLDER=…/dags, the folder with scoring.py"
    text = f"{other} holds no scoring.py, which makes the DAGs of pipelines."
    assert look(deployment, airflow) == {"DAGs' folder": ("warning", text, fix)}
    (other / "scoring.py").touch()
    text = f"Airflow runs the pipelines of {other}/pipelines; this process reads those of {deployment.folder}."
    assert look(deployment, airflow) == {
        "DAGs' folder": ("warning", text, f"NIGHTSCORE_PIPELINES_DIR={other}/pipelines")
    }


def test_without_airflow(tmp_path: Path) -> None:
    deployment = Deployment({"HOME": str(tmp_path)}, tmp_path, tmp_path)
    [found] = check_airflow(deployment)
    assert (found.status, found.found) == (
        "not checked",
        "no Airflow is set up here: neither AIRFLOW_HOME nor any AIRFLOW__ variable is set",
    )
