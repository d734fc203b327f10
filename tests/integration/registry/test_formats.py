"""Models of every format in a real registry: how they agree with their originals, and a night that one scores."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xgboost
from pyarrow import parquet
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skops import io as skops_io

from nightscore.assessment import assess
from nightscore.preview import preview
from nightscore.registry.examination import Facts, examine
from nightscore.registry.libraries import LibraryError
from nightscore.registry.signature import SampleError

DRAW = np.random.default_rng(5)
ROWS = 300
FRAME = pd.DataFrame({"age": DRAW.integers(18, 90, ROWS).astype(float), "balance": DRAW.gamma(2.0, 1000.0, ROWS)})
LABEL = (FRAME["age"] + DRAW.normal(0, 15, ROWS) > 55).astype(int)


def as_onnx(fitted: Any) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from skl2onnx import convert_sklearn
        from skl2onnx.common.data_types import FloatTensorType

        types = [(name, FloatTensorType([None, 1])) for name in FRAME.columns]
        return convert_sklearn(fitted, initial_types=types).SerializeToString()


ORIGINALS = {
    "sklearn-skops": (lambda: make_pipeline(StandardScaler(), LogisticRegression()), skops_io.dumps, 0.0),
    "onnx": (lambda: make_pipeline(StandardScaler(), LogisticRegression()), as_onnx, 1e-5),
    "lightgbm": (
        lambda: lightgbm.LGBMClassifier(n_estimators=5, verbose=-1),
        lambda fitted: fitted.booster_.model_to_string().encode(),
        0.0,
    ),
    "xgboost": (
        lambda: xgboost.XGBClassifier(n_estimators=5),
        lambda fitted: bytes(fitted.get_booster().save_raw("json")),
        0.0,
    ),
}


@pytest.fixture
def sample(tmp_path: Path) -> Any:
    """Writes the rows with what an original predicted of them."""

    def write(fitted: Any) -> Path:
        table = pa.Table.from_pandas(FRAME.assign(score=fitted.predict_proba(FRAME)[:, 1]), preserve_index=False)
        parquet.write_table(table, tmp_path / "sample.parquet")
        return tmp_path / "sample.parquet"

    return write


@pytest.mark.parametrize("name", ORIGINALS)
def test_a_registered_model_agrees_with_its_original(name: str, bench: Any, sample: Any, tmp_path: Path) -> None:
    build, save, largest = ORIGINALS[name]
    fitted = build().fit(FRAME, LABEL)
    (tmp_path / "model").write_bytes(save(fitted))
    facts = Facts(expected="score", classes=("0", "1"))
    registry = bench.services.registry
    version = registry.register(bench.name, tmp_path / "model", sample(fitted), alias="champion", facts=facts)
    found = version.manifest
    assert (found.format, found.task, found.classes) == (name, "binary", ("0", "1"))
    assert found.agreement.original == "score"
    assert found.agreement.rows == ROWS
    assert found.agreement.largest <= largest
    assert (found.agreement.differing > 0) == (name == "onnx")
    again = registry.load(version)
    rows = pa.Table.from_pandas(FRAME, preserve_index=False)
    np.testing.assert_allclose(again.predict(rows)[:, 1], fitted.predict_proba(FRAME)[:, 1], atol=largest, rtol=0)
    other = build().fit(FRAME, 1 - LABEL)
    with pytest.raises(SampleError, match="differ from the sample's score by up to"):
        registry.register(bench.name, tmp_path / "model", sample(other), facts=facts)


def test_a_night_is_scored_by_an_onnx_graph_and_its_libraries_are_looked_at(
    bench: Any, sample: Any, tmp_path: Path
) -> None:
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME, LABEL)
    (tmp_path / "model.onnx").write_bytes(as_onnx(fitted))
    registry, rows = bench.services.registry, sample(fitted)
    registry.register(bench.name, tmp_path / "model.onnx", rows, alias="champion", facts=Facts(expected="score"))
    night = pa.Table.from_pandas(FRAME.assign(id=range(ROWS), snapshot_date=bench.day), preserve_index=False)
    bench.write("features", night)
    record = bench.run()
    assert record["rows_published"] == ROWS
    scores = np.array(bench.published()["score"].to_pylist())
    np.testing.assert_allclose(scores, fitted.predict_proba(FRAME)[:, 1], atol=1e-5)

    examined = examine(bench.name, tmp_path / "model.onnx", rows)
    older, newer = (
        registry.store(replace(examined, manifest=examined.manifest.model_copy(update={"libraries": libraries})))
        for libraries in ({"onnxruntime": "1.0.0"}, {"onnxruntime": "99.0.0"})
    )
    model = {"name": bench.name, "version": older.manifest.version, "challengers": [newer.manifest.version]}
    found = assess(bench.spec(model=model), bench.day, bench.services.warehouse, registry)
    assert found.reasons == ()
    assert [text for text in preview(found, bench.services)["warnings"] if "onnxruntime 1.0.0" in text] != []
    assert "onnxruntime 99.0.0" in found.left_out[f"{bench.name}@{newer.manifest.version}"]
    refused = bench.spec(model={"name": bench.name, "version": newer.manifest.version})
    [reason] = assess(refused, bench.day, bench.services.warehouse, registry).reasons
    assert isinstance(reason, LibraryError)
    assert "Install 'onnxruntime>=99.0'" in str(reason)
