"""The stack for one's own servers, run for real: docker-compose.yaml's own services, as processes (stack/native.py)."""

import datetime as dt
import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pyarrow.compute as pc
import pytest

from faults.valve import eventually
from nightscore.lease import Holder, acquire
from nightscore.records import RunRecords, run_ids
from stack.compose import ROOT

MANUAL = ROOT / "docs/stack.md"
ROWS, SHARDS = 60_000, 4
SECONDS = 240

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def killed_night(stack):
    """The scheduled night, during which a worker is killed with all its processes while it reads its shards."""
    airflow, night = stack.airflow, stack.bench.night.isoformat()
    dag_id = f"score_{stack.bench.name}"
    eventually(lambda: airflow.find_dag(dag_id))
    airflow.call("PATCH", f"/dags/{dag_id}?update_mask=is_paused", {"is_paused": False})
    run_id = eventually(lambda: next(iter(airflow.runs_of(dag_id, night)), None))["dag_run_id"]
    victim = worker_that_reads(stack, dag_id, run_id)
    victim.kill()
    stack.valve.open.set()
    stack["init-1"].start()  # as the next `docker compose up` does
    health = healthy([container for container in stack.all() if container is not victim])
    health[victim.name] = victim.is_healthy()
    return {"victim": victim, "health": health, **ended(stack, dag_id, run_id)}


def worker_that_reads(stack, dag_id, run_id):
    """Shut the valve, wait until each worker has begun two shards, and return one of the two that work."""
    eventually(lambda: stack.airflow.task_states(dag_id, run_id).get("freeze") == "success", pause=0.5)
    stack.valve.open.clear()

    def states():
        return list(stack.airflow.task_states(dag_id, run_id).values())

    eventually(lambda: states().count("running") == SHARDS, pause=0.5)
    return stack.owner(eventually(stack.valve.reader))


def ended(stack, dag_id, run_id):
    """Wait until a run has ended; return it and its tasks."""
    path = f"/dags/{dag_id}/dagRuns/{run_id}"

    def look():
        return (now := stack.airflow.call("GET", path))["state"] in ("success", "failed") and now

    run = eventually(look, SECONDS, pause=0.5)
    return {"run": run, "tasks": stack.airflow.call("GET", f"{path}/taskInstances?limit=100")["task_instances"]}


def healthy(containers):
    """Return name → whether a container is healthy to Docker: one of three checks in a row passes."""
    checked = [container for container in containers if container.health]
    # A machine that runs other tests beside may need long for one; Docker's own limits are kept where checks must fail.
    with ThreadPoolExecutor(3) as pool:
        found = pool.map(lambda container: any(container.is_healthy(120) for _ in range(3)), checked)
        return {container.name: passed for container, passed in zip(checked, found, strict=True)}


def test_a_killed_worker_costs_its_shards_another_try_and_nothing_else(stack, killed_night):
    assert killed_night["run"]["state"] == "success"
    assert killed_night["run"]["run_type"] == "scheduled"
    tries = [(item["task_id"], item["try_number"]) for item in killed_night["tasks"]]
    assert {number for task, number in tries if task != "score"} == {1}
    shards = sorted(number for task, number in tries if task == "score")
    assert len(shards) == SHARDS
    assert set(shards) == {1, 2}, "some shards went on and some were tried again"
    night = stack.bench.night.isoformat()
    found = stack.bench.published().filter(pc.field("snapshot_date") == stack.bench.night)
    assert found["id"].to_pylist() == list(range(ROWS))
    assert found["score"].to_numpy().tolist() == stack.bench.expected.tolist()
    [run_id] = [name for name in run_ids(stack.bench.services.bucket, stack.bench.name) if name.startswith(night)]
    receipts = RunRecords(stack.bench.services.bucket, stack.bench.name, run_id).receipts()
    assert sum(receipt["rows"] for receipt in receipts) == ROWS
    span = dt.timedelta(seconds=10)  # the lease is free for whoever comes next
    acquire(
        stack.bench.services.bucket, stack.bench.name, stack.bench.night, Holder("next", "the next run"), span
    ).require()


