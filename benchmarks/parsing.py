"""Parsing the DAGs of many pipelines and serialising them, against dag-factory making the same; a task's own process.

    .venv/bin/python benchmarks/parsing.py

Made-up specs, each like that of `dags/pipelines/credit_default`. dag-factory has the same DAGs written in its own YAML,
with the same functions, parameters, retries and dependencies, once as a file for every pipeline and once as one file
with a `default:` for all; the ratio is that to the faster of the two. Each contestant is a process that imports Airflow
first, outside the clock, and then loads the DAGs as Airflow's DAG processor does. dag-factory is installed once, into
an environment of its own with the same Airflow.

A task's process is measured with all the specs in the folder: what it takes from having imported Airflow to having its
own DAG.

All of them do nothing but compute in one thread, so the ratios are of processor seconds, which others on the machine
change less.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import _common as common
import yaml

from nightscore.orchestration.factory import PARAMS

SCRIPT = Path(__file__).parent / "_parsing_script.py"
DAG_FACTORY = "dag-factory==1.1.0"
MODEL = common.ROOT / "dags/pipelines/credit_default/pipeline.yaml"
CRONS = ("0 2 * * *", "30 3 * * *", "15 4 * * 1-5", "0 5 1 * *")
ZONES = ("UTC", "Europe/Amsterdam", "America/New_York", "Asia/Singapore")
TASKS = "nightscore.orchestration.tasks"

LOOP = """\
from pathlib import Path

from nightscore.orchestration.factory import iter_dags

for dag in iter_dags(Path(__file__).parent / "pipelines"):
    globals()[dag.dag_id] = dag
"""
FACTORY_LOOP = """\
from pathlib import Path

from dagfactory import load_yaml_dags

load_yaml_dags(globals_dict=globals(), dags_folder=str(Path(__file__).parent / "dags"))
"""


def write_specs(count: int, folder: Path) -> dict[str, dict[str, Any]]:
    """Write specs that differ in what real ones do; return them by their names."""
    model = yaml.safe_load(MODEL.read_text())
    found = {}
    for number in range(count):
        name = f"pipeline_{number:04d}"
        spec = json.loads(json.dumps(model))
        spec["description"] = f"{spec['description']}\nPipeline {number} of {count}.\n"
        zone = ZONES[number % len(ZONES)]
        spec["schedule"] = {"cron": CRONS[number % len(CRONS)], "timezone": zone}
        spec["features"]["table"] = f"features.table_{number:04d}"
        spec["model"]["name"] = f"model_{number:04d}"
        spec["predictions"]["table"] = f"predictions.{name}"
        (folder / "pipelines" / name).mkdir(parents=True)
        text = yaml.safe_dump(spec, sort_keys=False, allow_unicode=True)
        (folder / "pipelines" / name / "pipeline.yaml").write_text(text)
        found[name] = spec
    (folder / "scoring.py").write_text(LOOP)
    return found


def common_arguments() -> dict[str, Any]:
    """Return what all DAGs share, in dag-factory's words."""
    rule = "airflow.sdk.RetryRule"
    return {
        "start_date": "2020-01-01",
        "catchup": False,
        "max_active_runs": 4,
        "params": {
            name: {
                "__type__": "airflow.sdk.Param",
                "__args__": [param.value],
                "description": param.description,
                **param.schema,
            }
            for name, param in PARAMS.items()
        },
        "default_args": {
            "retries": 3,
            "retry_delay": {"__type__": "datetime.timedelta", "seconds": 30},
            "retry_exponential_backoff": 2.0,
            "max_retry_delay": {"__type__": "datetime.timedelta", "minutes": 10},
            "retry_policy": {
                "__type__": "airflow.sdk.ExceptionRetryPolicy",
                "rules": [
                    {
                        "__type__": rule,
                        "exception": "nightscore.errors.GateRefusedError",
                        "action": {"__type__": "airflow.sdk.RetryAction", "__args__": ["fail"]},
                        "reason": "the same data and the same spec give the same answer",
                    },
                    {
                        "__type__": rule,
                        "exception": "nightscore.errors.TransientError",
                        "action": {"__type__": "airflow.sdk.RetryAction", "__args__": ["retry"]},
                        "reason": "a server or the network failed",
                    },
                ],
            },
        },
    }


