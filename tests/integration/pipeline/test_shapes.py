"""Other shapes of models, keys and sources: multiclass, regression, strings, composite keys, queries, timestamps."""

import datetime as dt
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes, load_wine
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from nightscore.check import check_pipeline
from nightscore.gates.gate import GateStoppedError
from nightscore.scoring.shard import ShardError

DAY = dt.date(2026, 11, 19)


def dated(frame, **columns):
    """Return a frame as a table of one partition with an id."""
    table = pa.Table.from_pandas(frame.assign(id=np.arange(len(frame)), **columns), preserve_index=False)
    return table.append_column("snapshot_date", pa.array([DAY] * len(frame), pa.date32()))


def wines():
    """scikit-learn's wines with a string feature, and their names as classes."""
    data = load_wine(as_frame=True)
    frame = data.data.rename(columns=lambda name: name.replace("/", "_"))
    frame["strength"] = pd.cut(frame.alcohol, 3, labels=["light", "medium", "strong"]).astype(str)
    return frame, data.target.map(dict(enumerate(["barolo", "grignolino", "barbera"])))


def test_a_multiclass_model_publishes_every_probability(bench):
    frame, label = wines()
    strings = make_column_transformer((OneHotEncoder(), ["strength"]), remainder="passthrough")
    model = make_pipeline(strings, RandomForestClassifier(30, random_state=0)).fit(frame, label)
    bench.write("features", dated(frame))
    bench.register(model, pa.Table.from_pandas(frame, preserve_index=False))
    summary = bench.run()
    found = bench.published().to_pylist()
    expected = model.predict_proba(frame)
    assert len(found) == len(frame) == summary["rows_published"]
    assert [row["prediction"] for row in found] == model.predict(frame).tolist()
    assert [[pair["label"] for pair in row["probabilities"]] for row in found] == [model.classes_.tolist()] * len(frame)
    assert [[pair["probability"] for pair in row["probabilities"]] for row in found] == expected.tolist()
    assert summary["figures"]["labels"] == dict(label.value_counts())
    [row] = bench.sql(
        "SELECT p.probability AS p FROM {dataset}.predictions, UNNEST(probabilities) AS p "
        "WHERE id = 0 AND p.label = 'barolo'"
    )
    assert row["p"] == expected[0][model.classes_.tolist().index("barolo")]


def patients():
    """scikit-learn's diabetes patients with two string features, one of them sometimes NULL."""
    data = load_diabetes(as_frame=True)
    frame = data.data.copy()
    frame["sex"] = np.where(frame.sex > 0, "male", "female")
    frame["band"] = pd.cut(frame.age, 3, labels=["young", "middle", "old"]).astype(object)
    frame.loc[::17, "band"] = None
    return frame, data.target


@pytest.mark.parametrize(("final", "tolerance"), [(HistGradientBoostingRegressor(), 0), (LinearRegression(), 1e-9)])
def test_a_regression_on_strings_publishes_its_values(bench, final, tolerance):
    frame, target = patients()
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    strings = make_column_transformer((encoder, ["sex", "band"]), remainder="passthrough")
    model = make_pipeline(strings, final).fit(frame, target)
    table = dated(frame)
    bench.write("features", table)
    version = bench.register(model, table.select(list(frame.columns)))
    assert {item.name: item.type for item in version.manifest.inputs}["sex"] == "string"
    summary = bench.run()
    found = bench.published()["prediction"].to_numpy()
    np.testing.assert_allclose(found, model.predict(frame), rtol=0, atol=tolerance)
    assert summary["figures"]["sum"] == pytest.approx(found.sum())


def test_categories_are_categories_again(bench):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"colour": pd.Categorical(rng.choice(["red", "green", "blue"], 400)), "size": rng.normal(size=400)}
    )
    target = (frame.colour == "red") * 3.0 + frame["size"]
    model = HistGradientBoostingRegressor(categorical_features="from_dtype").fit(frame, target)
    table = dated(frame)
    bench.write("features", table.set_column(0, "colour", table["colour"].cast(pa.string())))
    bench.register(model, table.select(["colour", "size"]))
    bench.run()
    assert bench.published()["prediction"].to_pylist() == model.predict(frame).tolist()


def test_composite_and_string_keys(bench):
    frame = pd.DataFrame({"x": np.arange(200.0)})
    model = LinearRegression().fit(frame, frame.x * 2)
    table = dated(frame, branch=[f"b{i % 3}" for i in range(200)], account=[f"a{i // 3}" for i in range(200)])
    bench.write("features", table)
    bench.register(model, table.select(["x"]))
    summary = bench.run(bench.spec(features={"keys": ["branch", "account"]}, limits={"shards": 5}))
    assert summary["rows_published"] == 200
    found = bench.published("branch, account")
    assert len(set(zip(found["branch"].to_pylist(), found["account"].to_pylist(), strict=True))) == 200
    assert bench.services.warehouse.find_table(f"{bench.name}.predictions").clustering_fields == ["branch", "account"]


def test_equal_concatenations_of_a_composite_key_are_different_keys(bench):
    frame = pd.DataFrame({"x": [1.0, 2.0]})
    table = dated(frame, a=["a", "ab"], b=["bc", "c"])
    bench.write("features", table)
    bench.register(LinearRegression().fit(frame, [1.0, 2.0]), table.select(["x"]))
    run_id = bench.run(bench.spec(features={"keys": ["a", "b"]}))["run_id"].replace("-", "")
    rows = bench.sql(f"SELECT _key_hash FROM nightscore_staging.{bench.name}__{run_id}__frozen")
    assert len({row["_key_hash"] for row in rows}) == 2


