"""A worker's copy of Airflow's bucket, made object by object: at no moment does Airflow see half a release."""

import datetime as dt
import os
import random
import runpy
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression

from nightscore import settings as settings_module
from nightscore.errors import TransientError
from nightscore.orchestration import released, tasks
from nightscore.release import read_pointer, write_pointer
from nightscore.release_files import NotWholeError
from nightscore.run import open_run
from nightscore.settings import pipelines_dir
from nightscore.specs import load_spec

DAGS_FOLDER = Path(__file__).parents[3] / "dags"
DAGS = {"score_cards", "score_loans", "roll_back", "model_lifecycle"}


@pytest.fixture
def two(releases, folder):
    """Two releases, of which the second one is active."""
    for owner in ("old", "new"):
        releases.upload(owner, folder(owner))
        releases.activate(owner, "deployed")
    return releases


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A worker's folder, and what is loaded from it."""
    monkeypatch.setenv("NIGHTSCORE_PIPELINES_DIR", "/of/the/deployment")

    class Copy:
        folder = tmp_path / "worker"

        def put(self, releases, name, data=None):
            path = self.folder / name.removeprefix(f"{releases.prefix}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(releases.bucket.read(name).data if data is None else data)

        def put_all(self, releases):
            for name in releases.bucket.iter_names(f"{releases.prefix}/"):
                self.put(releases, name)

        def load(self):
            """Return the owner of every DAG, and of the spec that a task of this process would read."""
            found = runpy.run_path(str(self.folder / "nightscore.py"))
            dags = {name: value for name, value in found.items() if name in DAGS or name.startswith("score_")}
            owners = {dag.owner for name, dag in dags.items() if name.startswith("score_")}
            return set(dags), owners, load_spec("cards", pipelines_dir()).owner

    yield Copy()
    for name in [name for name in sys.modules if name.startswith("nightscore_release_")]:
        del sys.modules[name]


def orders(names):
    """The orders in which the objects of the new release may come: any but the one that would be right."""
    pointer = next(name for name in names if name.endswith("nightscore.py"))
    rest = [name for name in names if name != pointer]
    yield [pointer, *rest]
    yield [pointer, *reversed(rest)]
    yield [*rest, pointer]
    for seed in range(3):
        yield random.Random(seed).sample(names, len(names))


def test_a_worker_has_the_old_release_or_the_new_one_in_whatever_order_objects_come(two, copy):
    pointer = f"{two.prefix}/nightscore.py"
    olds = [*two.bucket.iter_names(f"{two.prefix}/nightscore/old/")]
    news = [*two.bucket.iter_names(f"{two.prefix}/nightscore/new/"), pointer]
    release = read_pointer(two.bucket.read(pointer).data)
    first = {**release, "version": "old", "manifest": release["previous"]["manifest"], "previous": None}
    seen = []
    for number, order in enumerate(orders(news)):
        copy.folder = copy.folder.parent / f"worker-{number}"
        for name in olds:
            copy.put(two, name)
        copy.put(two, pointer, write_pointer(first))
        assert copy.load() == (DAGS, {"old"}, "old")
        for name in order:
            data = two.bucket.read(name).data
            for part in (data[: len(data) // 2], data) if name != pointer else (data,):
                copy.put(two, name, part)
                dags, owners, spec = copy.load()
                assert dags == DAGS
                assert owners == {spec}, "the DAG and its spec are of one version"
                seen.append(spec)
        assert seen[-1] == "new"
    assert set(seen) == {"old", "new"}


def test_a_new_worker_that_has_nothing_yet_says_what_is_missing(two, copy):
    pointer = f"{two.prefix}/nightscore.py"
    copy.put(two, pointer)
    with pytest.raises(NotWholeError, match=r"release old is not whole in .*: manifest.json is missing") as told:
        copy.load()
    assert isinstance(told.value, TransientError)
    copy.put_all(two)
    assert copy.load() == (DAGS, {"new"}, "new")


def test_what_is_still_missing_after_a_while_is_no_lag(two, copy, monkeypatch):
    copy.put_all(two)
    damaged = copy.folder / "nightscore" / "new" / "pipelines" / "cards" / "pipeline.yaml"
    damaged.write_text("owner: mallory\n")
    assert copy.load() == (DAGS, {"old"}, "old")
    monkeypatch.setattr(released, "LAG", dt.timedelta(0))
    with pytest.raises(NotWholeError, match=r"pipelines/cards/pipeline\.yaml differs.*nightscore release rollback"):
        copy.load()


def test_a_pipeline_that_nobody_released_is_not_run(two, copy, monkeypatch):
    copy.put_all(two)
    monkeypatch.setattr(released, "LAG", dt.timedelta(0))
    stranger = copy.folder / "nightscore" / "new" / "pipelines" / "stranger"
    stranger.mkdir()
    (stranger / "pipeline.yaml").write_text("owner: mallory\n")
    with pytest.raises(NotWholeError, match="1 file that it does not name"):
        copy.load()


def test_airflow_finds_the_dags_in_the_pointer_alone(two, copy):
    from airflow.dag_processing.dagbag import DagBag

    copy.put_all(two)
    bag = DagBag(dag_folder=str(copy.folder), safe_mode=True)
    assert bag.import_errors == {}
    assert set(bag.dags) == DAGS
    assert {dag.fileloc for dag in bag.dags.values()} == {str(copy.folder / "nightscore.py")}
    assert os.environ["NIGHTSCORE_PIPELINES_DIR"] == str(copy.folder / "nightscore" / "new" / "pipelines")


def test_a_task_process_builds_its_own_dag_alone(two, copy, monkeypatch):
    copy.put_all(two)
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "score_loans")
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_TASK_ID", "plan")
    dags, owners, spec = copy.load()
    assert dags == {"score_loans", "roll_back", "model_lifecycle"}
    assert (owners, spec) == ({"new"}, "new")


def test_after_a_rollback_the_earlier_release_is_loaded(two, copy):
    assert two.roll_back("worse").version == "old"
    copy.put_all(two)
    assert copy.load() == (DAGS, {"old"}, "old")


def test_the_checkouts_own_folder_can_be_released(releases, copy):
    releases.upload("own", DAGS_FOLDER)
    releases.activate("own", "as it is")
    copy.put_all(releases)
    found = runpy.run_path(str(copy.folder / "nightscore.py"))
    direct = runpy.run_path(str(DAGS_FOLDER / "scoring.py"))
    assert {name for name in direct if name.startswith("score_")} <= set(found)
    assert any(name.startswith("score_") for name in found)


def test_a_run_in_flight_goes_on_with_the_spec_that_it_was_planned_with(
    releases, copy, bench, settings, tmp_path, monkeypatch
):
    """The task `plan` of one release, then another release on the worker, then what every later task opens."""
    for variable, value in environment_of(settings).items():
        monkeypatch.setenv(variable, value)
    rows = pa.table({"id": [1, 2], "age": [30, 40], "snapshot_date": [bench.day] * 2})
    bench.write("features", rows)
    sample = pd.DataFrame({"age": range(20, 60)})
    bench.register(
        LogisticRegression().fit(sample, sample.age > 40), pa.Table.from_pandas(sample, preserve_index=False)
    )
    pushed = {}
    run = SimpleNamespace(
        dag_id=f"score_{bench.name}", run_id="manual__1", run_type="manual", run_after=None, triggering_user_name=None
    )
    for owner in ("old", "new"):
        folder = tmp_path / owner
        (folder / "pipelines" / bench.name).mkdir(parents=True)
        shutil.copy(DAGS_FOLDER / "scoring.py", folder)
        (folder / "pipelines" / bench.name / "pipeline.yaml").write_text(bench.spec_text(owner=owner))
        releases.upload(owner, folder)
        releases.activate(owner, "deployed")
        copy.put_all(releases)
        found = runpy.run_path(str(copy.folder / "nightscore.py"))
        assert found[f"score_{bench.name}"].owner == owner
        settings_module.settings.cache_clear()  # a task's process is a new one
        if owner == "old":
            ti = SimpleNamespace(xcom_push=lambda key, value: pushed.update({key: value}))
            tasks.plan(bench.name, {}, bench.day.isoformat(), run, ti)
    settings_module.settings.cache_clear()
    assert load_spec(bench.name, pipelines_dir()).owner == "new"
    assert open_run(bench.services, bench.name, pushed[tasks.RUN_KEY]).spec.owner == "old"


def environment_of(settings):
    found = {
        "NIGHTSCORE_PROJECT": settings.project,
        "NIGHTSCORE_BUCKET": settings.bucket,
        "BIGQUERY_EMULATOR_HOST": settings.bigquery_host,
        "BIGQUERY_STORAGE_EMULATOR_HOST": settings.bigquery_storage_host,
        "STORAGE_EMULATOR_HOST": settings.storage_host,
    }
    return {name: value for name, value in found.items() if value}
