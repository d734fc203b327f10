"""The manifest: canonical bytes, and nothing in it that it does not know."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from nightscore.registry.manifest import Manifest, digest

CONTENT: dict[str, Any] = {
    "name": "credit_default",
    "version": 7,
    "format": "sklearn-skops",
    "estimator": "Pipeline(LogisticRegression)",
    "task": "binary",
    "classes": ["no", "yes"],
    "named_inputs": True,
    "inputs": [{"name": "age", "type": "int64", "nullable": False, "categories": None}],
    "files": {"model.skops": {"sha256": "ab" * 32, "size": 12}},
    "types": ["numpy.dtype"],
    "libraries": {"scikit-learn": "1.9.1"},
    "metrics": {"auc": 0.8},
    "sample_rows": 100,
    "created_at": "2026-11-19T02:00:00+00:00",
    "created_by": "risk-ml",
    "description": "Größer als 0 €",
}


def test_bytes_are_canonical_and_complete() -> None:
    manifest = Manifest.model_validate(CONTENT)
    assert json.loads(manifest.to_bytes()).items() >= CONTENT.items()
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest
    shuffled = dict(reversed(CONTENT.items()))
    assert Manifest.model_validate(shuffled).to_bytes() == manifest.to_bytes()
    assert "Größer als 0 €".encode() in manifest.to_bytes()


@pytest.mark.parametrize(
    ("key", "value"), [("version", 8), ("description", ""), ("metrics", {"auc": 0.80001}), ("classes", ["yes", "no"])]
)
def test_the_digest_changes_with_every_word(key: str, value: object) -> None:
    before = digest(Manifest.model_validate(CONTENT).to_bytes())
    assert digest(Manifest.model_validate({**CONTENT, key: value}).to_bytes()) != before


@pytest.mark.parametrize(
    ("task", "classes", "positive"),
    [("binary", ["no", "yes"], "yes"), ("multiclass", ["a", "b", "c"], None), ("regression", [], None)],
)
def test_the_positive_class(task: str, classes: list[str], positive: str | None) -> None:
    assert Manifest.model_validate({**CONTENT, "task": task, "classes": classes}).positive_class == positive


@pytest.mark.parametrize(
    "change",
    [
        {"format": "pickle"},
        {"task": "ranking"},
        {"version": 0},
        {"inputs": []},
        {"inputs": [{"name": "age", "type": "date32", "nullable": False}]},
        {"files": {"model.skops": {"sha256": "ab", "size": -1}}},
        {"trusted": ["os.system"]},
        {"metrics": {"auc": "good"}},
    ],
)
def test_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Manifest.from_bytes(json.dumps({**CONTENT, **change}).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\x80\x04."])
def test_no_manifest(data: bytes) -> None:
    with pytest.raises(ValidationError):
        Manifest.from_bytes(data)


def test_a_figure_that_json_cannot_hold_is_refused() -> None:
    with pytest.raises(ValidationError, match="finite"):
        Manifest.model_validate({**CONTENT, "metrics": {"auc": float("nan")}})
