"""Whole DAG runs in this process, against the real local servers."""

import subprocess
import sys
from pathlib import Path

import pytest

from nightscore.settings import settings as process_settings


@pytest.fixture(scope="session")
def airflow_database():
    """Airflow's own database, migrated once."""
    command = [sys.executable, "-m", "airflow", "db", "migrate"]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def pipelines(bench, local_servers, monkeypatch):
    """The bench, with a folder of specs that the tasks read."""
    folder = bench.folder / "pipelines"
    folder.mkdir()
    for name, value in local_servers.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NIGHTSCORE_PIPELINES_DIR", str(folder))
    process_settings.cache_clear()
    bench.pipelines = folder

    def add(text: str, name: str = bench.name) -> None:
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "pipeline.yaml").write_text(text)

    bench.add_pipeline = add
    yield bench
    process_settings.cache_clear()


@pytest.fixture
def run_dag(airflow_database, monkeypatch):
    """Run a DAG as Airflow would, task by task; return its DagRun and (task, map index) → state."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.serialization.definitions.dag import SerializedDAG

    original = SerializedDAG.create_dagrun

    def run(dag, conf=None, partition_key=None):
        for task in dag.tasks:
            task.retries = 0  # otherwise dag.test() really waits between two tries
        dag.deadline = None  # dag.test() of Airflow 3.3.2 fails on a DAG that has one, when its run ends
        if partition_key is not None:  # dag.test() takes none, so it goes in where the run is created

            def create(self, **kwargs):
                date = self.timetable.resolve_partition_date(partition_key)
                return original(self, partition_key=partition_key, partition_date=date, **kwargs)

            monkeypatch.setattr(SerializedDAG, "create_dagrun", create)
        DagBundlesManager().sync_bundles_to_db()
        empty = Path(__file__).parent / "no-dags-here"
        bag = DagBag(dag_folder=str(empty))
        bag.bag_dag(dag)
        sync_bag_to_db(bag, "dags-folder", None)
        result = dag.test(run_conf=conf or {})
        monkeypatch.setattr(SerializedDAG, "create_dagrun", original)
        return result, {(ti.task_id, ti.map_index): str(ti.state) for ti in result.get_task_instances()}

    return run