def test_the_run_went_through_both_workers(stack, killed_night):
    """By CeleryExecutor: each worker says which tasks it received."""
    [survivor] = [worker for worker in stack.containers["worker"] if worker.is_running()]
    assert killed_night["victim"] is not survivor
    for worker in (survivor, killed_night["victim"]):
        assert re.search(r"execute_workload\[", worker.said), worker.name


def test_health_checks_pass_while_a_service_works_and_fail_when_it_is_dead(killed_night):
    victim = killed_night["victim"].name
    names = {name.rpartition("-")[0] for name in killed_night["health"]}
    assert names >= {"postgres", "redis", "api-server", "scheduler", "dag-processor", "triggerer", "worker"}
    assert killed_night["health"] == {name: name != victim for name in killed_night["health"]}


def test_the_password_is_shown_once_and_nothing_opens_without_it(stack, killed_night):
    url = stack.airflow.url
    with httpx.Client(base_url=url, trust_env=False) as client:
        assert client.get("/api/v2/dags").status_code == 401
        for guess in ("admin", "airflow", "", stack.password[:-1]):
            assert client.post("/auth/token", json={"username": "admin", "password": guess}).status_code in (400, 401)
    again = stack["init-1"]
    assert again.process.wait(120) == 0
    assert again.said.count(stack.password) == 1
    assert again.said.endswith("Airflow has users already; none was added.\n")


def test_database_and_queue_need_their_passwords(stack):
    redis, postgres = stack["redis-1"], stack["postgres-1"]
    ping = ["redis-cli", "-h", stack.address("redis"), "ping"]
    assert "NOAUTH" in subprocess.run(ping, capture_output=True, text=True, check=False).stdout
    assert redis.environment["REDISCLI_AUTH"] not in " ".join(redis.processes()[0].cmdline())
    wrong = {**postgres.environment, "PGPASSWORD": "airflow"}
    asked = subprocess.run(
        ["psql", "-U", "airflow", "-d", "airflow", "-c", "SELECT 1"], env=wrong, capture_output=True, check=False
    )
    assert b"password authentication failed" in asked.stderr