def test_repeated_composite_keys_are_refused(bench):
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0]})
    table = dated(frame, a=["a", "a", "b"], b=["c", "c", "c"])
    bench.write("features", table)
    bench.register(LinearRegression().fit(frame, frame.x), table.select(["x"]))
    with pytest.raises(GateStoppedError, match=r"expect_compound_columns_to_be_unique on a, b: .*2 of 3 rows fail"):
        bench.run(bench.spec(features={"keys": ["a", "b"]}))


def test_a_query_can_be_the_source(bench):
    frame = pd.DataFrame({"x": np.arange(50.0)})
    table = dated(frame)
    bench.write("features", table)
    bench.register(
        LinearRegression().fit(frame, frame.x), pa.table({"doubled": frame.x.to_numpy()}).rename_columns(["x"])
    )
    (bench.folder / "features.sql").write_text(
        f"SELECT id, snapshot_date, x * 2 AS x -- doubled\nFROM {bench.name}.features\n"
        "WHERE snapshot_date = @partition AND id < 40;\n"
    )
    summary = bench.run(bench.spec(features={"table": None, "sql": "features.sql"}))
    assert summary["rows_published"] == 40
    np.testing.assert_allclose(bench.published()["prediction"].to_numpy(), np.arange(40) * 2.0, atol=1e-9)


def test_a_timestamp_can_be_the_partition(bench):
    frame = pd.DataFrame({"x": np.arange(48.0)})
    hours = [dt.datetime(2026, 11, 18, 12, tzinfo=dt.UTC) + dt.timedelta(hours=i) for i in range(48)]
    table = pa.Table.from_pandas(frame.assign(id=np.arange(48)), preserve_index=False)
    table = table.append_column("seen_at", pa.array(hours, pa.timestamp("us", "UTC")))
    bench.write("features", table, partition="seen_at")
    bench.register(LinearRegression().fit(frame, frame.x), table.select(["x"]))
    bench.run(bench.spec(features={"partition": "seen_at"}))
    found = bench.published()
    assert found["id"].to_pylist() == list(range(12, 36))
    assert set(found["seen_at"].to_pylist()) == {DAY}


def test_columns_are_found_whatever_their_case(bench):
    frame = pd.DataFrame({"Balance": np.arange(20.0)})
    bench.write("features", dated(frame.rename(columns={"Balance": "balance"})))
    bench.register(LinearRegression().fit(frame, frame.Balance), pa.Table.from_pandas(frame))
    assert bench.run()["rows_published"] == 20


def test_more_shards_than_rows(bench):
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0]})
    bench.write("features", dated(frame))
    bench.register(LinearRegression().fit(frame, frame.x), pa.Table.from_pandas(frame))
    assert bench.run(bench.spec(limits={"shards": 16}))["rows_published"] == 3


def test_a_model_that_overflows_is_a_refusal_on_record(bench):
    frame = pd.DataFrame({"x": [0.5, *[1e9] * 19]})
    model = LinearRegression().fit(frame, frame.x)
    model.coef_ = np.array([1e300])
    bench.write("features", dated(frame))
    bench.register(model, pa.table({"x": [0.5]}))
    spec = bench.spec(limits={"shards": 1})
    for _ in range(2):  # the same answer when it is asked again
        with np.errstate(over="ignore"), pytest.raises(GateStoppedError, match="NaN or infinity for 19 of 20 rows"):
            bench.run(spec)
    assert bench.services.warehouse.find_table(f"{bench.name}.predictions") is None
    found = bench.sql(f"SELECT status, stopped_at FROM nightscore_operations.runs WHERE pipeline = '{bench.name}'")
    assert found == [{"status": "refused", "stopped_at": "score"}] * 2


class Quoting(LinearRegression):
    """Fails as scikit-learn does: by quoting the value it cannot take."""

    def predict(self, features):
        raise ValueError(f"could not convert string to float: 'Jane Doe', row 4711 holds {features[0, 0]}")


def test_a_models_own_error_quotes_no_value(bench, monkeypatch):
    frame = pd.DataFrame({"x": [123456.75] * 4})
    bench.write("features", dated(frame))
    bench.register(LinearRegression().fit(frame, frame.x), pa.Table.from_pandas(frame))
    monkeypatch.setattr(LinearRegression, "predict", Quoting.predict)
    with pytest.raises(ShardError) as error:
        bench.run(bench.spec(limits={"shards": 1}))
    assert "failed with ValueError: could not convert string to float: …, row … holds …" in str(error.value)
    assert error.value.__suppress_context__


def test_columns_of_the_spec_are_found_whatever_their_case(bench):
    frame = pd.DataFrame({"x": np.arange(20.0)})
    bench.write("features", dated(frame))
    bench.register(LinearRegression().fit(frame, frame.x), pa.Table.from_pandas(frame))
    spec = bench.spec(features={"keys": ["ID"], "partition": "Snapshot_Date"})
    assert check_pipeline(spec, bench.services) == []
    assert bench.run(spec)["rows_published"] == 20
    assert bench.published()["id"].to_pylist() == list(range(20))


def test_numeric_inputs_are_the_nearest_double(bench):
    amounts = [Decimal("0.3"), Decimal("279888.6"), Decimal("0.1"), None]
    frame = pd.DataFrame({"x": [0.3, 279888.6, 0.1, np.nan]})
    model = HistGradientBoostingRegressor(min_samples_leaf=1).fit(frame, [1.0, 2.0, 3.0, 4.0])
    table = dated(frame).set_column(0, "x", pa.array(amounts, pa.decimal128(38, 9)))
    bench.write("features", table)
    bench.register(model, pa.Table.from_pandas(frame))
    bench.run()
    assert bench.published()["prediction"].to_pylist() == model.predict(frame).tolist()