def factory_dag(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Return a pipeline's DAG in dag-factory's words, without what all share."""
    run = {"pipeline": name, "run": "+plan['run']", "term": "+plan['term']"}

    def stage(task: str, *after: str, **further: Any) -> dict[str, Any]:
        python = {"decorator": "airflow.sdk.task", "python_callable": f"{TASKS}.{task}"}
        return {**python, **further, "dependencies": list(after)}

    schedule = spec["schedule"]
    asset = {"__type__": "airflow.sdk.Asset", "name": spec["predictions"]["table"], "group": "nightscore"}
    return {
        "description": spec["description"].strip().split("\n")[0][:250],
        "doc_md": spec["description"],
        "tags": ["nightscore", f"model:{spec['model']['name']}"],
        "schedule": {
            "__type__": "airflow.sdk.CronPartitionTimetable",
            "__args__": [schedule["cron"]],
            "timezone": schedule["timezone"],
            "run_offset": -1,
            "key_format": "%Y-%m-%d",
        },
        "default_args": {"owner": spec["owner"]},
        "tasks": {
            "plan": stage("plan", pipeline=name),
            "freeze": stage("freeze", **run),
            "feature_gate": stage("feature_gate", "freeze", **run),
            "score": stage(
                "score",
                "feature_gate",
                partial=run,
                expand={"shard": "+plan"},
                map_index_template="{{ shard_label | default('') }}",
                max_active_tis_per_dagrun=16,
            ),
            "prediction_gate": stage("prediction_gate", "score", **run),
            "publish": stage("publish", "prediction_gate", **run, outlets=[asset]),
            "shadow": stage("shadow", "publish", **run, trigger_rule="none_failed"),
            "evidence": stage("evidence", "shadow", **run),
            "propose": {
                "operator": "nightscore.orchestration.lifecycle.Propose",
                "pipeline": name,
                "dependencies": ["evidence"],
            },
            "record": stage("record", "publish", "evidence", "propose", pipeline=name, trigger_rule="all_done"),
        },
    }


def write_factory_dags(specs: dict[str, dict[str, Any]], folder: Path) -> dict[str, Path]:
    """Write the same DAGs for dag-factory, in two ways; return the DAG file of each."""
    shared = common_arguments()
    each, one = folder / "each", folder / "one"
    for place in (each, one):
        (place / "dags").mkdir(parents=True)
        (place / "load.py").write_text(FACTORY_LOOP)
    dags = {f"score_{name}": factory_dag(name, spec) for name, spec in specs.items()}
    for name, dag in dags.items():
        text = yaml.safe_dump({"default": shared, name: dag}, sort_keys=False, allow_unicode=True)
        (each / "dags" / f"{name}.yml").write_text(text)
    whole = yaml.safe_dump({"default": shared, **dags}, sort_keys=False, allow_unicode=True)
    (one / "dags" / "all.yml").write_text(whole)
    return {"dag-factory, a file each": each / "load.py", "dag-factory, one file": one / "load.py"}


def factory_environment() -> Path:
    """Return the Python of an environment with dag-factory and the same Airflow; it is kept for the next time."""
    environment = common.FOLDER / "dag-factory-env"
    python = environment / "bin/python"
    same = [
        f"{name}=={version(name)}" for name in ("apache-airflow", "apache-airflow-task-sdk", "pydantic", "croniter")
    ]
    marker = environment / "complete"
    if not marker.is_file() or marker.read_text() != " ".join([DAG_FACTORY, *same]):
        common.say(f"installing dag-factory into {environment}")
        uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        if uv is None:
            sys.exit("dag-factory is installed by uv, and there is none.")
        locked = str(common.ROOT / "requirements.txt")
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, environment], check=True)
        install = [uv, "pip", "install", "--quiet", "--python", python, "--constraint", locked, DAG_FACTORY, *same]
        subprocess.run(install, check=True)
        marker.write_text(" ".join([DAG_FACTORY, *same]))
    return python


def measure(python: Path, file: Path, home: Path, *arguments: str) -> dict[str, Any]:
    """Run the script once."""
    settings = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(file.parent),
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "0",
        "AIRFLOW__DAG_FACTORY__ENABLE_TELEMETRY": "False",
        "PYTHONPATH": str(common.ROOT / "include"),
        "PYTHONDONTWRITEBYTECODE": "",  # without .pyc files each process compiles its imports again
    }
    _, _, output = common.measured([str(python), str(SCRIPT), str(file), *arguments], settings)
    said: dict[str, Any] = json.loads(output.splitlines()[-1])
    return said


def main() -> None:
    """Measure the contestants in turn, then tasks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipelines", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    ours, theirs = Path(sys.executable), factory_environment()
    libraries = ", ".join(f"{name} {version(name)}" for name in ("apache-airflow", "pyyaml", "pydantic"))
    print(f"{common.processor()}, {common.usable_cpus()} processors; Python {platform.python_version()}, {libraries}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        specs = write_specs(asked.pipelines, folder / "nightscore")
        contestants = {"nightscore": (ours, folder / "nightscore/scoring.py")}
        files = write_factory_dags(specs, folder)
        contestants |= {title: (theirs, file) for title, file in files.items()}
        found: dict[str, list[dict[str, Any]]] = {title: [] for title in contestants}
        for repeat in range(asked.repeats):
            for title, (python, file) in contestants.items():
                said = measure(python, file, folder / f"home-{python.parents[1].name}")
                found[title].append(said)
                made = found["nightscore"][0]
                if said["shape"] != made["shape"]:
                    sys.exit(f"{title} made other DAGs:\n{said['first']}\n{made['first']}")
                common.say(f"{repeat + 1} of {asked.repeats}: {title} {said['seconds']:.1f} s")
        dag_id = f"score_{sorted(specs)[asked.pipelines // 2]}"
        tasks = []
        for _ in range(2 * asked.repeats + 1):
            said = measure(*contestants["nightscore"], folder / f"home-{ours.parents[1].name}", dag_id)
            if said["dags"] != [dag_id]:
                sys.exit(f"a task of {dag_id} has made {said['dags'][:3]} …")
            tasks.append(said)
    show(asked.pipelines, found, tasks[1:])


def show(pipelines: int, found: dict[str, list[dict[str, Any]]], tasks: list[dict[str, Any]]) -> None:
    """Print the figures."""
    made = found["nightscore"][0]
    print(f"\n{pipelines:,} pipelines, {made['tasks']:,} tasks; from Airflow imported to DAGs serialised, medians")
    common.table(
        ["", "seconds", "parse", "serialise", "processor seconds", "kB a DAG"],
        [
            (
                title,
                *(
                    round(statistics.median(run[key] for run in runs), 2)
                    for key in ("seconds", "parse", "serialise", "processor")
                ),
                round(runs[0]["bytes"] / 1000 / pipelines, 1),
            )
            for title, runs in found.items()
        ],
    )
    times = {title: [run["processor"] for run in runs] for title, runs in found.items()}
    _, quickest = min((statistics.median(runs), title) for title, runs in times.items() if title != "nightscore")
    share = common.median_ratio(times["nightscore"], times[quickest])
    common.ratio("parse and serialise / dag-factory, processor seconds", share, 0.5)
    taken, computed = (statistics.median(run[key] for run in tasks) for key in ("seconds", "processor"))
    print(f"\nA task's process among {pipelines:,} pipelines, from Airflow imported to its DAG:")
    print(f"{taken:.3f} s, {computed:.3f} s of a processor, medians of {len(tasks)}")
    common.ratio("a task's process beyond Airflow / 0.3 s, processor seconds", computed / 0.3, 1)


if __name__ == "__main__":
    main()
