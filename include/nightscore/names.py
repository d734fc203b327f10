"""What columns, tables, pipelines, models and the files of a pipeline can be called."""

IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_]{0,299}"
TABLE = rf"(?:[a-z][a-z0-9:.-]{{1,99}}\.)?{IDENTIFIER}\.[A-Za-z0-9_]{{1,1024}}"
PIPELINE_NAME = r"[a-z][a-z0-9_]{0,62}"
MODEL_NAME = r"[a-z][a-z0-9_-]{0,99}"
SQL_FILE = r"(?:[A-Za-z0-9_-][A-Za-z0-9_.-]*/)*[A-Za-z0-9_-][A-Za-z0-9_.-]*\.sql"
SUITE_FILE = SQL_FILE.replace("sql", "json")
