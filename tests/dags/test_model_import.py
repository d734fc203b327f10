"""What loading a model says in a task's process, where Airflow is imported."""

import subprocess
import sys

PROGRAM = """
import warnings

warnings.simplefilter("always")
import airflow.utils.timezone, airflow.utils.trigger_rule, airflow.serialization.serde
from nightscore.registry.format import ArtifactError
from nightscore.registry.formats import sklearn_skops

{bare}
try:
    sklearn_skops.describe("the model", b"")
except ArtifactError as error:
    print(error)
"""


def said(bare=""):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(bare=bare)], capture_output=True, text=True, check=False
    )
    assert "the model is not a skops file" in done.stdout, done.stderr
    return (done.stdout + done.stderr).count("is deprecated")


def test_a_model_is_loaded_without_a_thousand_warnings_of_airflow():
    assert said() < 50
    assert said("import skops.io") > 500, "skops does not look through all modules any more; the filter can go"
