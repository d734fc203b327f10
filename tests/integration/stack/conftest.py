"""The whole stack of docker-compose.yaml as processes, started once, and a pipeline that it scores."""

import datetime as dt
import os
import shutil

import numpy as np
import pyarrow as pa
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from bench import Bench
from faults.valve import Valve
from nightscore.local import bigquery_environment
from nightscore.run import build_services
from nightscore.settings import read_settings
from nightscore.spec import Schedule
from stack.native import NativeStack, missing_programs

CRON = "0 2 * * *"
ROWS = 60_000
SHARDS = 4

# What is shorter here than in production, so that nobody waits: how long a task or a triggerer may be silent.
VARIABLES = {"TASK_HEARTBEAT_TIMEOUT": "15", "TASK_HEARTBEAT_CHECK": "2", "API_WORKERS": "1"}
ENVIRONMENT = {"AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10"}


@pytest.fixture(scope="session")
def debian_programs():
    """PostgreSQL, Redis and docker-compose of Debian's packages."""
    missing = missing_programs()
    if missing:
        told = f"{', '.join(missing)} missing; `make stack-tools` installs them on Debian, as root"
        if os.geteuid() == 0 and shutil.which("apt-get"):
            pytest.fail(told)
        pytest.skip(told)


@pytest.fixture(scope="module")
def stack(debian_programs, bigquery_environment_path):
    """Everything that `docker compose up` starts in the profile `local` but the demo's data."""
    bigquery_environment.ensure(bigquery_environment_path, print)
    made = NativeStack(bigquery_env=bigquery_environment_path, variables=VARIABLES, environment=ENVIRONMENT)
    made.valve = Valve(f"{made.address('bigquery')}:9060")
    made.redirect["bigquery:9060"] = made.valve.address
    try:
        made.start("bigquery", "storage", "init")
        made.bench = bench_of(made)
        made.start("api-server", "scheduler", "dag-processor", "triggerer", "worker")
        yield made
    finally:
        made.valve.close()
        made.close()


def bench_of(stack):
    """Write a partition, register a model, and put a pipeline's spec among the DAGs."""
    for container in (*stack.containers["bigquery"], *stack.containers["storage"]):
        stack.until_healthy(container)
    folder = stack.folder / "bench"
    folder.mkdir()
    bench = Bench(build_services(read_settings(stack.settings())), folder, "stack_proof")
    bench.night = Schedule(cron=CRON).latest_partition(dt.datetime.now(dt.UTC))
    rng = np.random.default_rng(0)
    table = pa.table({"id": range(ROWS), "snapshot_date": [bench.night] * ROWS, "balance": rng.normal(size=ROWS)})
    bench.other_night = bench.night - dt.timedelta(days=1)
    other = table.set_column(1, "snapshot_date", pa.array([bench.other_night] * ROWS, pa.date32()))
    bench.write("features", pa.concat_tables([table, other]))
    rows = table.select(["balance"]).to_pandas()
    estimator = HistGradientBoostingClassifier(max_iter=10).fit(rows, rows.balance > 0.5)
    bench.expected = estimator.predict_proba(rows)[:, 1]
    bench.register(estimator, table.select(["balance"]))
    spec = stack.home / "dags/pipelines" / bench.name / "pipeline.yaml"
    spec.parent.mkdir()
    spec.write_text(bench.spec_text(schedule=CRON, limits={"shards": SHARDS}))
    return bench
