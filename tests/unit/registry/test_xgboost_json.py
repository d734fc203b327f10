"""XGBoost's JSON: every task predicts as the library does, bit for bit, and other files of XGBoost's are refused."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost

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
from nightscore.registry.boosting import UnknownCategoryError
from nightscore.registry.format import ArtifactError, UntrustedTypesError
from nightscore.registry.signature import SampleError

# XGBoost 3.4 warns that dart and gblinear will go; files of theirs stay.
pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:UserWarning")

SMALL = {"n_estimators": 8, "max_depth": 4, "n_jobs": 1}


def saved(model: Any) -> bytes:
    booster = model if isinstance(model, xgboost.Booster) else model.get_booster()
    return bytes(booster.save_raw("json"))


def require_same(found: np.ndarray, expected: np.ndarray) -> None:
    """Check probabilities bit by bit; of two classes, XGBoost rounds the first's to single precision."""
    if found.shape[1] == 2:
        np.testing.assert_array_equal(found[:, 0], 1 - found[:, 1])
        found, expected = found[:, 1], expected[:, 1]
    np.testing.assert_array_equal(found, expected)


CLASSIFIERS = {
    "gbtree": {},
    "dart": {"booster": "dart", "rate_drop": 0.3},
    "forest": {"num_parallel_tree": 3, "subsample": 0.7},
    "pruned": {"gamma": 2.0},
    "by_leaves": {"grow_policy": "lossguide", "max_leaves": 6},
}


@pytest.mark.parametrize("options", CLASSIFIERS.values(), ids=CLASSIFIERS)
@pytest.mark.parametrize(
    ("labels", "classes"), [(LABEL, ("0", "1")), (GRADE, ("0", "1", "2"))], ids=["binary", "multiclass"]
)
def test_a_classifier_predicts_as_xgboost_does(options: dict[str, Any], labels: Any, classes: tuple[str, ...]) -> None:
    fitted = xgboost.XGBClassifier(**SMALL, **options).fit(NUMBERS, labels)
    model = load(saved(fitted), as_table(NUMBERS))
    require_same(model.predict(as_table(NUMBERS)), fitted.predict_proba(NUMBERS))
    assert model.classes == classes
    assert model.shape == "matrix"


OBJECTIVES = [
    "reg:squarederror", "reg:squaredlogerror", "reg:pseudohubererror", "reg:absoluteerror", "reg:logistic",
    "reg:gamma", "reg:tweedie", "count:poisson",
]  # fmt: skip


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_regressor_predicts_as_xgboost_does(objective: str) -> None:
    target = LABEL if objective == "reg:logistic" else VALUE.clip(lower=1)
    fitted = xgboost.XGBRegressor(**SMALL, objective=objective).fit(NUMBERS, target)
    model = load(saved(fitted), as_table(NUMBERS))
    np.testing.assert_array_equal(model.predict(as_table(NUMBERS)), fitted.predict(NUMBERS))
    assert (model.task, model.classes) == ("regression", ())


def test_a_quantile_predicts_as_xgboost_does_and_several_are_refused() -> None:
    fitted = xgboost.XGBRegressor(**SMALL, objective="reg:quantileerror", quantile_alpha=0.9).fit(NUMBERS, VALUE)
    model = load(saved(fitted), as_table(NUMBERS))
    np.testing.assert_array_equal(model.predict(as_table(NUMBERS)), fitted.predict(NUMBERS))
    several = xgboost.XGBRegressor(**SMALL, objective="reg:quantileerror", quantile_alpha=[0.1, 0.9])
    with pytest.raises(ArtifactError):
        construct(saved(several.fit(NUMBERS, VALUE)))


@pytest.mark.parametrize("onehot", [1, 100], ids=["sets", "one_hot"])
@pytest.mark.parametrize("labels", [LABEL, GRADE], ids=["binary", "multiclass"])
def test_categories_and_nulls_predict_as_xgboost_does(onehot: int, labels: Any) -> None:
    fitted = xgboost.XGBClassifier(**SMALL, enable_categorical=True, max_cat_to_onehot=onehot).fit(FRAME, labels)
    assert b'"split_type":[1' in saved(fitted) or b",1," in saved(fitted)
    model = load(saved(fitted), as_table(FRAME))
    require_same(model.predict(as_table(FRAME)), fitted.predict_proba(FRAME))
    holes = FRAME.copy()
    holes.loc[::3, "sex"] = None
    holes.loc[::4, "limit_bal"] = np.nan
    require_same(model.predict(as_table(holes)), fitted.predict_proba(holes))
    few = FRAME[FRAME["region"] == 13].copy()
    few["region"] = few["region"].cat.remove_unused_categories()
    require_same(model.predict(as_table(few)), fitted.predict_proba(few))
    nothing = as_table(FRAME).slice(0, 5).set_column(2, "sex", [[None] * 5])
    assert np.isfinite(model.predict(nothing)).all()


