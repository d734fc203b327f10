"""Promoting a model's version from Airflow's form: evidence, policy, a human's approval, then the alias moves."""

from nightscore.orchestration.factory import make_lifecycle_dag

dag = make_lifecycle_dag()
