"""Files through the engine: every row once, in order, with the model's own score."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from sklearn.linear_model import LinearRegression
from sklearn.tree import DecisionTreeClassifier
from skops import io as skops_io

from nightscore.registry.formats import sklearn_skops
from nightscore.registry.manifest import Input, Manifest
from nightscore.registry.model import Model
from nightscore.scoring.files import score_file
from nightscore.scoring.score import NonFiniteError, score, summarise

ROWS = 30_000
_DRAW = np.random.default_rng(5)
TABLE = pa.table({"id": np.arange(ROWS), "a": _DRAW.normal(size=ROWS), "b": _DRAW.normal(size=ROWS)})
FRAME = TABLE.select(["a", "b"]).to_pandas()


def model_of(estimator: Any, task: Any, classes: tuple[str, ...] = ()) -> Model:
    fitted = sklearn_skops.fitted("a test", sklearn_skops.construct("a test", skops_io.dumps(estimator)))
    inputs = tuple(Input(name=name, type="double", nullable=False) for name in FRAME)
    manifest = Manifest(
        name="test",
        version=1,
        format="sklearn-skops",
        estimator="Estimator",
        task=task,
        classes=classes,
        named_inputs=True,
        inputs=inputs,
        files={},
        libraries={},
        sample_rows=1,
        created_at="now",
        created_by="test",
    )
    return Model(manifest, "0" * 64, fitted, fitted.prepare(inputs, named=True))


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    cut = [0, 20_001, 20_001, ROWS]
    paths = []
    for number, (start, end) in enumerate(pairwise(cut)):
        paths.append(tmp_path / f"{number}.parquet")
        parquet.write_table(TABLE.slice(start, end - start), paths[-1], row_group_size=7_000)
    return paths


def test_a_classifier_scores_files_in_their_order(sources: list[Path], tmp_path: Path) -> None:
    tree = DecisionTreeClassifier(max_depth=4).fit(FRAME, FRAME.a * FRAME.b > 0)
    model = model_of(tree, "binary", ("False", "True"))
    version = {"model_version": pa.scalar("test/1")}
    figures = score_file(model, sources, tmp_path / "out.parquet", keys=["id"], constants=version, threshold=0.5)
    found = parquet.read_table(tmp_path / "out.parquet")
    assert found.column_names == ["id", "score", "model_version"]
    assert found["id"].to_pylist() == list(range(ROWS))
    np.testing.assert_array_equal(found["score"].to_numpy(), tree.predict_proba(FRAME)[:, 1])
    assert set(found["model_version"].to_pylist()) == {"test/1"}
    expected = summarise(score(TABLE, model), "binary", 0.5)
    for name in ("sum", "squares"):
        assert figures.pop(name) == pytest.approx(expected.pop(name))
    assert figures == expected


def test_a_regressor_scores_files(sources: list[Path], tmp_path: Path) -> None:
    line = LinearRegression().fit(FRAME, FRAME.a * 3 + FRAME.b)
    figures = score_file(model_of(line, "regression"), sources, tmp_path / "out.parquet")
    found = parquet.read_table(tmp_path / "out.parquet")
    assert found.column_names == ["prediction"]
    np.testing.assert_allclose(found["prediction"].to_numpy(), line.predict(FRAME), rtol=0, atol=1e-12)
    assert figures["rows"] == ROWS


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_what_breaks_off_leaves_the_target_as_it_was(sources: list[Path], tmp_path: Path) -> None:
    line = LinearRegression().fit(FRAME, FRAME.a)
    line.coef_ = np.array([np.finfo(float).max, np.finfo(float).max])
    target = tmp_path / "out.parquet"
    target.write_bytes(b"before")
    with pytest.raises(NonFiniteError):
        score_file(model_of(line, "regression"), sources, target)
    assert target.read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.parquet", "1.parquet", "2.parquet", "out.parquet"]


def test_no_row_is_no_file(tmp_path: Path) -> None:
    tree = DecisionTreeClassifier(max_depth=4).fit(FRAME, FRAME.a > 0)
    parquet.write_table(TABLE.slice(0, 0), tmp_path / "in.parquet")
    model = model_of(tree, "binary", ("False", "True"))
    assert score_file(model, [tmp_path / "in.parquet"], tmp_path / "out.parquet", keys=["id"]) == {}
    assert not (tmp_path / "out.parquet").exists()
