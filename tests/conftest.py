"""Airflow for the tests: a home of their own, set up before anything can import Airflow."""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOME = Path(tempfile.mkdtemp(prefix="nightscore-airflow-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)

assert "airflow" not in sys.modules, "Airflow was imported before its home was set"
for _name in [name for name in os.environ if name.startswith(("AIRFLOW__", "NIGHTSCORE_"))]:
    del os.environ[_name]
os.environ |= {
    "AIRFLOW_HOME": str(HOME),
    # dag.test() parses and writes the whole bundle on every call, so the bundle is empty.
    "AIRFLOW__CORE__DAGS_FOLDER": str(HOME / "dags"),
    "AIRFLOW__CORE__PLUGINS_FOLDER": str(HOME / "plugins"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
    "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME}/airflow.db",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    "OTEL_SDK_DISABLED": "true",
    "GX_ANALYTICS_ENABLED": "false",
}
(HOME / "dags").mkdir()
