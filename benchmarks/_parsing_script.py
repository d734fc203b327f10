"""One contestant of parsing.py, in its own environment and process: parse a folder's DAGs and serialise them.

_parsing_script.py FILE          → as Airflow's DAG processor does with that file
_parsing_script.py FILE DAG_ID   → as a task of that DAG does

Airflow is imported first, and is in no figure; what FILE imports beyond it is.
"""

import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterable
from typing import Any

import structlog
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.execution_time import task_runner  # noqa: F401 - imported by every task's process
from airflow.serialization.serialized_objects import DagSerialization

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))


def shape(dags: Iterable[Any]) -> dict[str, Any]:
    """Return what must be the same for all contestants: tasks, what follows which, mapped ones, fields of the form."""
    return {
        dag.dag_id: {
            "params": sorted(dag.params),
            "schedule": repr(dag.timetable.serialize()) if hasattr(dag.timetable, "serialize") else str(dag.timetable),
            "tasks": {
                task.task_id: [sorted(task.downstream_task_ids), task.is_mapped, task.trigger_rule, task.retries]
                for task in dag.tasks
            },
        }
        for dag in dags
    }


def main() -> None:
    """Print the figures as JSON."""
    file, *wanted = sys.argv[1:]
    if wanted:
        os.environ["_AIRFLOW_PARSING_CONTEXT_DAG_ID"] = wanted[0]
    began, began_cpu = time.perf_counter(), time.process_time()
    bag = DagBag(dag_folder=file, safe_mode=False, load_op_links=False)
    parsed = time.perf_counter()
    sizes = [] if wanted else [len(json.dumps(DagSerialization.to_dict(dag))) for dag in bag.dags.values()]
    done, done_cpu = time.perf_counter(), time.process_time()
    if bag.import_errors:
        sys.exit(str(bag.import_errors))
    found = json.dumps(shape(bag.dags.values()), sort_keys=True, default=str)
    said = {
        "parse": parsed - began,
        "serialise": done - parsed,
        "seconds": done - began,
        "processor": done_cpu - began_cpu,
        "dags": sorted(bag.dags),
        "tasks": sum(len(dag.tasks) for dag in bag.dags.values()),
        "bytes": sum(sizes),
        "shape": hashlib.sha256(found.encode()).hexdigest(),
        "first": found[:4000],
    }
    print("\n" + json.dumps(said))


if __name__ == "__main__":
    main()
