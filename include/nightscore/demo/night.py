"""The demo: a card portfolio on local servers, two models, and last night's scoring run through Airflow."""

import datetime as dt
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from nightscore.demo.airflow_server import AirflowError, AirflowServer
from nightscore.errors import ConfigurationError
from nightscore.objects import Bucket, Json
from nightscore.progress import Tell
from nightscore.records import RunRecords, run_ids
from nightscore.specs import load_spec

if TYPE_CHECKING:
    from nightscore.run import Services

PIPELINE = "credit_default"
DAG_SECONDS = 120
RUN_SECONDS = 900
FINAL = {"success", "failed"}

T = TypeVar("T")


def last_night(root: Path, now: dt.datetime) -> dt.date:
    """Return the partition that the demo pipeline's schedule scored last."""
    spec = load_spec(PIPELINE, root / "dags" / "pipelines")
    if spec.schedule is None:
        raise ConfigurationError(f"{PIPELINE}: schedule: the demo needs one.")
    return spec.schedule.latest_partition(now)


def prepare(services: "Services", partition: dt.date, tell: Tell) -> None:
    """Fill the warehouse and register the models, where that is not done yet."""
    from nightscore.demo.fill import fill
    from nightscore.demo.train import train

    fill(services, last=partition, progress=tell)
    train(services, progress=tell)


def run_through_airflow(server: AirflowServer, bucket: Bucket, partition: dt.date, tell: Tell) -> str:
    """Let Airflow score the partition, and wait for it; return the DAG run's state.

    The schedule starts last night's run by itself as soon as the DAG is active. A partition that is published already
    is not scored again; where an earlier run failed, or its predictions were reset, another is started.
    """
    dag_id = f"score_{PIPELINE}"
    _await(lambda: server.find_dag(dag_id), DAG_SECONDS, f"Airflow did not find the DAG {dag_id}")
    runs = server.runs_of(dag_id, partition.isoformat())
    if any(run["state"] == "success" for run in runs) and find_published(bucket, partition) is not None:
        tell(f"Airflow has scored {partition} before; nothing to do.")
        return "success"
    server.call("PATCH", f"/dags/{dag_id}?update_mask=is_paused", {"is_paused": False})
    if runs and runs[0]["state"] in FINAL:
        body: Json = {"logical_date": None, "partition_key": partition.isoformat(), "conf": {}}
        server.call("POST", f"/dags/{dag_id}/dagRuns", body)
    tell(f"Airflow scores {partition}: {server.url}/dags/{dag_id}")
    before = {run["dag_run_id"] for run in runs if run["state"] in FINAL}
    run_id = _await(
        lambda: next(
            (r["dag_run_id"] for r in server.runs_of(dag_id, str(partition)) if r["dag_run_id"] not in before), None
        ),
        DAG_SECONDS,
        f"Airflow did not start a run of {dag_id} for {partition}",
    )
    return _follow(server, dag_id, str(run_id), tell)


def find_published(bucket: Bucket, partition: dt.date) -> Json | None:
    """Return the summary of the run whose predictions of the partition are live, or None."""
    found = [
        summary
        for run_id in run_ids(bucket, PIPELINE)
        if run_id.startswith(partition.isoformat())
        and (summary := RunRecords(bucket, PIPELINE, run_id).read("run")) is not None
        and summary["status"] == "published"
    ]
    return max(found, key=lambda summary: str(summary["ended_at"])) if found else None


def _follow(server: AirflowServer, dag_id: str, run_id: str, tell: Tell) -> str:
    """Tell each task's change of state until the run ends."""
    known: dict[str, str] = {}
    deadline = time.monotonic() + RUN_SECONDS
    while time.monotonic() < deadline:
        run_state = str(server.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}")["state"])
        for name, state in server.task_states(dag_id, run_id).items():
            if known.get(name) != state and state in (
                "running",
                "success",
                "failed",
                "up_for_retry",
                "upstream_failed",
                "skipped",
            ):
                tell(f"  {name:<24} {state}")
            known[name] = state
        if run_state in FINAL:
            return run_state
        time.sleep(0.5)
    raise AirflowError(f"The run {run_id} of {dag_id} did not end in {RUN_SECONDS} s; see {server.url}.")


def _await(look: Callable[[], T | None], seconds: float, what: str) -> T:
    deadline = time.monotonic() + seconds
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise AirflowError(f"{what} in {seconds:.0f} s.")
        time.sleep(0.5)
    return found
