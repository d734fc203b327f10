"""LightGBM's text: every task predicts as the library does, bit for bit, and malformed texts are refused."""

from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest

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
from nightscore.registry.signature import SampleError

SMALL = {"n_estimators": 12, "num_leaves": 7, "min_child_samples": 3, "verbose": -1, "n_jobs": 1}
BY_CATEGORY = {"cat_smooth": 1, "min_data_per_group": 1, "max_cat_to_onehot": 1}


def text(model: Any) -> bytes:
    return model.booster_.model_to_string().encode()


CLASSIFIERS = {
    "gbdt": {},
    "dart": {"boosting_type": "dart"},
    "forest": {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.6},
    "unbalanced": {"class_weight": "balanced"},
}


@pytest.mark.parametrize("options", CLASSIFIERS.values(), ids=CLASSIFIERS)
@pytest.mark.parametrize(
    ("labels", "classes"), [(LABEL, ("0", "1")), (GRADE, ("0", "1", "2"))], ids=["binary", "multiclass"]
)
def test_a_classifier_predicts_as_lightgbm_does(options: dict[str, Any], labels: Any, classes: tuple[str, ...]) -> None:
    fitted = lightgbm.LGBMClassifier(**SMALL, **options).fit(NUMBERS, labels)
    model = load(text(fitted), as_table(NUMBERS))
    np.testing.assert_array_equal(model.predict(as_table(NUMBERS)), fitted.predict_proba(NUMBERS))
    assert model.classes == classes
    assert model.shape == "matrix"


def test_one_versus_all_predicts_as_lightgbm_does() -> None:
    fitted = lightgbm.LGBMClassifier(**SMALL, objective="multiclassova").fit(NUMBERS, GRADE)
    np.testing.assert_array_equal(
        load(text(fitted), as_table(NUMBERS)).predict(as_table(NUMBERS)), fitted.booster_.predict(NUMBERS)
    )


OBJECTIVES = [
    "regression", "regression_l1", "huber", "fair", "poisson", "quantile", "mape", "gamma", "tweedie", "cross_entropy",
]  # fmt: skip


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_regressor_predicts_as_lightgbm_does(objective: str) -> None:
    target = VALUE.clip(lower=1) if objective != "cross_entropy" else LABEL
    fitted = lightgbm.LGBMRegressor(**SMALL, objective=objective).fit(NUMBERS, target)
    model = load(text(fitted), as_table(NUMBERS))
    np.testing.assert_array_equal(model.predict(as_table(NUMBERS)), fitted.predict(NUMBERS))
    assert (model.task, model.classes) == ("regression", ())


def test_the_square_root_of_a_target_and_a_single_leaf_predict_as_lightgbm_does() -> None:
    rooted = lightgbm.LGBMRegressor(**SMALL, reg_sqrt=True).fit(NUMBERS, VALUE)
    constant = lightgbm.LGBMRegressor(**SMALL).fit(NUMBERS, VALUE * 0 + 3)
    for fitted in (rooted, constant):
        model = load(text(fitted), as_table(NUMBERS))
        np.testing.assert_array_equal(model.predict(as_table(NUMBERS)), fitted.predict(NUMBERS))


def test_categories_and_nulls_predict_as_lightgbm_does() -> None:
    odd = (FRAME["region"].isin([11, 13]) ^ (FRAME["sex"] == "f")).astype(int)
    fitted = lightgbm.LGBMClassifier(**SMALL, **BY_CATEGORY).fit(FRAME, odd)
    assert b"cat_boundaries=0 1 2" in text(fitted)
    model = load(text(fitted), as_table(FRAME))
    np.testing.assert_array_equal(model.predict(as_table(FRAME)), fitted.predict_proba(FRAME))
    holes = FRAME.copy()
    holes.loc[::3, "sex"] = None
    holes.loc[1::3, "region"] = None
    holes.loc[::4, "limit_bal"] = np.nan
    np.testing.assert_array_equal(model.predict(as_table(holes)), fitted.predict_proba(holes))
    few = FRAME[FRAME["sex"] == "m"].copy()  # a batch whose own dictionary begins elsewhere
    few["sex"] = few["sex"].cat.remove_unused_categories()
    np.testing.assert_array_equal(model.predict(as_table(few)), fitted.predict_proba(few))
    nothing = as_table(FRAME).slice(0, 5).set_column(2, "sex", [[None] * 5])
    assert np.isfinite(model.predict(nothing)).all()


