"""docker-compose.yaml, as Docker's own program reads it, against the policies; each policy finds what breaks it."""

import os
import re
import subprocess

import pytest

from stack.compose import COMPOSE, ROOT, filled, make_env, resolve
from stack.policies import COMPOSE_POLICIES, Compose


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a .env like that of `make env LOCAL=1`."""
    if not _reads_compose():
        pytest.skip("docker-compose is missing; `make stack-tools` installs it on Debian, as root")
    found = tmp_path_factory.mktemp("compose")
    make_env(found / ".env")
    return found


def _reads_compose():
    from stack.compose import compose_program

    try:
        return bool(compose_program())
    except FileNotFoundError:
        return False


def changed(old, new):
    """Return the text of the compose file after replacing one that is in it."""
    text = COMPOSE.read_text()
    assert old in text
    return text.replace(old, new, 1)


@pytest.fixture(scope="module")
def compose(folder):
    return Compose(COMPOSE.read_text(), resolve(folder / ".env", COMPOSE, "local"))


@pytest.mark.parametrize("policy", COMPOSE_POLICIES, ids=lambda policy: policy.__name__)
def test_the_file_keeps_every_policy(compose, policy):
    assert list(policy(compose)) == []


BROKEN = [
    ("images_are_pinned", "redis:7.2-bookworm@sha256:e51cbc16", "redis:e51cbc16", "redis: the image"),
    ("images_are_pinned", "${NIGHTSCORE_IMAGE:-nightscore:0.1.0}", "nightscore:latest", "worker: the image"),
    (
        "images_are_built_once",
        "  worker:\n    <<: *airflow\n",
        "  worker:\n    <<: *airflow\n    build: {context: ., target: airflow}\n",
        "nightscore:0.1.0 is built by 2 services",
    ),
    ("nobody_is_root", '    user: "999:999"  # the image', '    # "', "postgres: runs as root"),
    ("nobody_is_root", "x-local: &local\n", 'x-local: &local\n  user: "0:0"\n', "bigquery: runs as root"),
    ("rights_are_dropped", "  cap_drop: [ALL]\n", "", "worker: has capabilities"),
    ("rights_are_dropped", "no-new-privileges:true", "label:disable", "redis: may gain privileges"),
    ("rights_are_dropped", "  init: true", "  privileged: true\n  init: true", "init: is not kept apart"),
    (
        "rights_are_dropped",
        '"redis:/data"',
        '"redis:/data", "/var/run/docker.sock:/var/run/docker.sock"',
        "redis: holds the engine",
    ),
    ("secrets_come_from_env", "${FERNET_KEY:?run make env}", "${FERNET_KEY:-abc}", "FERNET_KEY is not from .env alone"),
    (
        "secrets_come_from_env",
        "POSTGRES_PASSWORD: ${POSTGRES_PASSWORD:?run make env}",
        "POSTGRES_PASSWORD: airflow",
        "postgres: POSTGRES_PASSWORD",
    ),
    (
        "secrets_come_from_env",
        "redis://:${REDIS_PASSWORD:?run make env}@",
        "redis://:hunter2@",
        "BROKER_URL holds a password",
    ),
    (
        "secrets_come_from_env",
        "exec redis-server -",
        "exec redis-server --requirepass x",
        "redis: a command line shows",
    ),
    (
        "services_report_health",
        "      test: [CMD, pg_isready",
        "      no: [CMD, pg_isready",
        "postgres: has no health check",
    ),
    ("services_report_health", "      retries: 6\n", "", "postgres: its health check has no retries"),
    ("services_start_again", "  restart: unless-stopped\n", "", "worker: has no restart policy"),
    ("resources_are_bounded", "    mem_limit: 512m\n", "", "redis: has no limits"),
    ("resources_are_bounded", "  pids_limit: 1000\n", "", "worker: has no limits"),
    (
        "resources_are_bounded",
        "    mem_limit: 512m\n",
        '    mem_limit: 512m\n    deploy: {resources: {limits: {cpus: "1"}}}\n',
        "redis: has limits in two forms",
    ),
    ("resources_are_bounded", '{max-size: 20m, max-file: "5"}', "{max-size: 20m}", "init: its logs have no limit"),
    ("ports_are_local", "${AIRFLOW_ADDRESS:-127.0.0.1}:", "", "is open to the network"),
    ("folders_of_the_host_are_read_only", ":/credentials:ro", ":/credentials", "may be written to"),
]


@pytest.mark.parametrize(("policy", "old", "new", "fault"), BROKEN, ids=[f"{b[0]}-{n}" for n, b in enumerate(BROKEN)])
def test_a_policy_finds_what_breaks_it(policy, old, new, fault):
    [rule] = [rule for rule in COMPOSE_POLICIES if rule.__name__ == policy]
    text = changed(old, new)
    assert fault in "\n".join(rule(Compose(text, filled(text, {}))))


def test_every_policy_is_shown_to_find_something():
    assert {broken[0] for broken in BROKEN} == {policy.__name__ for policy in COMPOSE_POLICIES}


def test_without_secrets_nothing_starts(folder, tmp_path):
    lines = (folder / ".env").read_text().splitlines()
    for name in ("FERNET_KEY", "NIGHTSCORE_PROJECT"):
        less = tmp_path / "less.env"
        less.write_text("\n".join(line for line in lines if not line.startswith(f"{name}=")))
        with pytest.raises(ValueError, match="make env"):
            resolve(less, COMPOSE, "local")


def test_docker_refuses_what_it_does_not_know(folder, tmp_path):
    broken = tmp_path / "docker-compose.yaml"
    broken.write_text(changed("    healthcheck:", "    healthcheckk:"))
    with pytest.raises(ValueError, match="healthcheckk"):
        resolve(folder / ".env", broken, "local")


def test_without_the_profile_the_local_servers_stay_out(folder):
    services = resolve(folder / ".env", COMPOSE)["services"]
    profiles = {name: own.get("profiles") for name, own in services.items() if own.get("profiles")}
    assert profiles in ({}, {name: ["local"] for name in ("bigquery", "storage", "demo-data")})


def test_tasks_get_every_setting_that_nightscore_reads(compose):
    """A setting that is not passed on would be without effect in .env, and nobody would be told."""

    source = (ROOT / "include/nightscore/settings.py").read_text()
    not_for_tasks = {"NIGHTSCORE_HOME", "NIGHTSCORE_SIGNING_PASSWORD"}  # the latter is a person's who signs models
    read = {f"NIGHTSCORE_{name.upper()}" for name in re.findall(r'^    "(\w+)": \(r"', source, re.MULTILINE)}
    read |= set(re.findall(r'"(NIGHTSCORE_[A-Z_]+|[A-Z_]+_EMULATOR_HOST)"', source)) - not_for_tasks
    assert len(read) >= 13
    assert read <= set(compose.services["worker"]["environment"])


def test_every_airflow_service_has_the_same_environment(compose):
    """Secrets that differ, or one setting that only the scheduler has, are found at three in the morning."""
    names = ("init", "api-server", "scheduler", "dag-processor", "triggerer", "worker")
    [first, *others] = [compose.services[name]["environment"] for name in names]
    assert all(other == first for other in others)
    beat = int(first["AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL"]) * int(
        first["AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS"]
    )
    assert beat < int(first["AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT"])


@pytest.mark.parametrize(
    ("variables", "parallelism"),
    [("", "4"), ("WORKERS=5\nWORKER_CONCURRENCY=3\n", "15"), ("WORKERS=5\nAIRFLOW_PARALLELISM=7\n", "7")],
)
def test_no_more_tasks_are_queued_than_the_workers_have_slots(folder, tmp_path, variables, parallelism):
    env = tmp_path / ".env"
    env.write_text((folder / ".env").read_text() + variables)
    program = tmp_path / "airflow"
    program.write_text('#!/bin/sh\necho "$* $AIRFLOW__CORE__PARALLELISM"\n')
    program.chmod(0o755)
    command = resolve(env, COMPOSE)["services"]["scheduler"]["command"]
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert said == f"scheduler {parallelism}\n"


def test_what_the_page_on_observability_names_reaches_the_tasks(folder, tmp_path):
    page = (ROOT / "docs/observability.md").read_text()
    named = set(re.findall(r"\b(?:AIRFLOW__[A-Z_]+|OTEL_[A-Z_]+|NIGHTSCORE_[A-Z_]+)\b", page))
    named -= {"AIRFLOW__", "OTEL_", "NIGHTSCORE_"}  # all of a kind
    named -= {"AIRFLOW__METRICS__OTEL_HOST", "OTEL_PORT"}  # named as deprecated
    assert len(named) >= 12
    values = {name: f"of {name}" for name in named}
    values |= dict(re.findall(r"^(\w+)=(\S.*)$", page, re.MULTILINE))  # one is JSON
    env = tmp_path / ".env"
    env.write_text((folder / ".env").read_text() + "".join(f"{name}={values[name]}\n" for name in sorted(named)))
    services = resolve(env, COMPOSE, "local")["services"]
    for service in ("scheduler", "triggerer", "worker"):
        environment = services[service]["environment"]
        assert {name: environment.get(name) for name in named} == {name: values[name] for name in named}


def test_the_manual_names_every_variable():
    names = set(re.findall(r"(?<!\$)\$\{(\w+)", COMPOSE.read_text())) - {"NAME"}
    names -= {"NIGHTSCORE_LOCAL_IMAGE"}  # of the profile `local`, for trying
    manual = (ROOT / "docs/stack.md").read_text()
    assert len(names) > 18
    assert sorted(name for name in names if f"`{name}`" not in manual) == []
