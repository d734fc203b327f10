"""Parse time is a budget: what our DAG files import beyond Airflow itself, seen in processes of their own."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

HEAVY = (
    "pandas",
    "numpy",
    "pyarrow",
    "google.cloud.bigquery",
    "google.cloud.bigquery_storage_v1",
    "google.cloud.storage",
    "google.api_core",
    "grpc",
    "requests",
    "sklearn",
    "scipy",
    "skops",
    "great_expectations",
    "sqlalchemy_bigquery",
    "rich.console",
    "typer",
    "kubernetes",
    "nightscore.settings",
    "nightscore.clients",
    "nightscore.warehouse",
    "nightscore.plan",
    "nightscore.pipeline",
)

SPECS = {
    "cards": (REPOSITORY / "tests" / "unit" / "specs" / "valid" / "everything.yaml").read_text(),
    "loans": (REPOSITORY / "tests" / "unit" / "specs" / "valid" / "minimal.yaml").read_text(),
    "broken": "owner: 2026-13-45\n",
}

LIST = "import json, sys; print('\\n' + json.dumps(sorted(sys.modules)))"
BARE = f"import airflow.sdk; {LIST}"
FACTORY = f"import nightscore.orchestration.factory; {LIST}"
DAGS = f"""
from pathlib import Path
import runpy
found = runpy.run_path({str(REPOSITORY / "dags" / "scoring.py")!r})
from nightscore.orchestration.factory import iter_dags
dags = [dag.dag_id for dag in iter_dags(Path("pipelines"))]
assert dags == ["score_broken", "score_cards", "score_loans"], dags
{LIST}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for Airflow's files, with three pipelines of which one is broken."""
    folder = tmp_path_factory.mktemp("airflow")
    for name, text in SPECS.items():
        (folder / "pipelines" / name).mkdir(parents=True)
        (folder / "pipelines" / name / "pipeline.yaml").write_text(text)
    return folder


@cache
def modules(program: str, home: Path) -> frozenset[str]:
    """Return the names of the modules that a program has imported when it ends."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "NIGHTSCORE"))}
    environment = {**inherited, "AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=home, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return frozenset(json.loads(done.stdout.splitlines()[-1]))


def added(program: str, home: Path) -> list[str]:
    ours = modules(program, home) - modules(BARE, home)
    return [name for name in HEAVY if name in ours]


def test_the_list_of_modules_is_seen(home: Path) -> None:
    assert "airflow.sdk" in modules(BARE, home)
    assert "nightscore.specs" in modules(FACTORY, home) - modules(BARE, home)
    program = f"import airflow.sdk, pyarrow, nightscore.settings; {LIST}"
    assert added(program, home) == ["numpy", "pyarrow", "nightscore.settings"]


def test_importing_the_factory_adds_nothing_heavy(home: Path) -> None:
    assert added(FACTORY, home) == []


def test_building_the_dags_adds_nothing_heavy(home: Path) -> None:
    assert "croniter" in modules(DAGS, home), "no schedule was read"
    assert added(DAGS, home) == []


def test_only_pods_of_a_size_import_kubernetes(home: Path) -> None:
    """Its client takes two seconds: for a pipeline with `resources` where tasks are pods, and nowhere else."""
    make = "make_dag(load_spec('{}', Path('pipelines')))"
    begin = (
        "import os; os.environ['AIRFLOW__CORE__EXECUTOR'] = 'KubernetesExecutor'\n"
        "from pathlib import Path\n"
        "from nightscore.orchestration.factory import make_dag\n"
        "from nightscore.specs import load_spec\n"
    )
    assert added(f"{begin}{make.format('loans')}; {LIST}", home) == []
    assert "kubernetes" in added(f"{begin}{make.format('cards')}; {LIST}", home)
