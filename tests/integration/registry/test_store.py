"""The registry on a real object store: versions that never change, aliases that move, files that are not trusted."""

import json
import pickle
import threading
import uuid
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from skops import io as skops_io

from nightscore.arguments import ArgumentError
from nightscore.objects import to_json
from nightscore.registry.aliases import AliasMovedError
from nightscore.registry.examination import Facts, ModelFileError
from nightscore.registry.format import ArtifactError
from nightscore.registry.formats.sklearn_skops import UntrustedTypesError
from nightscore.registry.manifest import digest
from nightscore.registry.signature import SampleError
from nightscore.registry.store import DigestError, ModelNotFoundError, Registry, Version
from nightscore.run import build_services
from nightscore.settings import Settings
from nightscore.spec import ModelReference

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

ROWS = 200
_DRAW = np.random.default_rng(11)
FRAME = pd.DataFrame(
    {
        "age": _DRAW.integers(18, 90, ROWS),
        "limit_bal": _DRAW.gamma(2.0, 1000.0, ROWS),
        "sex": _DRAW.choice(["f", "m"], ROWS),
    }
)
NUMBERS = FRAME[["age", "limit_bal"]]
LABEL = (_DRAW.random(ROWS) < FRAME["age"] / 100).astype(int)
GRADE = _DRAW.choice(["low", "middle", "high"], ROWS)
VALUE = FRAME["limit_bal"] * 2.0


def logistic() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression())


def by_name() -> Any:
    columns = [("n", StandardScaler(), ["age", "limit_bal"]), ("w", OneHotEncoder(), ["sex"])]
    return make_pipeline(ColumnTransformer(columns), LogisticRegression())


class Desk:
    """A registry, a model's name that no other test uses, and a folder for its files."""

    def __init__(self, registry: Registry, folder: Path, name: str) -> None:
        self.registry = registry
        self.folder = folder
        self.name = name
        self.prefix = f"registry/models/{name}/"

    def save(self, estimator: Any) -> Path:
        path = self.folder / f"{uuid.uuid4().hex}.skops"
        skops_io.dump(estimator, path)
        return path

    def sample(self, frame: pd.DataFrame = NUMBERS) -> Path:
        path = self.folder / f"{uuid.uuid4().hex}.parquet"
        parquet.write_table(pa.Table.from_pandas(frame, preserve_index=False), path)
        return path

    def register(self, estimator: Any, frame: pd.DataFrame = NUMBERS, **kwargs: Any) -> Version:
        return self.registry.register(self.name, self.save(estimator), self.sample(frame), **kwargs)

    def objects(self) -> list[str]:
        return [name.removeprefix(self.prefix) for name in self.registry.bucket.iter_names(self.prefix)]

    def history(self, alias: str) -> list[dict[str, Any]]:
        content = self.registry.bucket.read_json(f"{self.prefix}aliases/{alias}.json")
        return [] if content is None else content["history"]

    def overwrite(self, name: str, data: bytes) -> None:
        self.registry.bucket._bucket.blob(f"{self.prefix}{name}").upload_from_string(data)

    def stored(self, name: str) -> bytes:
        found = self.registry.bucket.read(f"{self.prefix}{name}")
        assert found is not None
        return found.data


@pytest.fixture
def desk(settings: Settings, tmp_path: Path) -> Desk:
    return Desk(build_services(settings).registry, tmp_path, f"m{uuid.uuid4().hex[:12]}")


def champion(desk: Desk) -> ModelReference:
    return ModelReference(name=desk.name)


# --- registering, resolving, loading ---


