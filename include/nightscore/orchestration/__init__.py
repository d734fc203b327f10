"""Airflow, the other front door: the only code that imports it. Task bodies call the same functions as the CLI."""
