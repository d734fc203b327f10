"""Describe → audit → construct: what is no skops file, what is refused unrun, and what predicts as it did before."""

import gzip
import io
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_selector
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingRegressor,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    RandomTreesEmbedding,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.impute import SimpleImputer
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import (
    ElasticNet,
    LinearRegression,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    SGDClassifier,
    TweedieRegressor,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    QuantileTransformer,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from skops import io as skops_io

from hostile_files import Canary, naming, rewritten, whole, words, zipped
from nightscore.registry.format import ArtifactError
from nightscore.registry.formats import recognise
from nightscore.registry.formats.sklearn_skops import (
    ALLOWED_TYPES,
    UntrustedTypesError,
    audit,
    construct,
    describe,
    task_of,
)
from nightscore.registry.sklearn_reach import _MODULES, beyond_reach

# Few iterations on few rows do not converge, and need not.
pytestmark = pytest.mark.filterwarnings("ignore")

ROWS = 120
_DRAW = np.random.default_rng(7)
FRAME = pd.DataFrame(
    {
        "age": _DRAW.integers(18, 90, ROWS),
        "limit_bal": _DRAW.gamma(2.0, 1000.0, ROWS),
        "sex": _DRAW.choice(["f", "m"], ROWS),
        "region": pd.Categorical(_DRAW.choice(["n", "s", "e"], ROWS)),
    }
)
NUMBERS = FRAME[["age", "limit_bal"]]
CATEGORIES = FRAME.assign(sex=FRAME["sex"].astype("category"))
VALUE = NUMBERS["limit_bal"] * 2 + NUMBERS["age"] * 10 + _DRAW.normal(0, 200, ROWS)
LABEL = (VALUE + _DRAW.normal(0, 2000, ROWS) > VALUE.median()).astype(int)
GRADE = pd.cut(VALUE, 3, labels=["low", "middle", "high"]).astype(str)


def by_name() -> ColumnTransformer:
    return ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "limit_bal"]),
            ("words", OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_exclude="number")),
        ],
        remainder="passthrough",
    )


def logistic() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression())


Build = Callable[[], Any]

CLASSIFIERS: list[tuple[str, Build, pd.DataFrame]] = [
    ("logistic", logistic, NUMBERS),
    ("logistic_by_name", lambda: make_pipeline(by_name(), LogisticRegression(max_iter=500)), FRAME),
    ("tree", lambda: DecisionTreeClassifier(max_depth=4), NUMBERS),
    ("forest", lambda: RandomForestClassifier(8, random_state=0), NUMBERS),
    ("extra_trees", lambda: ExtraTreesClassifier(8, random_state=0), NUMBERS),
    ("gradient_boosting", lambda: GradientBoostingClassifier(n_estimators=8, random_state=0), NUMBERS),
    ("hist_boosting", lambda: HistGradientBoostingClassifier(max_iter=8, categorical_features=None), NUMBERS),
    (
        "hist_boosting_categories",
        lambda: HistGradientBoostingClassifier(max_iter=8, categorical_features="from_dtype"),
        CATEGORIES,
    ),
    ("ada_boost", lambda: AdaBoostClassifier(n_estimators=4, random_state=0), NUMBERS),
    ("calibrated_sigmoid", lambda: CalibratedClassifierCV(LinearSVC(), cv=2), NUMBERS),
    ("calibrated_isotonic", lambda: CalibratedClassifierCV(GaussianNB(), method="isotonic", cv=2), NUMBERS),
    ("voting", lambda: VotingClassifier([("a", logistic()), ("b", GaussianNB())], voting="soft"), NUMBERS),
    ("stacking", lambda: StackingClassifier([("a", logistic()), ("b", GaussianNB())], cv=2), NUMBERS),
    ("mlp", lambda: make_pipeline(StandardScaler(), MLPClassifier((4,), max_iter=20, random_state=0)), NUMBERS),
    ("sgd", lambda: make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0)), NUMBERS),
    ("svc", lambda: CalibratedClassifierCV(make_pipeline(StandardScaler(), SVC()), cv=2), NUMBERS),
    ("one_vs_rest", lambda: OneVsRestClassifier(logistic()), NUMBERS),
    ("gaussian_process", lambda: make_pipeline(StandardScaler(), GaussianProcessClassifier()), NUMBERS),
    ("neighbours_brute", lambda: KNeighborsClassifier(algorithm="brute"), NUMBERS),
    ("pca", lambda: make_pipeline(StandardScaler(), PCA(2), LogisticRegression()), NUMBERS),
    ("quantiles", lambda: make_pipeline(QuantileTransformer(n_quantiles=20), LogisticRegression()), NUMBERS),
    ("splines", lambda: make_pipeline(SplineTransformer(), LogisticRegression(max_iter=500)), NUMBERS),
    ("numpy_function", lambda: make_pipeline(FunctionTransformer(np.log1p), LogisticRegression()), NUMBERS),
    (
        "ordinal",
        lambda: make_pipeline(
            ColumnTransformer([("o", OrdinalEncoder(), ["sex", "region"])]), DecisionTreeClassifier(max_depth=3)
        ),
        FRAME,
    ),
]

