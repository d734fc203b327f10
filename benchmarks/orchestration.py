"""What Airflow costs beyond the work, and what a second worker is worth, in the stack of docker-compose.yaml.

    .venv/bin/python benchmarks/orchestration.py

The stack runs as processes of this machine (tests/stack/native.py): PostgreSQL, Redis, CeleryExecutor, two workers of
two slots each. It is started once, and then

* a night of two shards is run with Airflow's defaults and with the settings of docker-compose.yaml: how long its DAG
  run takes beyond the work, which is the seconds of its stages in its records, of shards those of the slowest;
* a night of eight shards is run with one worker and with two. The rows come late, through a proxy, so that a shard
  waits for the warehouse and not for a processor, of which this machine has few.
"""

import datetime as dt
import statistics
import sys
import time
from typing import Any

import _common as common
import numpy as np
import pyarrow as pa
from sklearn.linear_model import LogisticRegression

sys.path.insert(0, str(common.ROOT / "tests"))

from bench import Bench
from faults.valve import Valve, eventually
from nightscore.local import bigquery_environment
from nightscore.records import RunRecords, run_ids
from nightscore.run import build_services
from nightscore.settings import read_settings
from stack.native import NativeStack

GOAL_SECONDS, GOAL_SCALING = 12.0, 1.7
STAGES = ("freeze", "feature_gate", "prediction_gate", "publish")
FIRST = dt.date(2026, 10, 1)
ROWS = 40_000
# What docker-compose.yaml sets otherwise, and how Airflow has it by default.
DEFAULTS = {
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "5",
    "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "3",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "1",
    "AIRFLOW__API__WORKERS": "1",
}
TUNED = ("scheduler", "worker", "api-server")


class Nights:
    """A stack, and pipelines whose nights it runs one after the other."""

    def __init__(self, days: int, rows: int) -> None:
        environment = common.ROOT / ".nightscore/bigquery-env"
        bigquery_environment.ensure(environment, common.say)
        self.stack = NativeStack(bigquery_env=environment)
        self.valve = Valve(f"{self.stack.address('bigquery')}:9060")
        self.stack.redirect["bigquery:9060"] = self.valve.address
        self._days = (FIRST + dt.timedelta(day) for day in range(days))
        self._count, self.rows = days, rows

    def start(self) -> None:
        """Start everything, with the data and both pipelines."""
        common.say("starting the stack")
        self.stack.start("bigquery", "storage", "init")
        for name in ("bigquery-1", "storage-1"):
            self.stack.until_healthy(self.stack[name])
        services = build_services(read_settings(self.stack.settings()))
        self.benches = {shards: Bench(services, self.stack.folder, f"of_{shards}_shards") for shards in (2, 8)}
        for shards, bench in self.benches.items():
            self._write(bench)
            spec = self.stack.home / "dags/pipelines" / bench.name / "pipeline.yaml"
            spec.parent.mkdir()
            spec.write_text(bench.spec_text(limits={"shards": shards}))
        self.stack.start("api-server", "scheduler", "dag-processor", "triggerer", "worker")
        for container in self.stack.all():
            if container.health:
                self.stack.until_healthy(container)
        for bench in self.benches.values():
            dag_id = f"score_{bench.name}"
            eventually(lambda dag_id=dag_id: self.stack.airflow.find_dag(dag_id))
            self.stack.airflow.call("PATCH", f"/dags/{dag_id}?update_mask=is_paused", {"is_paused": False})

    def _write(self, bench: Bench) -> None:
        rng = np.random.default_rng(0)
        one = pa.table({"id": range(self.rows), "balance": rng.normal(size=self.rows)})
        dates = [pa.array([FIRST + dt.timedelta(day)] * self.rows, pa.date32()) for day in range(self._count)]
        bench.write("features", pa.concat_tables([one.append_column("snapshot_date", date) for date in dates]))
        rows = one.select(["balance"]).to_pandas()
        bench.register(LogisticRegression().fit(rows, rows.balance > 0.5), one.select(["balance"]))

    def run(self, shards: int) -> dict[str, Any]:
        """Run the next night; return the seconds of its DAG run, of its work and of its shards, and its tasks."""
        bench, day = self.benches[shards], next(self._days)
        airflow, path = self.stack.airflow, f"/dags/score_{bench.name}/dagRuns"
        body = {"logical_date": None, "conf": {"partition": day.isoformat()}}
        run_id = airflow.call("POST", path, body)["dag_run_id"]
        ended = eventually(
            lambda: (now := airflow.call("GET", f"{path}/{run_id}"))["state"] in ("success", "failed") and now, 900
        )
        if ended["state"] != "success":
            sys.exit(f"The run {run_id} failed: {airflow.task_states(f'score_{bench.name}', run_id)}")
        tasks = airflow.call("GET", f"{path}/{run_id}/taskInstances?limit=100")["task_instances"]
        times = {name: [_seconds(task[name]) for task in tasks if task["task_id"] == "score"] for name in _TIMES}
        [found] = [name for name in run_ids(bench.services.bucket, bench.name) if name.startswith(day.isoformat())]
        records = RunRecords(bench.services.bucket, bench.name, found)
        work = sum(float((records.read(stage) or {})["seconds"]) for stage in STAGES)
        work += max(float(receipt["load_seconds"]) + float(receipt["seconds"]) for receipt in records.receipts())
        whole = _seconds(ended["end_date"]) - _seconds(ended["start_date"])
        shards_took = max(times["end_date"]) - min(times["queued_when"])
        return {"run": whole, "work": work, "beyond": whole - work, "shards": shards_took, "tasks": len(tasks)}

    def restart(self, names: tuple[str, ...], variables: dict[str, str]) -> None:
        """Start services again with other variables, or with their own."""
        for name in names:
            for container in self.stack.containers[name]:
                container.kill()
                original = {**self.stack.services[name]["environment"], **variables}
                container.environment |= {key: str(original[key]) for key in DEFAULTS if key in original}
                container.start()
        for name in names:
            for container in self.stack.containers[name]:
                self.stack.until_healthy(container)

    def close(self) -> None:
        """Stop everything."""
        self.valve.close()
        self.stack.close()


