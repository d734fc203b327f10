"""ONNX graphs: what skl2onnx converts predicts as ONNX Runtime does, and as the original within single precision."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    StandardScaler,
)
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from model_files import (
    FRAME,
    GRADE,
    LABEL,
    NUMBERS,
    VALUE,
    as_table,
    construct,
    from_several_threads,
    in_pieces,
    load,
)
from nightscore.registry.format import ArtifactError, UntrustedTypesError
from nightscore.registry.formats.onnx_graph import NullInputError
from nightscore.registry.signature import SampleError

# skl2onnx and scikit-learn warn of each other; few iterations on few rows do not converge, and need not.
pytestmark = pytest.mark.filterwarnings("ignore")

# Scaled to single precision, so that a split compares the same number on both sides.
SCALED = ((NUMBERS - NUMBERS.mean()) / NUMBERS.std()).astype("float32")
TABLE = as_table(SCALED)
WORDS = FRAME[["age", "limit_bal", "sex"]].astype({"age": "float32", "limit_bal": "float32", "sex": str})


def converted(model: Any, *, zipmap: Any = False, double: bool = False) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from skl2onnx import to_onnx

        options = {id(model): {"zipmap": zipmap}} if hasattr(model, "predict_proba") else None
        example = SCALED.to_numpy()[:1].astype(np.float64 if double else np.float32)
        return to_onnx(model, example, options=options).SerializeToString()


def by_column(model: Any, text: Any = None) -> bytes:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    types = [("age", FloatTensorType([None, 1])), ("limit_bal", FloatTensorType([None, 1]))]
    types += [("sex", StringTensorType([None, 1]))] if text is None else []
    return convert_sklearn(model, initial_types=types, options={id(model): {"zipmap": False}}).SerializeToString()


def as_runtime_predicts(data: bytes, feed: dict[str, Any]) -> np.ndarray:
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, feed)[-1]


def by_scale() -> Any:
    return make_pipeline(SimpleImputer(), StandardScaler())


Build = Callable[[], Any]
CLASSIFIERS: dict[str, Build] = {
    "logistic": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "tree": lambda: DecisionTreeClassifier(max_depth=4),
    "forest": lambda: RandomForestClassifier(8, random_state=0),
    "extra_trees": lambda: ExtraTreesClassifier(8, random_state=0),
    "boosting": lambda: GradientBoostingClassifier(n_estimators=8, random_state=0),
    "ada_boost": lambda: AdaBoostClassifier(n_estimators=4, random_state=0),
    "bagging": lambda: BaggingClassifier(n_estimators=4, random_state=0),
    "svc": lambda: SVC(probability=True, random_state=0),
    "mlp": lambda: MLPClassifier((4,), max_iter=20, random_state=0),
    "naive_bayes": GaussianNB,
    "stacking": lambda: StackingClassifier([("a", LogisticRegression()), ("b", GaussianNB())], cv=2),
    "calibrated_sigmoid": lambda: CalibratedClassifierCV(LinearSVC(), cv=2),
    "calibrated_forest": lambda: CalibratedClassifierCV(RandomForestClassifier(4, random_state=0), cv=2),
    "min_max": lambda: make_pipeline(MinMaxScaler(), LogisticRegression()),
    "power": lambda: make_pipeline(PowerTransformer(), LogisticRegression()),
    "quantiles": lambda: make_pipeline(QuantileTransformer(n_quantiles=20), RandomForestClassifier(4, random_state=0)),
    "polynomial": lambda: make_pipeline(PolynomialFeatures(2), LogisticRegression()),
    "bins": lambda: make_pipeline(KBinsDiscretizer(3, encode="ordinal"), RandomForestClassifier(4, random_state=0)),
    "imputed": lambda: make_pipeline(SimpleImputer(), LogisticRegression()),
}


@pytest.mark.parametrize("build", CLASSIFIERS.values(), ids=CLASSIFIERS)
@pytest.mark.parametrize(
    ("labels", "classes"), [(LABEL, ("0", "1")), (GRADE, ("0", "1", "2"))], ids=["binary", "multiclass"]
)
def test_a_classifier_predicts_as_its_original(build: Build, labels: Any, classes: tuple[str, ...]) -> None:
    fitted = build().fit(SCALED.to_numpy(), labels)
    data = converted(fitted)
    model = load(data, TABLE)
    found = model.predict(TABLE)
    np.testing.assert_allclose(found, fitted.predict_proba(SCALED.to_numpy()), atol=1e-5)
    np.testing.assert_allclose(found, as_runtime_predicts(data, {"X": SCALED.to_numpy()}), atol=1e-6)
    assert (model.classes, model.shape, found.dtype) == (classes, "matrix", np.float64)


def test_isotonic_calibration_is_converted_with_a_loss() -> None:
    fitted = CalibratedClassifierCV(GaussianNB(), cv=2, method="isotonic").fit(SCALED.to_numpy(), LABEL)
    data = converted(fitted)
    found = load(data, TABLE).predict(TABLE)
    np.testing.assert_allclose(found, as_runtime_predicts(data, {"X": SCALED.to_numpy()}), atol=1e-6)
    # The converter takes the nearest step where scikit-learn interpolates: what `expected` is for.
    assert np.abs(found - fitted.predict_proba(SCALED.to_numpy())).max() > 0.001


REGRESSORS: dict[str, Build] = {
    "linear": LinearRegression,
    "poisson": lambda: make_pipeline(StandardScaler(), PoissonRegressor()),
    "tree": lambda: DecisionTreeRegressor(max_depth=4),
    "forest": lambda: RandomForestRegressor(8, random_state=0),
    "boosting": lambda: GradientBoostingRegressor(n_estimators=8, random_state=0),
    "svr": SVR,
    "mlp": lambda: MLPRegressor(hidden_layer_sizes=(4,), max_iter=20, random_state=0),
}


@pytest.mark.parametrize("build", REGRESSORS.values(), ids=REGRESSORS)
def test_a_regressor_predicts_as_its_original(build: Build) -> None:
    fitted = build().fit(SCALED.to_numpy(), VALUE.clip(lower=0))
    model = load(converted(fitted), TABLE)
    np.testing.assert_allclose(model.predict(TABLE), fitted.predict(SCALED.to_numpy()), rtol=2e-5)
    assert (model.task, model.classes) == ("regression", ())


def test_double_precision_predicts_as_its_original() -> None:
    frame = SCALED.astype("float64")
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame.to_numpy(), LABEL)
    model = load(converted(fitted, double=True), as_table(frame))
    np.testing.assert_allclose(model.predict(as_table(frame)), fitted.predict_proba(frame.to_numpy()), atol=1e-14)


@pytest.mark.parametrize("labels", [LABEL, GRADE, np.where(LABEL, "good", "bad")], ids=["two", "three", "texts"])
@pytest.mark.parametrize("build", [CLASSIFIERS["logistic"], CLASSIFIERS["forest"], CLASSIFIERS["mlp"]])
def test_a_zipmap_is_taken_off_and_its_labels_kept(build: Build, labels: Any) -> None:
    fitted = build().fit(SCALED.to_numpy(), labels)
    zipped, plain = (load(converted(fitted, zipmap=zipmap), TABLE) for zipmap in (True, False))
    assert zipped.classes == plain.classes == tuple(str(label) for label in fitted.classes_)
    np.testing.assert_array_equal(zipped.predict(TABLE), plain.predict(TABLE))


@pytest.mark.parametrize("encoder", [OneHotEncoder(handle_unknown="ignore"), OrdinalEncoder()], ids=["onehot", "ord"])
@pytest.mark.parametrize("last", [LogisticRegression(), RandomForestClassifier(4, random_state=0)], ids=["lr", "rf"])
def test_inputs_by_name_predict_as_the_original(encoder: Any, last: Any) -> None:
    # Of numbers that were scaled, single precision falls on the other side of a few of a forest's splits.
    numbers = SimpleImputer() if isinstance(last, RandomForestClassifier) else by_scale()
    columns = ColumnTransformer([("n", numbers, ["age", "limit_bal"]), ("w", encoder, ["sex"])])
    fitted = make_pipeline(columns, last).fit(WORDS, LABEL)
    data = by_column(fitted)
    shuffled = as_table(WORDS[["sex", "limit_bal", "age"]])
    model = load(data, shuffled)
    np.testing.assert_allclose(model.predict(shuffled), fitted.predict_proba(WORDS), atol=1e-5)
    assert ([item.name for item in model.manifest.inputs], model.shape) == (["age", "limit_bal", "sex"], "frame")
    holes = WORDS.copy()
    holes.loc[::3, "limit_bal"] = np.nan
    np.testing.assert_allclose(model.predict(as_table(holes)), fitted.predict_proba(holes), atol=1e-5)
    holes.loc[::5, "sex"] = None
    with pytest.raises(NullInputError, match=r"The input 'sex' is NULL in some rows; it is text in the ONNX graph"):
        model.predict(as_table(holes))
    with pytest.raises(SampleError, match=r"column 'sex' is int64, and the input of model.bin takes text"):
        load(data, as_table(WORDS.assign(sex=1)))
    categories = as_table(WORDS.assign(sex=WORDS["sex"].astype("category")))
    np.testing.assert_array_equal(load(data, categories).predict(categories), model.predict(shuffled))


def test_numbers_by_name_are_given_as_a_matrix() -> None:
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(SCALED, LABEL)
    model = load(by_column(fitted, text=False), as_table(SCALED[["limit_bal", "age"]]))
    assert model.shape == "matrix"
    np.testing.assert_allclose(model.predict(TABLE), fitted.predict_proba(SCALED), atol=1e-5)


def test_nulls_among_numbers_are_nan() -> None:
    fitted = make_pipeline(SimpleImputer(), LogisticRegression()).fit(SCALED.to_numpy(), LABEL)
    holes = SCALED.copy()
    holes.loc[::3, "age"] = np.nan
    nulls = pa.Table.from_pandas(holes, preserve_index=False)
    found = load(converted(fitted), TABLE).predict(nulls)
    np.testing.assert_allclose(found, fitted.predict_proba(holes.to_numpy()), atol=1e-5)


def test_integers_take_no_null_and_no_fraction() -> None:
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Cast", ["a"], ["f"], to=1),
            onnx.helper.make_node("Add", ["f", "b"], ["y"]),
        ],
        "g",
        [value("a", 7, [None, 1]), value("b", 1, [None, 1])],
        [value("y", 1, [None, 1])],
    )
    data = onnx.helper.make_model(
        graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 21)]
    ).SerializeToString()
    table = pa.table({"a": [1, 2, 3], "b": [0.5, 0.25, 0.0]})
    model = load(data, table)
    np.testing.assert_array_equal(model.predict(table), [1.5, 2.25, 3.0])
    with pytest.raises(NullInputError, match=r"The input 'a' is NULL in some rows; it is integers"):
        model.predict(table.set_column(0, "a", [[1, None, 3]]))
    with pytest.raises(SampleError, match=r"column 'a' is double, and the input of model.bin takes integers"):
        load(data, table.set_column(0, "a", [[1.0, 2.0, 3.0]]))


@pytest.mark.parametrize("name", ["forest", "logistic", "boosting", "mlp"])
def test_the_size_of_a_batch_and_threads_change_nothing(name: str) -> None:
    fitted = CLASSIFIERS[name]().fit(SCALED.to_numpy(), GRADE)
    model = load(converted(fitted), TABLE)
    expected = model.predict(TABLE)
    close = 0 if model.fitted.is_reproducible else 1e-6
    np.testing.assert_allclose(in_pieces(model, TABLE, 1), expected, rtol=0, atol=close)
    found = from_several_threads(model, TABLE)
    assert len(found) == 48
    assert all(np.allclose(one, expected, rtol=0, atol=close) for one in found)
    assert model.fitted.is_reproducible == (name in ("forest", "boosting"))


def test_labels_are_the_graphs_own() -> None:
    data = converted(RandomForestClassifier(4).fit(SCALED.to_numpy(), LABEL))
    assert construct(data, ["0", "1"]).classes == ("0", "1")
    with pytest.raises(ArtifactError, match="predicts the classes 0, 1, and not good, bad"):
        construct(data, ["good", "bad"])
    assert construct(data).kind == "ONNX(TreeEnsembleClassifier by skl2onnx)"
    with pytest.raises(ArtifactError, match="is a regressor, which has no classes"):
        construct(converted(LinearRegression().fit(SCALED.to_numpy(), VALUE)), ["good", "bad"])


def test_a_graph_with_a_loop_is_refused() -> None:
    data = converted(KNeighborsClassifier(3).fit(SCALED.to_numpy(), LABEL))
    with pytest.raises(UntrustedTypesError, match=r"compute operators that nightscore does not allow: ai.onnx.Scan\b"):
        construct(data)


def test_outputs_by_column_are_refused_and_told_how_to_convert() -> None:
    data = converted(LogisticRegression().fit(SCALED.to_numpy(), LABEL), zipmap="columns")
    with pytest.raises(ArtifactError, match="`zipmap=False`"):
        construct(data)


def test_rows_of_a_frame_that_pandas_keeps_differently_are_the_same() -> None:
    fitted = LogisticRegression().fit(SCALED.to_numpy(), LABEL)
    model = construct(converted(fitted))
    frame = pd.DataFrame({"a": SCALED["age"], "b": SCALED["limit_bal"]})
    np.testing.assert_array_equal(model.predict(frame), model.predict(np.asfortranarray(frame.to_numpy())))
    assert model.predict(frame.to_numpy()[:0]).shape == (0, 2)


@pytest.mark.parametrize("column", [1, 2, 10**6])
def test_a_tree_behind_an_unknown_width_reads_no_further_than_its_rows(column: int) -> None:
    value, node = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    tree = {
        "nodes_treeids": [0] * 3, "nodes_nodeids": [0, 1, 2], "nodes_featureids": [column, 0, 0],
        "nodes_values": [0.0] * 3, "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"], "nodes_truenodeids": [1, 0, 0],
        "nodes_falsenodeids": [2, 0, 0], "target_treeids": [0, 0], "target_nodeids": [1, 2], "target_ids": [0, 0],
        "target_weights": [1.0, 2.0], "n_targets": 1,
    }  # fmt: skip
    graph = onnx.helper.make_graph(
        [node("Abs", ["x"], ["a"]), node("TreeEnsembleRegressor", ["a"], ["y"], domain="ai.onnx.ml", **tree)],
        "g", [value("x", 1, [None, 2])], [value("y", 1, [None, 1])],
    )  # fmt: skip
    opsets = [onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("ai.onnx.ml", 1)]
    data = onnx.helper.make_model(graph, ir_version=10, opset_imports=opsets).SerializeToString()
    model, rows = construct(data), np.array([[0.0, 0.0], [0.0, -3.0]])
    if column == 1:
        np.testing.assert_array_equal(model.predict(rows), [1.0, 2.0])
        return
    with pytest.raises(Exception, match="indices element out of data bounds"):
        model.predict(rows)