def test_a_model_goes_in_and_comes_out(desk: Desk) -> None:
    fitted = by_name().fit(FRAME, LABEL)
    with_more = FRAME.assign(note="x")[["note", "sex", "limit_bal", "age"]]
    version = desk.register(
        fitted, with_more, alias="champion", facts=Facts(metrics={"auc": 0.75}, description="The first.")
    )
    assert desk.objects() == [
        "aliases/champion.json",
        "versions/1/manifest.json",
        "versions/1/model.skops",
        "versions/1/reference.json",
    ]

    found = desk.registry.resolve(champion(desk))
    assert found == version
    assert found.label == f"{desk.name}/1"
    manifest = found.manifest
    assert [(item.name, item.type) for item in manifest.inputs] == [
        ("age", "int64"),
        ("limit_bal", "double"),
        ("sex", "string"),
    ]
    assert (manifest.task, manifest.classes, manifest.named_inputs) == ("binary", ("0", "1"), True)
    assert (manifest.metrics, manifest.description, manifest.sample_rows) == ({"auc": 0.75}, "The first.", ROWS)
    assert manifest.estimator == "Pipeline(LogisticRegression)"
    assert manifest.files["model.skops"].sha256 == digest(desk.stored("versions/1/model.skops"))
    assert found.digest == digest(desk.stored("versions/1/manifest.json"))

    model = desk.registry.load(found)
    batch = pa.RecordBatch.from_pandas(FRAME[["sex", "age", "limit_bal"]], preserve_index=False)
    np.testing.assert_array_equal(model.predict(batch), fitted.predict_proba(FRAME))
    assert (model.label, model.task, tuple(model.classes)) == (f"{desk.name}/1", "binary", ("0", "1"))


def test_versions_are_numbered_and_stay_what_they_are(desk: Desk) -> None:
    first = desk.register(logistic().fit(NUMBERS, LABEL))
    before = desk.stored("versions/1/manifest.json"), desk.stored("versions/1/model.skops")
    second = desk.register(logistic().fit(NUMBERS, 1 - LABEL))
    assert [first.label, second.label] == [f"{desk.name}/1", f"{desk.name}/2"]
    assert desk.registry.versions(desk.name) == [1, 2]
    assert desk.name in desk.registry.names()
    assert (desk.stored("versions/1/manifest.json"), desk.stored("versions/1/model.skops")) == before
    assert desk.registry.resolve(ModelReference(name=desk.name, version=1)) == first
    assert desk.registry.aliases(desk.name) == {}


def test_an_alias_moves_and_remembers(desk: Desk) -> None:
    first = desk.register(logistic().fit(NUMBERS, LABEL), alias="champion")
    second = desk.register(logistic().fit(NUMBERS, 1 - LABEL), alias="challenger")
    promoted = desk.registry.move_alias(desk.registry.alias(desk.name, "champion"), second, "better on October")
    assert (promoted.version, promoted.digest) == (2, second.digest)
    assert desk.registry.resolve(champion(desk)) == second
    rolled_back = desk.registry.roll_back(desk.name, "champion", "rolled back")
    assert (rolled_back.version, rolled_back.digest) == (1, first.digest)
    assert desk.registry.resolve(champion(desk)) == first
    assert desk.registry.aliases(desk.name) == {"champion": 1, "challenger": 2}
    assert [(entry["from"], entry["to"], entry["reason"]) for entry in desk.history("champion")] == [
        (None, 1, "registered"),
        (1, 2, "better on October"),
        (2, 1, "rolled back"),
    ]
    assert all(entry["by"] and entry["at"] for entry in desk.history("champion"))


def test_more_than_nine_versions_are_in_order(desk: Desk) -> None:
    file, sample = desk.save(logistic().fit(NUMBERS, LABEL)), desk.sample()
    for _ in range(11):
        desk.registry.register(desk.name, file, sample)
    assert desk.registry.versions(desk.name) == list(range(1, 12))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alias": "champoin"}, "The model {name} has no alias 'champoin'. Did you mean `champion`?"),
        ({"alias": None, "version": 3}, "The model {name} has no version 3; it has 1."),
        ({"name": "{name}x"}, "There is no model '{name}x' in gs://{bucket}/registry/models/. Did you mean `{name}`?"),
    ],
)
def test_what_is_not_there_is_named(desk: Desk, change: dict[str, Any], message: str) -> None:
    desk.register(logistic().fit(NUMBERS, LABEL), alias="champion")
    names = {"name": desk.name, "bucket": desk.registry.bucket.name}
    given = {key: value.format(**names) if isinstance(value, str) else value for key, value in change.items() if value}
    with pytest.raises(ModelNotFoundError) as caught:
        desk.registry.resolve(ModelReference(**{"name": desk.name, **given}))
    assert str(caught.value) == message.format(**names)