_TIMES = ("queued_when", "start_date", "end_date")


def _seconds(text: str) -> float:
    return dt.datetime.fromisoformat(text).timestamp()


def main() -> None:
    """Measure both, and print the figures."""
    wait = {
        "type": float,
        "default": 15.0,
        "help": "seconds that a shard waits for its rows; a connection that is silent for 20 is given up "
        "(default: %(default)s)",
    }
    asked = common.parse(__doc__ or "", rows=ROWS, repeats=3, wait=wait)
    nights = Nights(2 * asked.repeats + 8, asked.rows)
    try:
        nights.start()
        measure_overhead(nights, asked.repeats)
        measure_scaling(nights, asked.wait)
    finally:
        nights.close()


def measure_overhead(nights: Nights, repeats: int) -> None:
    """Run nights of two shards with both sets of settings."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, variables in (("defaults", DEFAULTS), ("tuned", {})):
        nights.restart(TUNED, variables)
        nights.run(2)  # the first one after a start imports what no one has imported
        found[name] = []
        for _ in range(repeats):
            found[name].append(nights.run(2))
            common.say(f"{name}: {found[name][-1]}")
    tasks = found["tuned"][0]["tasks"]
    print(f"\na night of {nights.rows:,} rows in 2 shards: {tasks} tasks")
    middle = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in found.items()
    }
    common.table(
        ["settings", "run, s", "work, s", "beyond the work, s", "a task, s"],
        [
            (name, *(round(of[key], 1) for key in ("run", "work", "beyond")), round(of["beyond"] / tasks, 2))
            for name, of in middle.items()
        ],
    )
    common.ratio("beyond the work, tuned / defaults", middle["tuned"]["beyond"] / middle["defaults"]["beyond"])
    common.ratio(f"beyond the work, tuned / {GOAL_SECONDS:.0f} s", middle["tuned"]["beyond"] / GOAL_SECONDS, 1.0)


def measure_scaling(nights: Nights, wait: float) -> None:
    """Run nights of eight shards, which wait for their rows, with two workers and with one."""
    nights.run(8)
    nights.valve.pause = wait
    took = {"two workers": nights.run(8)["shards"]}
    nights.stack["worker-2"].kill()
    time.sleep(1)
    took["one worker"] = nights.run(8)["shards"]
    print(f"\n8 shards that wait {wait:.0f} s each for their rows, 2 at once in a worker")
    common.table(["", "seconds"], [(name, round(seconds, 1)) for name, seconds in took.items()])
    common.ratio("one worker / two", took["one worker"] / took["two workers"], GOAL_SCALING, at_least=True)


if __name__ == "__main__":
    main()