def test_workers_get_the_settings_of_the_env_file(stack):
    worker = stack.containers["worker"][0].environment
    assert (worker["NIGHTSCORE_PROJECT"], worker["NIGHTSCORE_BUCKET"]) == ("local", "nightscore-local")
    assert worker["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == f"http://{stack.address('api-server')}:8080/execution/"


def test_a_task_s_log_is_read_through_the_api_server(stack, killed_night):
    """From the volume that workers and API server share: no worker's log server runs here."""
    run_id = killed_night["run"]["dag_run_id"]
    path = f"/dags/score_{stack.bench.name}/dagRuns/{run_id}/taskInstances/freeze/logs/1"
    lines = [line["event"] for line in stack.airflow.call("GET", path)["content"]]
    assert any(line.startswith("freeze: ") for line in lines), lines


def manual_lines(heading):
    """Return the commands that a part of the manual runs in the container of PostgreSQL."""
    [part] = re.findall(rf"^## {heading}$(.*?)^## ", MANUAL.read_text(), re.MULTILINE | re.DOTALL)
    return re.findall(r"docker compose exec (?:-T )?postgres ([^\n`]*)", part)


def test_a_dump_is_made_and_restored_as_the_manual_says(stack, killed_night, tmp_path):
    """Into another database, which holds a table that the dump does not know: the services go on with theirs."""
    postgres = stack["postgres-1"].environment

    def run(line):
        done = subprocess.run(["bash", "-c", line], env=postgres, cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == 0, (line, done.stderr)
        return done.stdout

    dump, *restore = manual_lines("Backup")
    run(dump)
    [file] = tmp_path.glob("airflow-*.dump")
    run("createdb --username airflow restored")
    run("psql --username airflow --dbname restored --command 'CREATE TABLE of_a_newer_version (id int)'")
    assert [line.split()[0] for line in restore] == ["dropdb", "createdb", "pg_restore"]
    for line in restore:
        run(re.sub(r"airflow-\S+\.dump", file.name, re.sub(r" airflow(?= <|$)", " restored", line)))
    count = "psql --username airflow --dbname {} --tuples-only --command 'SELECT count(*) FROM dag_run'"
    assert run(count.format("restored")) == run(count.format("airflow"))
    assert b"of_a_newer_version" not in run("psql --username airflow --dbname restored --command '\\dt'")


def test_the_database_s_password_is_changed_as_the_manual_says(stack):
    """That of another user: the services go on with theirs."""
    postgres = {**stack["postgres-1"].environment, "PGDATABASE": "airflow"}
    [line] = manual_lines("Rotate secrets")
    create = "psql --username airflow --command \"CREATE ROLE mo LOGIN PASSWORD 'old'\""
    subprocess.run(["bash", "-c", create], env=postgres, check=True, capture_output=True)
    line = line.replace("--username airflow", "--username mo")
    typed = {"input": b"new\nnew\n", "start_new_session": True}  # without a terminal it is read from there
    subprocess.run(["bash", "-c", line], env=postgres | {"PGPASSWORD": "old"}, check=True, capture_output=True, **typed)
    asked = ["psql", "--username", "mo", "--command", "SELECT 1"]
    codes = [
        subprocess.run(asked, env=postgres | {"PGPASSWORD": password}, capture_output=True, check=False).returncode
        for password in ("old", "new")
    ]
    assert codes == [2, 0]


def test_a_backfill_scores_the_night_of_its_day(stack, killed_night):
    """Through the worker that is left; its end is the end of the day, or the night would be left out."""
    night, dag_id = stack.bench.other_night.isoformat(), f"score_{stack.bench.name}"
    body = {"dag_id": dag_id, "from_date": f"{night}T00:00:00Z", "to_date": f"{night}T23:59:59Z"}
    asked = {"max_active_runs": 1, "reprocess_behavior": "none", "dag_run_conf": {}}
    stack.airflow.call("POST", "/backfills", body | asked)
    run_id = eventually(lambda: next(iter(stack.airflow.runs_of(dag_id, night)), None))["dag_run_id"]
    run = ended(stack, dag_id, run_id)["run"]
    assert (run["state"], run["run_type"]) == ("success", "backfill")
    found = stack.bench.published().filter(pc.field("snapshot_date") == stack.bench.other_night)
    assert found["score"].to_numpy().tolist() == stack.bench.expected.tolist()


@pytest.mark.thorough
def test_a_worker_that_is_stopped_finishes_what_it_has(stack, killed_night):
    """As `docker stop` does it: SIGTERM to its first process, and then it is waited for."""
    killed_night["victim"].start()  # Docker would have
    stack.until_healthy(killed_night["victim"])
    dag_id, other = f"score_{stack.bench.name}", stack.bench.other_night.isoformat()
    body = {"logical_date": None, "partition_key": other, "conf": {}}
    run_id = stack.airflow.call("POST", f"/dags/{dag_id}/dagRuns", body)["dag_run_id"]
    stopped = worker_that_reads(stack, dag_id, run_id)
    stopped.process.terminate()
    time.sleep(3)
    assert stopped.is_running()
    stack.valve.open.set()
    found = ended(stack, dag_id, run_id)
    assert found["run"]["state"] == "success"
    assert {item["try_number"] for item in found["tasks"]} == {1}
    assert stopped.process.wait(60) == 0


def test_health_checks_fail_when_a_service_hangs(stack, killed_night):
    """The last test: nothing works any more after it."""
    first = [c for c in stack.all() if c.health and c.is_running() and not c.name.startswith(("postgres", "redis"))]
    for container in first:
        container.send(signal.SIGSTOP)
    time.sleep(10)  # what dag-processor and triggerer may be silent
    assert_unhealthy(first)
    last = [stack["redis-1"], stack["postgres-1"]]
    for container in last:
        container.send(signal.SIGSTOP)
    assert_unhealthy(last)


def assert_unhealthy(containers):
    deadline = time.monotonic() + 60
    with ThreadPoolExecutor(8) as pool:
        while containers:
            assert time.monotonic() < deadline, [container.name for container in containers]
            passed = list(pool.map(lambda container: container.is_healthy(), containers))
            containers = [container for container, still in zip(containers, passed, strict=True) if still]
