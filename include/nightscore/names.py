"""What columns, tables, pipelines, models and the files of a pipeline can be called."""

IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]{0,299}"
TABLE = rf"(?:[a-z][a-z0-9:.-]{{1,99}}\.)?{IDENTIFIER}\.[A-Za-z0-9_]{{1,1024}}"
PIPELINE_NAME = r"[a-z][a-z0-9_]{0,62}"
DAG_PREFIX = "score_"  # of a pipeline's DAG in Airflow
MODEL_NAME = r"[a-z][a-z0-9_-]{0,99}"
SOURCES = ("mlflow", "vertex")  # registries of others that models are imported from
SOURCE_MODEL_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9 _.-]{0,198}[A-Za-z0-9_.-])?"
SQL_FILE = r"(?:[A-Za-z0-9_-][A-Za-z0-9_.-]*/)*[A-Za-z0-9_-][A-Za-z0-9_.-]*\.sql"
SUITE_FILE = SQL_FILE.replace("sql", "json")