REGRESSORS: list[tuple[str, Build]] = [
    ("linear", LinearRegression),
    ("ridge", Ridge),
    ("elastic_net", ElasticNet),
    ("poisson", lambda: make_pipeline(StandardScaler(), PoissonRegressor())),
    ("tweedie", lambda: make_pipeline(StandardScaler(), TweedieRegressor(power=1.5, link="log"))),
    ("tree", lambda: DecisionTreeRegressor(max_depth=4)),
    ("forest", lambda: RandomForestRegressor(8, random_state=0)),
    ("bagging", lambda: BaggingRegressor(n_estimators=4, random_state=0)),
    ("gradient_boosting", lambda: GradientBoostingRegressor(n_estimators=8, random_state=0)),
    ("hist_boosting", lambda: HistGradientBoostingRegressor(max_iter=8)),
    (
        "mlp",
        lambda: make_pipeline(StandardScaler(), MLPRegressor(hidden_layer_sizes=(4,), max_iter=20, random_state=0)),
    ),
    ("target", lambda: TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1)),
]


def through_the_registry(estimator: Any) -> Any:
    data = skops_io.dumps(estimator)
    audit("model.skops", describe("model.skops", data))
    return construct("model.skops", data)


@pytest.mark.parametrize(("build", "frame"), [case[1:] for case in CLASSIFIERS], ids=[case[0] for case in CLASSIFIERS])
@pytest.mark.parametrize(
    ("labels", "task", "classes"),
    [(LABEL, "binary", ("0", "1")), (GRADE, "multiclass", ("high", "low", "middle"))],
    ids=["binary", "multiclass"],
)
def test_a_classifier_predicts_as_before(
    build: Build, frame: pd.DataFrame, labels: pd.Series, task: str, classes: tuple[str, ...]
) -> None:
    fitted = build().fit(frame, labels)
    again = through_the_registry(fitted)
    np.testing.assert_array_equal(again.predict_proba(frame), fitted.predict_proba(frame))
    assert list(again.feature_names_in_) == list(frame.columns)
    assert task_of("model.skops", again) == (task, classes)


@pytest.mark.parametrize("build", [case[1] for case in REGRESSORS], ids=[case[0] for case in REGRESSORS])
def test_a_regressor_predicts_as_before(build: Build) -> None:
    fitted = build().fit(NUMBERS, VALUE.clip(lower=0))
    again = through_the_registry(fitted)
    np.testing.assert_array_equal(again.predict(NUMBERS), fitted.predict(NUMBERS))
    assert task_of("model.skops", again) == ("regression", ())


def test_what_was_fitted_without_names_predicts_as_before() -> None:
    fitted = logistic().fit(NUMBERS.to_numpy(), LABEL)
    again = through_the_registry(fitted)
    np.testing.assert_array_equal(again.predict_proba(NUMBERS.to_numpy()), fitted.predict_proba(NUMBERS.to_numpy()))
    assert not hasattr(again, "feature_names_in_")


def test_a_target_encoder_and_an_isotonic_regression_predict_as_before() -> None:
    words = make_pipeline(TargetEncoder(cv=2), Ridge()).fit(FRAME[["sex"]], VALUE)
    np.testing.assert_array_equal(through_the_registry(words).predict(FRAME[["sex"]]), words.predict(FRAME[["sex"]]))
    curve = IsotonicRegression(out_of_bounds="clip").fit(NUMBERS["age"], VALUE)
    np.testing.assert_array_equal(through_the_registry(curve).predict(NUMBERS["age"]), curve.predict(NUMBERS["age"]))


def to_thousands(values: Any) -> Any:
    return values / 1000


class Doubled(LogisticRegression):
    """A user's own estimator."""