def test_an_unknown_category_is_refused_as_xgboost_refuses_it() -> None:
    fitted = xgboost.XGBClassifier(**SMALL, enable_categorical=True).fit(FRAME, LABEL)
    strange = FRAME.assign(sex=pd.Categorical(["x"] * len(FRAME)))
    with pytest.raises(xgboost.core.XGBoostError, match="category not in the training set"):
        fitted.predict_proba(strange)
    with pytest.raises(UnknownCategoryError, match="The column 'sex' holds categories that the model was not fitted"):
        load(saved(fitted), as_table(FRAME)).predict(as_table(strange))


def test_categories_must_be_those_of_the_sample() -> None:
    data = saved(xgboost.XGBClassifier(**SMALL, enable_categorical=True).fit(FRAME, LABEL))
    with pytest.raises(SampleError, match=r"are the columns region, sex, and those of the sample sex"):
        load(data, as_table(FRAME.assign(region=FRAME["region"].astype(int))))
    plain = saved(xgboost.XGBClassifier(**SMALL).fit(NUMBERS, LABEL))
    with pytest.raises(SampleError, match=r"columns age are categories, and model.bin does not hold its categories"):
        load(plain, as_table(NUMBERS.assign(age=NUMBERS["age"].astype("category"))))


def test_fitting_that_stopped_early_predicts_with_the_best_rounds() -> None:
    fitted = xgboost.XGBClassifier(n_estimators=60, max_depth=4, early_stopping_rounds=2, n_jobs=1)
    fitted.fit(NUMBERS[:60], LABEL[:60], eval_set=[(NUMBERS[60:], LABEL[60:])], verbose=False)
    assert fitted.best_iteration + 1 < fitted.get_booster().num_boosted_rounds()
    model = load(saved(fitted), as_table(NUMBERS))
    require_same(model.predict(as_table(NUMBERS)), fitted.predict_proba(NUMBERS))


def test_without_names_only_the_number_of_columns_is_known() -> None:
    fitted = xgboost.XGBClassifier(**SMALL).fit(NUMBERS.to_numpy(), LABEL)
    model = construct(saved(fitted))
    assert (model.names, model.count, model.kind) == (None, 2, "Booster(binary:logistic)")
    loaded = load(saved(fitted), as_table(NUMBERS))
    require_same(loaded.predict(as_table(NUMBERS)), fitted.predict_proba(NUMBERS.to_numpy()))


def test_labels_are_named_at_registration() -> None:
    data = saved(xgboost.XGBClassifier(**SMALL).fit(NUMBERS, LABEL))
    assert construct(data, ["good", "bad"]).classes == ("good", "bad")
    with pytest.raises(ArtifactError, match=r"tells 2 classes apart, and these labels were named: good"):
        construct(data, ["good"])


def test_the_size_of_a_batch_and_threads_change_nothing() -> None:
    for frame, options in ((FRAME, {"enable_categorical": True}), (NUMBERS, {}), (NUMBERS, {"booster": "dart"})):
        fitted = xgboost.XGBClassifier(**SMALL, **options).fit(frame, GRADE)
        table, expected = as_table(frame), fitted.predict_proba(frame)
        model = load(saved(fitted), table)
        np.testing.assert_array_equal(in_pieces(model, table, 1), expected)
        found = from_several_threads(model, table)
        assert len(found) == 48
        assert all(np.array_equal(one, expected) for one in found)


def test_binary_files_are_refused_and_told_how_to_save() -> None:
    booster = xgboost.XGBClassifier(**SMALL).fit(NUMBERS, LABEL).get_booster()
    with pytest.raises(ArtifactError, match=r"one of XGBoost's binary formats.*model.save_model\('model.json'\)"):
        construct(bytes(booster.save_raw("ubj")))
    with pytest.raises(ArtifactError, match="one of XGBoost's binary formats"):
        construct(b"binf" + bytes(200))


@pytest.mark.parametrize(
    ("objective", "labels"), [("multi:softmax", GRADE), ("binary:logitraw", LABEL), ("rank:ndcg", LABEL)]
)
def test_an_objective_without_probabilities_is_refused(objective: str, labels: Any) -> None:
    parameters = {"objective": objective} | ({"num_class": 3} if labels is GRADE else {})
    data = xgboost.DMatrix(NUMBERS, labels)
    if objective.startswith("rank"):
        data.set_group([60, 60])
    with pytest.raises(UntrustedTypesError, match=f"does not allow: {objective}\\."):
        construct(saved(xgboost.train(parameters, data, 2)))


def test_a_linear_booster_and_vectors_for_leaves_are_refused() -> None:
    linear = xgboost.train({"booster": "gblinear"}, xgboost.DMatrix(NUMBERS, VALUE), 2)
    with pytest.raises(UntrustedTypesError, match="does not allow: gblinear"):
        construct(saved(linear))
    document = json.loads(saved(xgboost.XGBRegressor(**SMALL).fit(NUMBERS, VALUE)))
    document["learner"]["gradient_booster"]["model"]["trees"][0]["tree_param"]["size_leaf_vector"] = "3"
    with pytest.raises(ArtifactError, match="has vectors for leaves"):
        construct(json.dumps(document).encode())