def test_an_unknown_category_is_missing_to_lightgbm() -> None:
    fitted = lightgbm.LGBMClassifier(**SMALL, **BY_CATEGORY).fit(FRAME, LABEL)
    strange = FRAME.assign(sex=pd.Categorical(["x"] * len(FRAME)))
    model = load(text(fitted), as_table(FRAME))
    np.testing.assert_array_equal(model.predict(as_table(strange)), fitted.predict_proba(strange))


def test_categories_must_be_those_of_the_sample() -> None:
    data = text(lightgbm.LGBMClassifier(**SMALL, **BY_CATEGORY).fit(FRAME, LABEL))
    with pytest.raises(SampleError, match=r"category 2 of the file"):
        load(data, as_table(FRAME.assign(region=FRAME["region"].astype(int))))
    with pytest.raises(SampleError, match=r"'sex' is category<int64>, and the categories of model.bin are of another"):
        load(data, as_table(FRAME.assign(sex=FRAME["sex"].cat.codes.astype(int).astype("category"))))
    with pytest.raises(SampleError, match=r"columns sex are text"):
        load(data, as_table(FRAME.assign(sex=FRAME["sex"].astype(str))))


def test_without_names_only_the_number_of_columns_is_known() -> None:
    fitted = lightgbm.LGBMClassifier(**SMALL).fit(NUMBERS.to_numpy(), LABEL)
    model = construct(text(fitted))
    assert (model.names, model.count, model.kind) == (None, 2, "Booster(binary)")
    loaded = load(text(fitted), as_table(NUMBERS))
    np.testing.assert_array_equal(
        loaded.predict(as_table(NUMBERS)), fitted.predict_proba(NUMBERS.to_numpy(), validate_features=False)
    )


def test_booleans_with_nulls_are_numbers() -> None:
    frame = NUMBERS.assign(married=NUMBERS["age"] > 40)
    fitted = lightgbm.LGBMClassifier(**SMALL).fit(frame, LABEL)
    model = load(text(fitted), as_table(frame))
    np.testing.assert_array_equal(model.predict(as_table(frame)), fitted.predict_proba(frame))


def test_labels_are_named_at_registration() -> None:
    data = text(lightgbm.LGBMClassifier(**SMALL).fit(NUMBERS, GRADE))
    assert construct(data, ["low", "middle", "high"]).classes == ("low", "middle", "high")
    with pytest.raises(ArtifactError, match="tells 3 classes apart, and these labels were named: good, bad"):
        construct(data, ["good", "bad"])
    with pytest.raises(ArtifactError, match="is a regressor, which has no classes"):
        construct(text(lightgbm.LGBMRegressor(**SMALL).fit(NUMBERS, VALUE)), ["good", "bad"])


def test_the_size_of_a_batch_and_threads_change_nothing() -> None:
    for frame in (FRAME, NUMBERS):
        fitted = lightgbm.LGBMClassifier(**SMALL, **BY_CATEGORY).fit(frame, GRADE)
        table, expected = as_table(frame), fitted.predict_proba(frame)
        model = load(text(fitted), table)
        np.testing.assert_array_equal(in_pieces(model, table, 1), expected)
        found = from_several_threads(model, table)
        assert len(found) == 48
        assert all(np.array_equal(one, expected) for one in found)


def custom(predicted: Any, data: Any) -> Any:
    return predicted - data.get_label(), np.ones_like(predicted)


def test_a_custom_objective_is_refused() -> None:
    booster = lightgbm.train({"objective": custom, "verbose": -1}, lightgbm.Dataset(NUMBERS, VALUE), 2)
    with pytest.raises(UntrustedTypesError, match=r"would use an objective that nightscore does not allow: custom\."):
        construct(booster.model_to_string().encode())
    ranker = lightgbm.LGBMRanker(**SMALL).fit(NUMBERS, LABEL, group=[60, 60])
    with pytest.raises(UntrustedTypesError, match="lambdarank"):
        construct(text(ranker))


def test_linear_trees_are_refused() -> None:
    fitted = lightgbm.LGBMRegressor(**SMALL, linear_tree=True).fit(NUMBERS, VALUE)
    with pytest.raises(ArtifactError, match="Linear trees are not supported"):
        construct(text(fitted))
