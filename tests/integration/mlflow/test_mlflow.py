"""Models of a real MLflow server: resolved, imported as versions that never change, and scored with."""

import datetime as dt
import json
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nightscore import cli
from nightscore import settings as settings_module
from nightscore.arguments import parse_model
from nightscore.registry.importing import import_model
from nightscore.registry.signature import SampleError
from nightscore.registry.sources.mlflow import MlflowSource
from nightscore.registry.sources.source import RefusedModelError, SourceAccessError, SourceUnavailableError
from nightscore.registry.store import ModelNotFoundError, Registry

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own, of which there are many
logging.getLogger("mlflow").setLevel(logging.ERROR)

DAY = dt.date(2026, 11, 19)
ROWS = 200
_DRAW = np.random.default_rng(7)
FRAME = pd.DataFrame({"age": _DRAW.integers(18, 90, ROWS), "limit_bal": _DRAW.gamma(2.0, 1000.0, ROWS)})
LABEL = (FRAME["age"] + _DRAW.normal(0, 10, ROWS) > 50).astype(int)


def fitted(label: Any = LABEL) -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME, label)


class Studio:
    """Somebody who trains models and logs them to MLflow, under a name that no other test uses."""

    def __init__(self, server: Any, bench: Any) -> None:
        import mlflow.sklearn  # seconds, which whoever only collects tests does not wait for

        mlflow.set_tracking_uri(server.url)
        self.mlflow = mlflow
        self.server = server
        self.client = mlflow.MlflowClient(tracking_uri=server.url)
        self.bench = bench
        self.name = bench.name
        self.source = MlflowSource(server.url)
        self.registry = Registry(bench.services.bucket, sources={"mlflow": self.source})

    def log(self, estimator: Any, alias: str | None = None, **kwargs: Any) -> int:
        """Log an estimator as the next version; return its number."""
        given = {"input_example": FRAME[:100], "pip_requirements": [], **kwargs}
        with self.mlflow.start_run() as run:
            self.mlflow.log_metrics({"auc": 0.8, "loss": float("nan")})
            self.mlflow.sklearn.log_model(estimator, name="model", registered_model_name=self.name, **given)
        found = self.client.search_model_versions(f"run_id='{run.info.run_id}'")
        return self._named(int(found[0].version), alias)

    def log_files(self, files: dict[str, bytes], alias: str | None = None, **flavours: Any) -> int:
        """Register a folder of files with an MLmodel of MLflow's own making."""
        folder = self.bench.folder / "logged"
        folder.mkdir(exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        made = self.mlflow.models.Model()
        for flavour, said in flavours.items():
            made.add_flavor(flavour, **said)
        made.save(str(folder / "MLmodel"))
        with self.mlflow.start_run() as run:
            self.mlflow.log_artifacts(str(folder), "model")
        if not self.client.search_registered_models(f"name='{self.name}'"):
            self.client.create_registered_model(self.name)
        version = self.client.create_model_version(self.name, f"runs:/{run.info.run_id}/model", run.info.run_id)
        return self._named(int(version.version), alias)

    def _named(self, version: int, alias: str | None) -> int:
        if alias:
            self.client.set_registered_model_alias(self.name, alias, str(version))
        return version

    def resolve(self, which: str) -> Any:
        return self.registry.resolve(parse_model(f"mlflow:{self.name}@{which}"))

    def downloads(self) -> list[str]:
        """Return the names of the files that were downloaded from the server."""
        asked = [line for line in self.server.requests() if line.startswith("GET /api/2.0/mlflow-artifacts/artifacts/")]
        return [line.rsplit("/", 1)[-1] for line in asked]


@pytest.fixture
def studio(server: Any, bench: Any) -> Studio:
    return Studio(server, bench)


def test_a_night_scores_what_the_alias_means_in_mlflow_when_it_is_planned(studio: Studio) -> None:
    first, second = fitted(), fitted(1 - LABEL)
    assert studio.log(first, "champion") == 1
    table = pa.Table.from_pandas(FRAME.assign(id=range(ROWS)), preserve_index=False)
    days = [DAY, DAY + dt.timedelta(days=1)]
    both = [table.append_column("snapshot_date", pa.array([day] * ROWS)) for day in days]
    bench = studio.bench
    bench.services = replace(bench.services, registry=studio.registry)
    bench.write("features", pa.concat_tables(both))
    spec = bench.spec(model=f"mlflow:{bench.name}@champion")

    summary = bench.run(spec, days[0])
    assert (summary["status"], summary["model_version"]) == ("published", f"{bench.name}/1")
    version = studio.registry.resolve(parse_model(f"{bench.name}@1"))
    [theirs] = studio.client.search_model_versions(f"name='{bench.name}'")
    source = version.manifest.source
    assert (source.kind, source.server, source.name, source.version) == ("mlflow", studio.server.url, bench.name, 1)
    assert (source.run_id, source.alias) == (theirs.run_id, "champion")
    assert version.manifest.metrics == {"auc": 0.8}
    assert [(item.name, item.type) for item in version.manifest.inputs] == [("age", "int64"), ("limit_bal", "double")]
    before = bench.sql("SELECT id, score FROM {dataset}.predictions ORDER BY id")
    assert [row["score"] for row in before] == pytest.approx(first.predict_proba(FRAME)[:, 1], abs=0)

    assert studio.log(second, "champion") == 2
    assert bench.run(spec, days[1])["model_version"] == f"{bench.name}/2"
    after = bench.sql("SELECT snapshot_date, id, score FROM {dataset}.predictions ORDER BY snapshot_date, id")
    assert [row["score"] for row in after[:ROWS]] == [row["score"] for row in before]
    assert [row["score"] for row in after[ROWS:]] == pytest.approx(second.predict_proba(FRAME)[:, 1], abs=0)


def test_importing_twice_is_one_version(studio: Studio) -> None:
    number = studio.log(fitted(), "champion")
    by_alias = studio.resolve("champion")
    assert studio.resolve(str(number)) == studio.resolve("champion") == by_alias
    assert import_model(studio.registry, parse_model(f"mlflow:{studio.name}@1"), alias="champion") == by_alias
    assert studio.registry.aliases(studio.name) == {"champion": 1}
    assert studio.registry.versions(studio.name) == [1]
    assert sorted(studio.downloads()[-3:]) == ["MLmodel", "input_example.json", "model.skops"]
    elsewhere = import_model(studio.registry, parse_model(f"mlflow:{studio.name}@1"), name=f"{studio.name}_b")
    assert elsewhere.label == f"{studio.name}_b/1"
    assert elsewhere.manifest.source.is_same(by_alias.manifest.source)


def test_two_processes_that_import_at_once_use_one_version(studio: Studio, local_servers: Any, tmp_path: Path) -> None:
    studio.log(fitted(), "champion")
    program = Path(__file__).with_name("import_at_once.py")
    command = [sys.executable, str(program), studio.server.url, studio.name, str(tmp_path)]
    # Not forked from here: threads of OpenMP and gRPC do not survive that.
    environment = {**os.environ, **local_servers.environment()}
    started = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    found = [process.communicate(timeout=120)[0] for process in started]
    assert found[0] == found[1] == studio.resolve("champion").digest
    assert len(studio.registry.versions(studio.name)) == 1


def test_an_import_that_was_killed_before_its_manifest_is_completed(studio: Studio) -> None:
    studio.log(fitted(), "champion")
    version = studio.resolve("champion")
    path = f"registry/models/{studio.name}/versions/1/manifest.json"
    stored = studio.registry.bucket.read(path)
    assert studio.registry.bucket.delete(path, stored.generation)
    assert studio.registry.versions(studio.name) == []
    assert studio.resolve("1") == version
    assert studio.registry.bucket.read(path).data == stored.data


def test_a_model_that_was_deleted_and_registered_anew_is_another_version(studio: Studio) -> None:
    studio.log(fitted(), "champion")
    first = studio.resolve("champion")
    studio.client.delete_registered_model(studio.name)
    assert studio.log(fitted(1 - LABEL), "champion") == 1
    second = studio.resolve("champion")
    assert (first.label, second.label) == (f"{studio.name}/1", f"{studio.name}/2")
    assert studio.resolve("1") == second


class Canary:
    """An estimator whose pickle, once loaded, leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_pickled_model_is_refused_before_it_is_downloaded(studio: Studio, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    data = pickle.dumps(Canary(canary))
    studio.log_files({"model.pkl": data}, sklearn={"pickled_model": "model.pkl", "serialization_format": "cloudpickle"})
    with pytest.raises(RefusedModelError) as caught:
        studio.resolve("1")
    assert str(caught.value) == (
        f"mlflow:{studio.name}@1 was logged by mlflow.sklearn as cloudpickle, in model.pkl. Loading a pickle runs "
        "whatever code it holds, so it is refused. Nothing but its MLmodel file was downloaded. Log it with "
        '`mlflow.sklearn.log_model(model, name="model", serialization_format="skops", input_example=X[:1000])`.'
    )
    assert studio.downloads()[-1] == "MLmodel"
    assert "model.pkl" not in studio.downloads()
    assert not canary.exists()
    assert studio.registry.versions(studio.name) == []
    pickle.loads(data)
    assert canary.exists(), "the canary cannot sing"


def test_a_pickle_that_calls_itself_skops_is_refused_after_it_is_downloaded(studio: Studio, tmp_path: Path) -> None:
    canary, sample = tmp_path / "canary", tmp_path / "rows.parquet"
    parquet.write_table(pa.Table.from_pandas(FRAME), sample)
    said = {"pickled_model": "model.skops", "serialization_format": "skops"}
    studio.log_files({"model.skops": pickle.dumps(Canary(canary))}, sklearn=said)
    with pytest.raises(Exception, match="looks like a pickle"):
        import_model(studio.registry, parse_model(f"mlflow:{studio.name}@1"), sample=sample)
    assert not canary.exists()


def as_onnx() -> tuple[Any, dict[str, Any], Any]:
    from mlflow.models import infer_signature
    from skl2onnx import to_onnx

    model = fitted()
    numbers = FRAME.astype("float32")
    graph = to_onnx(model, numbers[:1], options={"zipmap": False})
    return graph, {"save_as_external_data": False, "signature": infer_signature(numbers)}, model.predict_proba(FRAME)


def as_lightgbm() -> tuple[Any, dict[str, Any], Any]:
    import lightgbm

    model = lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(FRAME, LABEL)
    return model.booster_, {}, model.predict_proba(FRAME)


def as_xgboost() -> tuple[Any, dict[str, Any], Any]:
    import xgboost

    model = xgboost.XGBClassifier(n_estimators=5).fit(FRAME, LABEL)
    return model, {"model_format": "json"}, model.predict_proba(FRAME)


@pytest.mark.parametrize(
    "make",
    [
        as_lightgbm,
        pytest.param(as_onnx, marks=pytest.mark.thorough),
        pytest.param(as_xgboost, marks=pytest.mark.thorough),
    ],
)
def test_a_model_of_another_library_predicts_as_it_did_when_it_was_logged(studio: Studio, make: Any) -> None:
    import importlib

    model, given, expected = make()
    flavour = importlib.import_module(f"mlflow.{make.__name__.removeprefix('as_')}")
    with studio.mlflow.start_run() as run:
        flavour.log_model(model, name="model", registered_model_name=studio.name, input_example=FRAME[:100], **given)
    [theirs] = studio.client.search_model_versions(f"run_id='{run.info.run_id}'")
    labels = ("good", "bad")
    if make is as_onnx:  # whose graph holds its labels
        labels = ("0", "1")
    else:
        studio.client.set_model_version_tag(studio.name, theirs.version, "classes", "good, bad")
    version = studio.resolve(theirs.version)
    assert version.manifest.format == make.__name__.removeprefix("as_")
    loaded = studio.registry.load(version)
    found = loaded.predict(pa.Table.from_pandas(FRAME, preserve_index=False))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert tuple(loaded.classes) == labels


def test_a_model_without_an_input_example_is_imported_by_hand_once(studio: Studio, tmp_path: Path) -> None:
    studio.log(fitted(), "champion", input_example=None)
    with pytest.raises(SampleError) as caught:
        studio.resolve("champion")
    assert str(caught.value) == (
        f"mlflow:{studio.name}@1: it was logged without an input example of named columns; log it with "
        "`input_example=X[:1000]`. Or import it once with rows of your own: "
        f"`nightscore models import mlflow:{studio.name}@1 --sample FILE`."
    )
    sample = tmp_path / "rows.parquet"
    parquet.write_table(pa.Table.from_pandas(FRAME[:20], preserve_index=False), sample)
    version = import_model(studio.registry, parse_model(f"mlflow:{studio.name}@champion"), sample=sample)
    assert studio.resolve("champion") == version
    assert version.manifest.sample_rows == 20


def test_what_mlflow_does_not_have_names_what_is_near(studio: Studio) -> None:
    studio.log(fitted(), "champion")
    where = f"MLflow at {studio.server.url}"
    name = studio.name
    expected = {
        f"{name}@champoin": f"The model {name} in {where} has no alias 'champoin'. Did you mean `champion`?",
        f"{name}@9": f"The model {name} in {where} has no version 9; it has 1.",
        f"{name}x@champion": f"{where} has no model '{name}x'. Did you mean `{name}`?",
    }
    for asked, message in expected.items():
        with pytest.raises(ModelNotFoundError) as caught:
            studio.registry.resolve(parse_model(f"mlflow:{asked}"))
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("UNAUTHENTICATED", SourceAccessError, "refused a request"),
        ("PERMISSION_DENIED", SourceAccessError, "refused a request"),
        ("TEMPORARILY_UNAVAILABLE", SourceUnavailableError, "failed"),
        ("REQUEST_LIMIT_EXCEEDED", SourceUnavailableError, "failed"),
    ],
)
def test_a_failure_can_pass_and_a_refusal_cannot(code: str, kind: type[Exception], words: str) -> None:
    from mlflow.exceptions import RestException

    with pytest.raises(kind) as caught, MlflowSource("https://ada:secret@mlflow.example")._speaking("asking"):
        raise RestException({"error_code": code, "message": "GET https://ada:secret@mlflow.example/api said no"})
    message = f"MLflow at https://mlflow.example {words} while asking: {code}: GET https://mlflow.example/api said no"
    assert str(caught.value) == message


def test_the_command_imports_and_shows(
    studio: Studio, local_servers: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    studio.log(fitted(), "champion")
    [theirs] = studio.client.search_model_versions(f"name='{studio.name}'")
    variables = {**local_servers.environment(), "NIGHTSCORE_MLFLOW_TRACKING_URI": studio.server.url}
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)

    def nightscore(*arguments: str) -> tuple[int, str]:
        settings_module.settings.cache_clear()
        sys.modules["nightscore.cli.app"].services.cache_clear()
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["nightscore", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, "".join(capsys.readouterr())

    try:
        code, text = nightscore("models", "import", f"mlflow:{studio.name}@champion", "--alias", "champion")
        digest = studio.registry.resolve(parse_model(studio.name)).digest
        assert code == 0
        assert " ".join(text.split()) == (
            f"mlflow:{studio.name}@1 is {studio.name}/1 here, now {studio.name}@champion: "
            f"Pipeline(LogisticRegression), binary, 2 inputs, digest {digest[:12]}."
        )
        code, text = nightscore("models", "show", studio.name)
        assert code == 0
        assert f"mlflow:{studio.name}@1 at {studio.server.url}, run {theirs.run_id}" in " ".join(text.split())
        code, text = nightscore("models", "show", f"mlflow:{studio.name}@champion")
        assert (code, f"models import mlflow:{studio.name}@champion" in text) == (2, True)
        code, text = nightscore("models", "import", studio.name)
        assert (code, f"write mlflow:{studio.name}@champion" in text) == (2, True)
    finally:
        settings_module.settings.cache_clear()
        sys.modules["nightscore.cli.app"].services.cache_clear()


def test_without_a_tracking_uri_the_setting_is_named(studio: Studio) -> None:
    with pytest.raises(SourceAccessError, match="set NIGHTSCORE_MLFLOW_TRACKING_URI"):
        Registry(studio.registry.bucket).resolve(parse_model("mlflow:any@champion"))


def test_without_mlflow_an_alias_waits_and_an_imported_version_does_not(studio: Studio) -> None:
    studio.log(fitted(), "champion")
    version = studio.resolve("champion")
    studio.server.stop()
    assert studio.resolve("1") == version
    address = studio.server.url.replace("http://", "http://ada:secret@")
    guarded = Registry(studio.registry.bucket, sources={"mlflow": MlflowSource(address)})
    assert guarded.resolve(parse_model(f"mlflow:{studio.name}@1")) == version, "a password is no part of an address"
    with pytest.raises(SourceUnavailableError) as caught:
        guarded.resolve(parse_model(f"mlflow:{studio.name}@champion"))
    message = str(caught.value)
    assert message.startswith(f"MLflow at {studio.server.url} failed while looking up mlflow:{studio.name}@champion: ")
    assert message.endswith(f"named by its number like mlflow:{studio.name}@7, does without it.")
    assert "secret" not in message
    assert "secret" not in json.dumps(version.manifest.model_dump(mode="json"))
    assert caught.value.__cause__ is None
    assert len(message) < 900
