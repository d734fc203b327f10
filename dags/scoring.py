"""Nightly scoring: one Airflow DAG for every folder of `dags/pipelines`; a new folder with a spec is a new DAG."""

from pathlib import Path

from nightscore.orchestration.factory import iter_dags

for dag in iter_dags(Path(__file__).parent / "pipelines"):
    globals()[dag.dag_id] = dag
