"""Estimators on a matrix instead of a DataFrame: which of them are given one, and that they predict the same."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.base import clone, is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor, make_column_selector
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    BaggingRegressor,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
)
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

from nightscore.registry.formats.sklearn_skops import construct, missing_text, prepare
from nightscore.registry.manifest import Input
from nightscore.registry.signature import decode

ROWS = 400
INPUTS = (
    Input(name="age", type="int64", nullable=True),
    Input(name="limit_bal", type="double", nullable=True),
    Input(name="ratio", type="float", nullable=True),
    Input(name="spend", type="double", nullable=True),
)
_DRAW = np.random.default_rng(11)
FRAME = pd.DataFrame(
    {
        "age": _DRAW.integers(18, 90, ROWS),
        "limit_bal": _DRAW.gamma(2.0, 1000.0, ROWS),
        "ratio": _DRAW.normal(0, 1, ROWS).astype("float32"),
        "spend": _DRAW.exponential(50, ROWS),
    }
)
VALUE = FRAME["limit_bal"] * 2 + FRAME["age"] * 10 + FRAME["ratio"] * FRAME["spend"]
LABEL = (VALUE.median() < VALUE).astype(int)
WITH_GAPS = FRAME.mask(_DRAW.random(FRAME.shape) < 0.1)

Build = Callable[[], Any]

# What each predicts from a matrix is the same to the last bit.
TREES: dict[str, Build] = {
    "hist_boosting": lambda: HistGradientBoostingClassifier(max_iter=20, random_state=0),
    "hist_boosting_regressor": lambda: HistGradientBoostingRegressor(max_iter=20, random_state=0),
    "forest": lambda: RandomForestClassifier(12, random_state=0),
    "forest_regressor": lambda: RandomForestRegressor(12, random_state=0),
    "extra_trees": lambda: ExtraTreesClassifier(12, random_state=0),
    "boosting": lambda: make_pipeline(SimpleImputer(), GradientBoostingClassifier(n_estimators=10, random_state=0)),
    "tree": lambda: DecisionTreeClassifier(max_depth=5),
    "bagging": lambda: BaggingRegressor(n_estimators=5, random_state=0),
    "calibrated_trees": lambda: CalibratedClassifierCV(
        HistGradientBoostingClassifier(max_iter=5, random_state=0), method="isotonic", cv=2
    ),
}

# Sums that BLAS may add up in another order.
LINEAR: dict[str, Build] = {
    "logistic": LogisticRegression,
    "scaled_logistic": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "linear": LinearRegression,
    "ridge": lambda: make_pipeline(RobustScaler(), Ridge()),
    "calibrated": lambda: CalibratedClassifierCV(make_pipeline(StandardScaler(), LinearSVC()), cv=2),
    "polynomials": lambda: make_pipeline(StandardScaler(), PolynomialFeatures(2), LogisticRegression()),
    "pca": lambda: make_pipeline(StandardScaler(), PCA(2), LogisticRegression()),
    "union": lambda: make_pipeline(make_union(StandardScaler(), MinMaxScaler()), LogisticRegression()),
    "voting": lambda: VotingClassifier(
        [("a", make_pipeline(StandardScaler(), LogisticRegression())), ("b", GaussianNB())], voting="soft", n_jobs=2
    ),
    "stacking": lambda: StackingClassifier(
        [("a", make_pipeline(StandardScaler(), LogisticRegression())), ("b", GaussianNB())], cv=2
    ),
    "splines": lambda: make_pipeline(SplineTransformer(), StandardScaler(), LogisticRegression()),
    "mlp": lambda: make_pipeline(StandardScaler(), MLPClassifier((4,), max_iter=20, random_state=0)),
    "svc": lambda: CalibratedClassifierCV(make_pipeline(StandardScaler(), SVC()), cv=2),
    "neighbours": lambda: make_pipeline(StandardScaler(), KNeighborsClassifier(algorithm="brute")),
    "neighbours_imputed": lambda: make_pipeline(KNNImputer(), StandardScaler(), LogisticRegression()),
}

# Each may change its input where it stands, and must not: another model may be given the same matrix.
IN_PLACE: dict[str, Build] = {
    type(step).__name__: lambda step=step: make_pipeline(clone(step), StandardScaler(), LogisticRegression())
    for step in (
        StandardScaler(copy=False),
        MinMaxScaler(copy=False, clip=True),
        MaxAbsScaler(copy=False),
        RobustScaler(copy=False),
        Normalizer(copy=False),
        Binarizer(copy=False),
        QuantileTransformer(copy=False, n_quantiles=20),
        PowerTransformer(copy=False),
        SimpleImputer(copy=False),
        KNNImputer(copy=False),
        PCA(copy=False),
    )
}

# They may go by the names or the types of columns.
FRAMES: dict[str, Build] = {
    "by_name": lambda: make_pipeline(
        ColumnTransformer([("scaled", StandardScaler(), ["spend", "age"])], remainder="passthrough"),
        LogisticRegression(max_iter=500),
    ),
    "by_type": lambda: make_pipeline(
        ColumnTransformer([("scaled", StandardScaler(), make_column_selector(dtype_include="float32"))]),
        LogisticRegression(),
    ),
    "by_name_inside": lambda: CalibratedClassifierCV(
        make_pipeline(ColumnTransformer([("scaled", StandardScaler(), ["spend"])]), LogisticRegression()), cv=2
    ),
    "function": lambda: make_pipeline(FunctionTransformer(np.abs), StandardScaler(), LogisticRegression()),
    "target": lambda: TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1),
    "one_hot": lambda: make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()),
    "ordinal": lambda: make_pipeline(OrdinalEncoder(), DecisionTreeClassifier(max_depth=3)),
    "bins": lambda: make_pipeline(KBinsDiscretizer(4), LogisticRegression()),
    "categories": lambda: HistGradientBoostingClassifier(max_iter=5, categorical_features=["age"]),
    "frames_between": lambda: make_pipeline(StandardScaler().set_output(transform="pandas"), LogisticRegression()),
}


def fitted(build: Build, frame: pd.DataFrame = FRAME) -> Any:
    estimator = build()
    return estimator.fit(frame, LABEL if is_classifier(estimator) else VALUE)


def copied(estimator: Any) -> Any:
    """Return the estimator as the registry constructs it."""
    from skops import io as skops_io

    return construct("a test", skops_io.dumps(estimator))


def predicted(estimator: Any, features: Any) -> Any:
    return estimator.predict_proba(features) if hasattr(estimator, "predict_proba") else estimator.predict(features)


def from_batch(estimator: Any, frame: pd.DataFrame, shape: Any) -> Any:
    batch = pa.RecordBatch.from_pandas(frame, preserve_index=False)
    features = decode(batch, INPUTS, shape=shape)
    assert isinstance(features, np.ndarray if shape == "matrix" else pd.DataFrame)
    return predicted(estimator, features)


@pytest.mark.parametrize("build", TREES.values(), ids=TREES)
def test_trees_predict_the_same_bits_from_a_matrix(build: Build) -> None:
    original = fitted(build)
    estimator = copied(original)
    assert prepare(estimator, INPUTS, named=True) == "matrix"
    np.testing.assert_array_equal(from_batch(estimator, FRAME, "matrix"), predicted(original, FRAME))


@pytest.mark.parametrize("name", ["hist_boosting", "hist_boosting_regressor", "forest", "tree", "boosting"])
def test_trees_take_null_as_nan(name: str) -> None:
    original = fitted(TREES[name], WITH_GAPS)
    estimator = copied(original)
    assert prepare(estimator, INPUTS, named=True) == "matrix"
    np.testing.assert_array_equal(from_batch(estimator, WITH_GAPS, "matrix"), predicted(original, WITH_GAPS))


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("build", {**LINEAR, **IN_PLACE}.values(), ids=[*LINEAR, *IN_PLACE])
def test_sums_agree_from_a_matrix(build: Build) -> None:
    original = fitted(build)
    estimator = copied(original)
    assert prepare(estimator, INPUTS, named=True) == "matrix"
    found, expected = from_batch(estimator, FRAME, "matrix"), predicted(original, FRAME)
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * scale)


@pytest.mark.parametrize("build", IN_PLACE.values(), ids=IN_PLACE)
def test_a_shared_matrix_stays_as_it_is(build: Build) -> None:
    estimator = copied(fitted(build))
    prepare(estimator, INPUTS, named=True)
    matrix = decode(pa.RecordBatch.from_pandas(FRAME, preserve_index=False), INPUTS, shape="matrix")
    before = matrix.copy()
    estimator.predict_proba(matrix)
    np.testing.assert_array_equal(matrix, before)


@pytest.mark.filterwarnings("ignore:Bins whose width")
@pytest.mark.filterwarnings("ignore:.*quantile_method")
@pytest.mark.parametrize("build", FRAMES.values(), ids=FRAMES)
def test_what_may_look_at_columns_is_given_them(build: Build) -> None:
    original = fitted(build)
    estimator = copied(original)
    assert prepare(estimator, INPUTS, named=True) == "frame"
    assert list(estimator.feature_names_in_) == list(FRAME.columns)
    np.testing.assert_allclose(from_batch(estimator, FRAME, "frame"), predicted(original, FRAME), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("kinds", "shape"),
    [
        (["double", "double"], "matrix"),
        (["double", "int64"], "matrix"),
        (["float", "double"], "matrix"),
        (["int64", "int64"], "frame"),
        (["float", "float"], "frame"),
        (["double", "bool"], "frame"),
        (["double", "string"], "frame"),
        (["double", "category<int64>"], "frame"),
    ],
)
def test_only_numbers_of_which_one_is_a_double_are_a_matrix(kinds: list[Any], shape: str) -> None:
    frame = FRAME[["limit_bal", "spend"]]
    inputs = [Input(name=name, type=kind, nullable=False) for name, kind in zip(frame, kinds, strict=True)]
    assert prepare(copied(LogisticRegression().fit(frame, LABEL)), inputs, named=True) == shape


def test_an_estimator_without_names_is_given_a_matrix_whatever_is_in_it() -> None:
    by_position = ColumnTransformer([("scaled", StandardScaler(), [0, 2])], remainder="passthrough")
    matrix = FRAME.to_numpy(dtype="float64")
    original = make_pipeline(by_position, LogisticRegression(max_iter=2000)).fit(matrix, LABEL)
    estimator = copied(original)
    assert prepare(estimator, INPUTS, named=False) == "matrix"
    found = from_batch(estimator, FRAME, "matrix")
    np.testing.assert_allclose(found, original.predict_proba(matrix), rtol=0, atol=1e-12)


def test_every_part_works_in_one_thread() -> None:
    inside = RandomForestClassifier(3, n_jobs=4)
    estimator = copied(fitted(lambda: CalibratedClassifierCV(make_pipeline(StandardScaler(), inside), cv=2, n_jobs=2)))
    prepare(estimator, INPUTS, named=True)
    assert estimator.n_jobs == 1
    for calibrated in estimator.calibrated_classifiers_:
        assert calibrated.estimator.steps[-1][1].n_jobs == 1


def test_missing_text_that_was_learnt_inside_a_calibrated_estimator_is_found() -> None:
    text = pd.DataFrame({"sex": pd.Series(["f", "m", None] * 40, dtype=object)})
    outcome = np.arange(120) % 2
    inside = make_pipeline(ColumnTransformer([("o", OrdinalEncoder(), ["sex"])]), DecisionTreeClassifier(max_depth=2))
    assert missing_text(CalibratedClassifierCV(inside, cv=2).fit(text, outcome)) == "none"