REFUSED: list[tuple[str, Build, str]] = [
    (
        "kd_tree",
        lambda: KNeighborsClassifier(algorithm="kd_tree"),
        "sklearn.neighbors._kd_tree.KDTree",
    ),
    (
        "ball_tree",
        lambda: KNeighborsClassifier(algorithm="ball_tree"),
        "sklearn.neighbors._ball_tree.BallTree",
    ),
    (
        "users_function",
        lambda: make_pipeline(FunctionTransformer(to_thousands), LogisticRegression()),
        f"{__name__}.to_thousands",
    ),
    ("users_class", Doubled, f"{__name__}.Doubled"),
]


@pytest.fixture
def _importable() -> Any:
    """Let skops find the functions of this file, whose folder is no package, when it saves them."""
    before = sys.modules.get(__name__)
    sys.modules[__name__] = sys.modules.get(__name__) or type(sys)(__name__)
    sys.modules[__name__].__dict__.update(to_thousands=to_thousands, Doubled=Doubled)
    yield
    if before is None:
        del sys.modules[__name__]


@pytest.mark.usefixtures("_importable")
@pytest.mark.parametrize(("build", "culprit"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_refused(build: Build, culprit: str) -> None:
    types = describe("model.skops", skops_io.dumps(build().fit(NUMBERS, LABEL)))
    assert culprit in types
    with pytest.raises(UntrustedTypesError) as caught:
        audit("model.skops", types)
    assert culprit in caught.value.types
    assert str(caught.value).startswith("model.skops would create classes that nightscore does not allow: ")
    assert culprit in str(caught.value)


def test_a_refusal_stays_bounded() -> None:
    with pytest.raises(UntrustedTypesError) as caught:
        audit("model.skops", [f"module.{'x' * 1000}{i}" for i in range(1000)])
    assert "… and 994 more" in str(caught.value)
    assert len(str(caught.value)) < 1200


def test_the_list_is_sorted_and_holds_nothing_that_runs_code() -> None:
    assert list(ALLOWED_TYPES) == sorted(ALLOWED_TYPES)
    roots = {name.split(".")[0] for name in ALLOWED_TYPES}
    assert roots == {"functools", "numpy", "scipy", "sklearn"}


def test_a_model_that_would_read_files_of_the_worker_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("alpha")
    (tmp_path / "nothing").write_text("beta")
    towns = pd.DataFrame({"town": ["a"] * 60 + ["b"] * 60})
    steps = [
        SimpleImputer(missing_values="a", strategy="constant", fill_value=str(tmp_path / "secret")),
        SimpleImputer(missing_values="b", strategy="constant", fill_value=str(tmp_path / "nothing")),
        ColumnTransformer([("words", CountVectorizer(input="filename"), "town")]),
    ]
    reading = make_pipeline(
        *(step.set_output(transform="pandas") for step in steps[:2]), steps[2], LogisticRegression()
    )
    reading.fit(towns, [1] * 60 + [0] * 60)
    before = reading.predict_proba(towns[:1])
    (tmp_path / "secret").write_text("beta")
    assert (reading.predict_proba(towns[:1]) != before).any()  # it tells what the file says

    data = skops_io.dumps(reading)
    audit("model.skops", describe("model.skops", data))  # of classes alone, it could be any pipeline
    with pytest.raises(ArtifactError, match="whose input could read files or call anything"):
        construct("model.skops", data)


def test_a_vectorizer_of_texts_predicts_as_before() -> None:
    texts = pd.DataFrame({"told": ["paid late", "paid in full", "never paid"] * 40})
    for vectorizer in (CountVectorizer(), TfidfVectorizer(ngram_range=(1, 2)), HashingVectorizer(n_features=64)):
        words = make_pipeline(ColumnTransformer([("words", vectorizer, "told")]), LogisticRegression())
        fitted = words.fit(texts, LABEL)
        np.testing.assert_array_equal(through_the_registry(fitted).predict_proba(texts), fitted.predict_proba(texts))


def test_encoders_that_drop_and_group_predict_as_before() -> None:
    options: list[dict[str, Any]] = [
        {"drop": "first"},
        {"drop": "if_binary"},
        {"min_frequency": 45, "handle_unknown": "infrequent_if_exist"},
        {"max_categories": 2, "drop": "first", "handle_unknown": "infrequent_if_exist"},
        {"categories": [["m", "f"], ["s", "n", "e"]], "sparse_output": False},
    ]
    frame = FRAME[["sex", "region"]].astype(object)
    strange = frame.replace("n", "west")
    for chosen in options:
        fitted = make_pipeline(OneHotEncoder(**chosen), LogisticRegression()).fit(frame, LABEL)
        again = through_the_registry(fitted)
        np.testing.assert_array_equal(again.predict_proba(frame), fitted.predict_proba(frame))
        if "handle_unknown" in chosen:
            np.testing.assert_array_equal(again.predict_proba(strange), fitted.predict_proba(strange))
    numbers = FRAME[["age"]].astype(float).replace(18.0, np.nan)
    fitted = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()).fit(numbers, LABEL)
    np.testing.assert_array_equal(through_the_registry(fitted).predict_proba(numbers), fitted.predict_proba(numbers))


@pytest.mark.parametrize(
    "build",
    [
        lambda: GradientBoostingClassifier(n_estimators=3, init="zero"),
        lambda: make_pipeline(KMeans(3, n_init=1), LogisticRegression()),
        lambda: make_pipeline(KBinsDiscretizer(3), LogisticRegression()),
        lambda: make_pipeline(RandomTreesEmbedding(3), LogisticRegression()),
        lambda: make_pipeline(StandardScaler(), SVC(probability=True)),
    ],
    ids=["boosting_from_zero", "clusters", "bins", "tree_embedding", "svc_probabilities"],
)
def test_what_compiled_code_reads_predicts_as_before(build: Build) -> None:
    for labels in (LABEL, GRADE):
        fitted = build().fit(NUMBERS, labels)
        again = through_the_registry(fitted)
        np.testing.assert_array_equal(again.predict_proba(NUMBERS), fitted.predict_proba(NUMBERS))


def test_a_boosting_of_quantiles_and_one_of_large_errors_predict_as_before() -> None:
    for loss in ("quantile", "huber", "absolute_error"):
        fitted = GradientBoostingRegressor(n_estimators=3, loss=loss).fit(NUMBERS, VALUE)
        np.testing.assert_array_equal(through_the_registry(fitted).predict(NUMBERS), fitted.predict(NUMBERS))


def test_everything_that_we_trust_exists() -> None:
    from sklearn.utils import all_estimators

    names = {f"{kind.__module__}.{name}" for name, kind in all_estimators()}
    allowed = names - beyond_reach(names)
    assert len(allowed) > 120
    assert not [name for name in allowed if name.startswith(("sklearn.datasets", "sklearn.cluster._dbscan"))]
    modules = tuple(module for module in _MODULES if not module.startswith(("sklearn._loss", "sklearn.utils")))
    assert [module for module in modules if not any(name.startswith(module) for name in allowed)] == []


PICKLES: dict[str, Callable[[Any, Path], bytes]] = {
    **{f"protocol_{number}": lambda o, _, n=number: pickle.dumps(o, n) for number in range(6)},
    "gzip": lambda o, _: gzip.compress(pickle.dumps(o)),
    "joblib": lambda o, folder: Path(joblib.dump(o, folder / "m.joblib")[0]).read_bytes(),
    "joblib_gzip": lambda o, folder: Path(joblib.dump(o, folder / "m.gz", compress=("gzip", 3))[0]).read_bytes(),
}


@pytest.mark.parametrize("make", PICKLES.values(), ids=PICKLES)
def test_a_pickle_is_refused_and_not_run(make: Callable[[Any, Path], bytes], tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    data = make(Canary(canary), tmp_path)
    with pytest.raises(ArtifactError) as caught:
        recognise("model.pkl", data)
    assert str(caught.value) == (
        "model.pkl looks like a pickle. Loading a pickle runs whatever code it holds, so it is refused. Save a "
        "fitted scikit-learn estimator with `skops.io.dump(estimator, file)`, and other models in the format of "
        "their own library."
    )
    assert not canary.exists()


def test_the_canary_sings(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Canary(tmp_path / "canary"))).close()
    assert (tmp_path / "canary").exists()


GOOD = skops_io.dumps(LogisticRegression().fit(NUMBERS, LABEL))


DAMAGED: dict[str, bytes] = {
    "nothing": b"",
    "text": b"hello, world",
    "noise": bytes(np.random.default_rng(0).integers(128, 256, 4096, dtype=np.uint8)) + b"\x00",
    "half": GOOD[: len(GOOD) // 2],
    "zip_of_nothing": zipped(None),
    "zip_of_something": zipped(None, readme=b"hello"),
    "schema_of_noise": zipped(b"\xff\xfe\x00"),
    "schema_of_a_list": zipped([1, 2]),
    "schema_without_a_loader": zipped({"__class__": "LogisticRegression"}),
    "schema_of_an_unknown_loader": zipped({"__class__": "a", "__module__": "b", "__loader__": "ShellNode"}),
    "schema_too_deep": zipped('{"content":' * 100_000),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_what_is_no_skops_file_is_refused(data: bytes) -> None:
    with pytest.raises(ArtifactError) as caught:
        audit("model.skops", describe("model.skops", data))
    assert str(caught.value).startswith("model.skops is not a ")
    assert len(str(caught.value)) < 250


PLACES = {"in_a_parameter": naming, "in_place_of_the_estimator": whole}
HOSTILE: dict[str, tuple[str, str, str, Any]] = {
    "type_system": ("os", "system", "TypeNode", {}),
    "type_eval": ("builtins", "eval", "TypeNode", {}),
    "function_system": ("os", "system", "FunctionNode", {"module_path": "os", "function": "system"}),
    "object_popen": ("subprocess", "Popen", "ObjectNode", None),
    "constructor_popen": ("subprocess", "Popen", "ConstructorFromReduceNode", words("touch canary")),
    "object_of_a_module_with_a_canary": ("canary_module", "Canary", "ObjectNode", None),
    "type_of_a_module_with_a_canary": ("canary_module", "Canary", "TypeNode", {}),
    "constructor_of_a_module_with_a_canary": ("canary_module", "Canary", "ConstructorFromReduceNode", words("x")),
}


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that exists as soon as `canary_module` was imported, or any command of the hostile files was run."""
    path = tmp_path / "canary"
    (tmp_path / "canary_module.py").write_text(
        f"open({str(path)!r}, 'w').close()\n\n\nclass Canary:\n    def __init__(self, *args):\n        pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "canary_module", raising=False)
    return path


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_refused_and_not_run(place: Any, hostile: tuple[str, str, str, Any], canary: Path) -> None:
    data = rewritten(place(*hostile), GOOD)
    with pytest.raises((ArtifactError, UntrustedTypesError)):
        audit("model.skops", describe("model.skops", data))
    with pytest.raises(ArtifactError):
        construct("model.skops", data)  # the second lock: even without an audit nothing is created
    assert not canary.exists()
    assert "canary_module" not in sys.modules


@pytest.mark.parametrize("name", ["type_system", "object_popen", "object_of_a_module_with_a_canary"])
def test_the_refusal_names_what_a_hostile_file_would_create(name: str) -> None:
    module, kind, loader, content = HOSTILE[name]
    with pytest.raises(UntrustedTypesError) as caught:
        audit("model.skops", describe("model.skops", rewritten(naming(module, kind, loader, content), GOOD)))
    assert caught.value.types == (f"{module}.{kind}",)


def test_an_array_that_is_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    archive = zipfile.ZipFile(io.BytesIO(GOOD))
    files = {name: archive.read(name) for name in archive.namelist()}
    buffer = io.BytesIO()
    np.save(buffer, np.array([Canary(canary)], dtype=object), allow_pickle=True)
    data = zipped(files.pop("schema.json"), **dict.fromkeys(files, buffer.getvalue()))
    assert not canary.exists()
    audit("model.skops", describe("model.skops", data))  # its schema is in order
    with pytest.raises(ArtifactError, match="cannot be loaded here"):
        construct("model.skops", data)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("estimator", "words"),
    [
        (LogisticRegression(), "model.skops holds no fitted estimator: "),
        (
            StandardScaler().fit(NUMBERS),
            "model.skops holds a StandardScaler, which is neither a classifier nor a regressor",
        ),
        (
            LinearSVC().fit(NUMBERS, LABEL),
            "model.skops holds a LinearSVC, which gives no probabilities; wrap it in CalibratedClassifierCV.",
        ),
        (
            DecisionTreeClassifier().fit(NUMBERS, np.zeros(ROWS, dtype=int)),
            "model.skops was fitted on one class only, 0.",
        ),
        ({"a": 1}, "model.skops holds no fitted estimator: "),
    ],
    ids=["unfitted", "transformer", "without_probabilities", "one_class", "no_estimator"],
)
def test_what_cannot_score(estimator: Any, words: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        task_of("model.skops", estimator)
    assert str(caught.value).startswith(words)