# --- at the same time ---


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Do the work in as many threads, which begin at the same moment."""
    barrier = threading.Barrier(count)

    def one(index: int) -> Any:
        barrier.wait()
        return work(index)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


@pytest.mark.parametrize("different", [True, False], ids=["of_eight_files", "of_one_file"])
def test_eight_registrations_at_once_give_eight_versions(desk: Desk, settings: Settings, different: bool) -> None:
    files = [desk.save(logistic().fit(NUMBERS + index, LABEL)) for index in range(8)]
    files = files if different else files[:1] * 8
    sample = desk.sample()
    registries = [build_services(settings).registry for _ in files]
    made = together(8, lambda index: registries[index].register(desk.name, files[index], sample))
    assert sorted(version.manifest.version for version in made) == list(range(1, 9))
    assert desk.registry.versions(desk.name) == list(range(1, 9))
    for file, version in zip(files, made, strict=True):
        number = version.manifest.version
        assert desk.stored(f"versions/{number}/model.skops") == file.read_bytes()
        assert desk.registry.resolve(ModelReference(name=desk.name, version=number)) == version


def test_of_aliases_that_move_at_once_one_moves_and_the_others_are_told(desk: Desk, settings: Settings) -> None:
    versions = [desk.register(logistic().fit(NUMBERS, LABEL)) for _ in range(2)]
    registries = [build_services(settings).registry for _ in range(6)]
    told: list[str] = []
    barrier = threading.Barrier(6, timeout=60)

    def move(index: int) -> int:
        won = 0
        for step in range(3):
            seen = registries[index].alias(desk.name, "champion")
            barrier.wait()
            try:
                registries[index].move_alias(seen, versions[step % 2], f"{index}.{step}")
                won += 1
            except AliasMovedError as error:
                told.append(str(error))
            barrier.wait()
        return won

    assert sum(together(6, move)) == 3
    assert len(told) == 15
    assert all(f"{desk.name}@champion was moved to {desk.name}/" in words for words in told)
    history = desk.history("champion")
    assert [entry["reason"].split(".")[1] for entry in history] == ["0", "1", "2"]
    assert [entry["from"] for entry in history] == [None, 1, 2]
    assert [entry["to"] for entry in history] == [1, 2, 1]


# --- crashes and tampering ---


def test_a_crash_before_the_manifest_leaves_no_version(desk: Desk) -> None:
    desk.register(logistic().fit(NUMBERS, LABEL), alias="champion")
    desk.registry.bucket.create_new(f"{desk.prefix}versions/2/model.skops", b"half a registration")
    assert desk.registry.versions(desk.name) == [1]
    with pytest.raises(ModelNotFoundError, match="has no version 2; it has 1"):
        desk.registry.resolve(ModelReference(name=desk.name, version=2))
    assert desk.register(logistic().fit(NUMBERS, LABEL)).manifest.version == 3
    assert desk.registry.versions(desk.name) == [1, 3]
    assert desk.stored("versions/2/model.skops") == b"half a registration"


class Canary:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


def test_an_artifact_that_was_changed_is_not_constructed(desk: Desk, tmp_path: Path) -> None:
    version = desk.register(logistic().fit(NUMBERS, LABEL), alias="champion")
    canary = tmp_path / "canary"
    for data in (
        pickle.dumps(Canary(canary)),
        desk.save(logistic().fit(NUMBERS, 1 - LABEL)).read_bytes(),
        desk.stored("versions/1/model.skops") + b"\0",
    ):
        desk.overwrite("versions/1/model.skops", data)
        with pytest.raises(DigestError) as caught:
            desk.registry.load(desk.registry.resolve(champion(desk)))
        assert f"{desk.prefix}versions/1/model.skops was changed after it was registered" in str(caught.value)
        with pytest.raises(DigestError):
            desk.registry.load_pinned(desk.name, 1, version.digest)
    assert not canary.exists()


def test_a_manifest_that_was_changed_is_not_believed(desk: Desk) -> None:
    version = desk.register(logistic().fit(NUMBERS, LABEL), alias="champion")
    other = desk.save(logistic().fit(NUMBERS, 1 - LABEL)).read_bytes()
    content = json.loads(desk.stored("versions/1/manifest.json"))
    content["files"]["model.skops"] = {"sha256": digest(other), "size": len(other)}
    desk.overwrite("versions/1/model.skops", other)
    desk.overwrite("versions/1/manifest.json", to_json(content))
    for load in (
        lambda: desk.registry.resolve(champion(desk)),
        lambda: desk.registry.load_manifest(desk.name, 1, version.digest),
        lambda: desk.registry.load_pinned(desk.name, 1, version.digest),
    ):
        with pytest.raises(DigestError, match=r"manifest\.json was changed after it was registered"):
            load()


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"{}", "is not a manifest"), (b"\x80\x04.", "is not a manifest"), (None, "is the manifest of")],
    ids=["empty", "pickle", "another_version's"],
)
def test_what_is_no_manifest_is_no_version(desk: Desk, data: bytes | None, words: str) -> None:
    desk.register(logistic().fit(NUMBERS, LABEL))
    desk.register(logistic().fit(NUMBERS, LABEL))
    desk.overwrite("versions/2/manifest.json", desk.stored("versions/1/manifest.json") if data is None else data)
    with pytest.raises(ModelNotFoundError, match=words):
        desk.registry.resolve(ModelReference(name=desk.name, version=2))


def test_an_artifact_that_is_gone(desk: Desk) -> None:
    version = desk.register(logistic().fit(NUMBERS, LABEL))
    desk.registry.bucket._bucket.blob(f"{desk.prefix}versions/1/model.skops").delete()
    with pytest.raises(ModelNotFoundError, match="is gone"):
        desk.registry.load(version)


def test_a_file_with_types_that_are_not_ours_is_audited_again_when_it_is_loaded(desk: Desk) -> None:
    """A manifest that lists the digest of a hostile file does not make it harmless."""
    version = desk.register(logistic().fit(NUMBERS, LABEL))
    hostile = desk.folder / "hostile.skops"
    with zipfile.ZipFile(desk.save(logistic().fit(NUMBERS, LABEL))) as good, zipfile.ZipFile(hostile, "w") as made:
        for name in good.namelist():
            text = good.read(name)
            if name == "schema.json":
                schema = json.loads(text)
                schema["content"] |= {"__class__": "system", "__module__": "os", "__loader__": "TypeNode"}
                text = json.dumps(schema).encode()
            made.writestr(name, text)
    data = hostile.read_bytes()
    desk.overwrite("versions/1/model.skops", data)
    file = version.manifest.files["model.skops"].model_copy(update={"sha256": digest(data)})
    forged = replace(version, manifest=version.manifest.model_copy(update={"files": {"model.skops": file}}))
    with pytest.raises((UntrustedTypesError, ArtifactError)) as caught:
        desk.registry.load(forged)
    assert "os.system" in str(caught.value)


# --- refused ---


def to_thousands(values: Any) -> Any:
    return values / 1000


class Refusals:
    """Files that must not become a version, each with the words that say why."""

    @staticmethod
    def pickle(desk: Desk) -> tuple[Path, Path]:
        path = desk.folder / "model.pkl"
        path.write_bytes(pickle.dumps(Canary(desk.folder / "canary")))
        return path, desk.sample()

    @staticmethod
    def kd_tree(desk: Desk) -> tuple[Path, Path]:
        return desk.save(KNeighborsClassifier(algorithm="kd_tree").fit(NUMBERS, LABEL)), desk.sample()

    @staticmethod
    def column_missing(desk: Desk) -> tuple[Path, Path]:
        sample = desk.sample(NUMBERS.rename(columns={"limit_bal": "limit_ball"}))
        return desk.save(logistic().fit(NUMBERS, LABEL)), sample

    @staticmethod
    def column_too_many(desk: Desk) -> tuple[Path, Path]:
        return desk.save(logistic().fit(NUMBERS.to_numpy(), LABEL)), desk.sample(FRAME)

    @staticmethod
    def column_of_no_type(desk: Desk) -> tuple[Path, Path]:
        dated = NUMBERS.assign(age=pd.Timestamp("2026-01-01"))
        return desk.save(logistic().fit(NUMBERS, LABEL)), desk.sample(dated)

    @staticmethod
    def text_for_a_number(desk: Desk) -> tuple[Path, Path]:
        return desk.save(logistic().fit(NUMBERS, LABEL)), desk.sample(NUMBERS.assign(age="old"))

    @staticmethod
    def no_rows(desk: Desk) -> tuple[Path, Path]:
        return desk.save(logistic().fit(NUMBERS, LABEL)), desk.sample(NUMBERS.iloc[:0])

    @staticmethod
    def not_finite(desk: Desk) -> tuple[Path, Path]:
        model = LinearRegression().fit(NUMBERS, VALUE)
        model.coef_ = np.array([np.inf, 1.0])
        return desk.save(model), desk.sample()

    @staticmethod
    def unfitted(desk: Desk) -> tuple[Path, Path]:
        return desk.save(LogisticRegression()), desk.sample()

    @staticmethod
    def no_file(desk: Desk) -> tuple[Path, Path]:
        return desk.folder / "gone.skops", desk.sample()


REFUSALS: list[tuple[Callable[[Desk], tuple[Path, Path]], type[Exception], str]] = [
    (Refusals.pickle, ArtifactError, "model.pkl looks like a pickle"),
    (Refusals.kd_tree, UntrustedTypesError, "sklearn.neighbors._kd_tree.KDTree"),
    (Refusals.column_missing, SampleError, "fitted on: limit_bal. Did you mean `limit_ball`?"),
    (Refusals.column_too_many, SampleError, "fitted on 2 unnamed columns and the sample has 3: age, limit_bal, sex"),
    (Refusals.column_of_no_type, SampleError, "'age' has the type timestamp"),
    (Refusals.text_for_a_number, SampleError, "cannot predict the sample: "),
    (Refusals.no_rows, SampleError, "holds no row"),
    (Refusals.not_finite, SampleError, f"predicts {ROWS} values of the sample as NaN or infinite"),
    (Refusals.unfitted, ArtifactError, "holds no fitted estimator"),
    (Refusals.no_file, ModelFileError, "There is no model file"),
]


@pytest.mark.parametrize(("make", "kind", "words"), REFUSALS, ids=[case[0].__name__ for case in REFUSALS])
def test_what_is_refused_is_not_stored(
    desk: Desk, make: Callable[[Desk], tuple[Path, Path]], kind: type[Exception], words: str
) -> None:
    file, sample = make(desk)
    with pytest.raises(kind) as caught:
        desk.registry.register(desk.name, file, sample, alias="champion")
    assert words in str(caught.value)
    assert desk.objects() == []
    assert not (desk.folder / "canary").exists()


def test_a_users_function_is_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    module = type(pytest)("users_module")
    to_thousands.__module__ = "users_module"
    module.to_thousands = to_thousands  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "users_module", module)
    file = desk.save(make_pipeline(FunctionTransformer(to_thousands), LogisticRegression()).fit(NUMBERS, LABEL))
    with pytest.raises(UntrustedTypesError, match=r"users_module\.to_thousands"):
        desk.registry.register(desk.name, file, desk.sample())
    assert desk.objects() == []


@pytest.mark.parametrize("name", ["../other", "Credit", "", "a/b", "a b"])
def test_a_malformed_name_is_refused(desk: Desk, name: str) -> None:
    file, sample = desk.save(logistic().fit(NUMBERS, LABEL)), desk.sample()
    with pytest.raises(ArgumentError, match="is not a model's name; use lower-case letters"):
        desk.registry.register(name, file, sample)
    with pytest.raises(ArgumentError, match="is not an alias; use lower-case letters"):
        desk.registry.register(desk.name, file, sample, alias=name)
    assert desk.objects() == []


def test_a_metric_that_is_no_number_is_refused(desk: Desk) -> None:
    with pytest.raises(ValueError, match="finite"):
        desk.register(logistic().fit(NUMBERS, LABEL), facts=Facts(metrics={"auc": float("nan")}))
    assert desk.objects() == []


# --- signatures told from samples ---


def nullable(version: Version) -> dict[str, bool]:
    return {item.name: item.nullable for item in version.manifest.inputs}


NULLS: list[tuple[str, Callable[[], Any], pd.DataFrame, dict[str, bool]]] = [
    ("logistic", logistic, NUMBERS, {"age": False, "limit_bal": False}),
    ("boosting", lambda: HistGradientBoostingClassifier(max_iter=5), NUMBERS, {"age": True, "limit_bal": True}),
    ("by_name", by_name, FRAME, {"age": False, "limit_bal": False, "sex": False}),
    (
        "mixed",
        lambda: make_pipeline(
            ColumnTransformer(
                [("n", "passthrough", ["age", "limit_bal"]), ("w", OneHotEncoder(handle_unknown="ignore"), ["sex"])]
            ),
            HistGradientBoostingClassifier(max_iter=5),
        ),
        FRAME,
        {"age": True, "limit_bal": True, "sex": True},
    ),
]


@pytest.mark.parametrize(("build", "frame", "found"), [case[1:] for case in NULLS], ids=[case[0] for case in NULLS])
def test_which_inputs_may_be_null_is_tried(
    desk: Desk, build: Callable[[], Any], frame: pd.DataFrame, found: dict[str, bool]
) -> None:
    assert nullable(desk.register(build().fit(frame, LABEL), frame)) == found


def test_an_estimator_without_names_takes_the_samples(desk: Desk) -> None:
    fitted = RandomForestClassifier(5, random_state=0).fit(NUMBERS.to_numpy(), LABEL)
    version = desk.register(fitted, NUMBERS)
    assert not version.manifest.named_inputs
    assert [item.name for item in version.manifest.inputs] == ["age", "limit_bal"]
    swapped = pa.RecordBatch.from_pandas(NUMBERS[["limit_bal", "age"]], preserve_index=False)
    found = desk.registry.load(version).predict(swapped)
    np.testing.assert_array_equal(found, fitted.predict_proba(NUMBERS.to_numpy()))


def test_a_sample_may_be_a_csv(desk: Desk) -> None:
    sample = desk.folder / "sample.csv"
    FRAME.to_csv(sample, index=False)
    version = desk.registry.register(desk.name, desk.save(by_name().fit(FRAME, LABEL)), sample)
    assert [item.type for item in version.manifest.inputs] == ["int64", "double", "string"]


TASKS: list[tuple[str, Callable[[], Any], Any, str, tuple[str, ...]]] = [
    ("multiclass", logistic, GRADE, "multiclass", ("high", "low", "middle")),
    ("regression", lambda: HistGradientBoostingRegressor(max_iter=5), VALUE, "regression", ()),
    ("bool_labels", logistic, LABEL.astype(bool), "binary", ("False", "True")),
    (
        "mlp",
        lambda: make_pipeline(StandardScaler(), MLPClassifier((4,), max_iter=20, random_state=0)),
        LABEL,
        "binary",
        ("0", "1"),
    ),
    ("calibrated", lambda: CalibratedClassifierCV(logistic(), cv=2), GRADE, "multiclass", ("high", "low", "middle")),
]


@pytest.mark.parametrize(
    ("build", "labels", "task", "classes"), [case[1:] for case in TASKS], ids=[case[0] for case in TASKS]
)
def test_tasks(desk: Desk, build: Callable[[], Any], labels: Any, task: str, classes: tuple[str, ...]) -> None:
    fitted = build().fit(NUMBERS, labels)
    version = desk.register(fitted)
    assert (version.manifest.task, version.manifest.classes) == (task, classes)
    model = desk.registry.load(desk.registry.resolve(ModelReference(name=desk.name, version=1)))
    batch = pa.RecordBatch.from_pandas(NUMBERS, preserve_index=False)
    expected = fitted.predict(NUMBERS) if task == "regression" else fitted.predict_proba(NUMBERS)
    np.testing.assert_array_equal(model.predict(batch), expected)
