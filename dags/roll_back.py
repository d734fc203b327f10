"""Rolling a partition back from Airflow's form: pipeline, scoring date, reason."""

from nightscore.orchestration.factory import make_rollback_dag

dag = make_rollback_dag()
