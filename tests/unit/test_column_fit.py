"""The source's columns against the signature, column by column."""

import pytest

from nightscore.column_fit import compare_columns
from nightscore.registry.manifest import File, Input, Manifest
from nightscore.registry.store import Version
from nightscore.spec import Spec
from nightscore.warehouse import Column

SPEC = Spec.model_validate(
    {
        "name": "cards",
        "features": {"table": "f.t", "partition": "Day", "keys": ["id"]},
        "model": {"name": "cards"},
        "checks": {"features": [{"expect": "expect_column_max_to_be_between", "column": "limit_bal"}]},
        "predictions": {"table": "p.t"},
    }
)


def version(*inputs: Input) -> Version:
    manifest = Manifest(
        name="cards",
        version=1,
        format="sklearn-skops",
        estimator="LogisticRegression",
        task="binary",
        classes=("no", "yes"),
        named_inputs=True,
        inputs=inputs,
        files={"model.skops": File(sha256="ab" * 32, size=1)},
        libraries={},
        sample_rows=1,
        created_at="2026-11-20T00:00:00+00:00",
        created_by="a test",
    )
    return Version(manifest, "cd" * 32)


AGE = Input(name="age", type="int64", nullable=False)
SOURCE = (Column("day", "DATE"), Column("id", "INT64", "REQUIRED"), Column("limit_bal", "NUMERIC"))


@pytest.mark.parametrize(
    ("column", "finding", "kind"),
    [
        (Column("Age", "INT64", "REQUIRED"), "ok", "INT64"),
        (Column("Age", "INT64"), "may be NULL", "INT64"),
        (Column("Age", "STRING"), "wrong type", "STRING"),
        (Column("Age", "INT64", "REPEATED"), "wrong type", "ARRAY<INT64>"),
    ],
)
def test_an_input(column: Column, finding: str, kind: str) -> None:
    found = {item.name: item for item in compare_columns(SPEC, version(AGE), [], [*SOURCE, column])}
    assert (found["Age"].finding, found["Age"].type, found["Age"].fitted_on) == (finding, kind, "int64")
    assert found["Age"].read_by == ("model",)


def test_every_column_has_its_readers_and_comes_once() -> None:
    challenger = version(Input(name="tenure", type="double", nullable=True), AGE)
    found = compare_columns(SPEC, version(AGE), [challenger], [*SOURCE, Column("tenure", "FLOAT64")])
    assert [(item.name, item.read_by, item.finding) for item in found] == [
        ("day", ("partition",), "ok"),
        ("id", ("key",), "ok"),
        ("age", ("model", "challenger"), "missing"),
        ("limit_bal", ("check",), "extra"),
        ("tenure", ("challenger",), "extra"),
    ]
    assert (found[2].type, found[2].nullable, found[2].takes_null) == (None, None, False)


def test_a_key_and_a_partition_have_types_of_their_own() -> None:
    columns = [Column("day", "STRING"), Column("id", "FLOAT64"), Column("limit_bal", "NUMERIC")]
    found = compare_columns(SPEC, None, [], columns)
    assert [(item.name, item.finding) for item in found] == [
        ("day", "wrong type"),
        ("id", "wrong type"),
        ("limit_bal", "extra"),
    ]
