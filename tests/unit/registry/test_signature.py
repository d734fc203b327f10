"""Signatures: what a batch becomes before an estimator sees it, and what is said of columns that do not fit."""

import datetime as dt
import decimal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from nightscore.registry.manifest import Input
from nightscore.registry.signature import (
    FEEDS,
    SampleError,
    SignatureError,
    decode,
    faults,
    input_type,
    read_sample,
    select_inputs,
)


def one(kind: Any, name: str = "x") -> Input:
    return Input(name=name, type=kind, nullable=True)


# Arrow values and their type, the input's type, the values and dtype that the estimator sees.
DECODED: list[tuple[list[Any], pa.DataType, str, list[Any], str]] = [
    ([1, 2], pa.int64(), "int64", [1, 2], "int64"),
    ([1, None], pa.int64(), "int64", [1.0, np.nan], "float64"),
    ([2**62, 1], pa.int64(), "int64", [2**62, 1], "int64"),
    ([1, 2], pa.int32(), "int64", [1, 2], "int64"),
    ([1.5, None], pa.float64(), "double", [1.5, np.nan], "float64"),
    ([1, 2], pa.int64(), "double", [1.0, 2.0], "float64"),
    ([decimal.Decimal("1.25"), None], pa.decimal128(38, 9), "double", [1.25, np.nan], "float64"),
    ([decimal.Decimal("0.3"), decimal.Decimal("279888.6")], pa.decimal128(38, 9), "double", [0.3, 279888.6], "float64"),
    ([2**53 + 1, 7], pa.int64(), "double", [float(2**53 + 1), 7.0], "float64"),
    ([decimal.Decimal("0.1")], pa.decimal256(76, 38), "double", [0.1], "float64"),
    ([0.5, 1.5], pa.float64(), "float", [0.5, 1.5], "float32"),
    ([True, False], pa.bool_(), "bool", [True, False], "bool"),
    (["a", "b"], pa.string(), "string", ["a", "b"], "str"),
    (["a", None], pa.string(), "string", ["a", np.nan], "str"),
    (["b", "a", None], pa.string(), "category<string>", ["b", "a", np.nan], "category"),
    ([3, 1, 3], pa.int64(), "category<int64>", [3, 1, 3], "category"),
    ([], pa.int64(), "int64", [], "int64"),
]


@pytest.mark.parametrize(("values", "arrow", "kind", "seen", "dtype"), DECODED)
def test_decode(values: list[Any], arrow: pa.DataType, kind: str, seen: list[Any], dtype: str) -> None:
    batch = pa.record_batch({"x": pa.array(values, arrow)})
    frame = decode(batch, [one(kind)], shape="frame")
    assert str(frame["x"].dtype) == dtype
    pd.testing.assert_series_equal(frame["x"], pd.Series(seen, dtype=dtype, name="x"))


def test_every_type_of_a_signature_is_decoded() -> None:
    assert {kind for _, _, kind, _, _ in DECODED} == set(FEEDS)


def test_every_type_of_the_warehouse_is_decoded_as_pandas_reads_it_from_parquet(tmp_path: Path) -> None:
    table = pa.table(
        {
            "count": pa.array([1, 2], pa.int64()),
            "count_or_null": pa.array([1, None], pa.int64()),
            "amount": pa.array([1.5, None], pa.float64()),
            "flag": pa.array([True, False], pa.bool_()),
            "word": pa.array(["a", "b"], pa.string()),
            "nothing": pa.array([None, None], pa.float64()),
        }
    )
    parquet.write_table(table, tmp_path / "x.parquet")
    inputs = [one(input_type(field.name, field.type), field.name) for field in table.schema]
    pd.testing.assert_frame_equal(decode(table, inputs, shape="frame"), pd.read_parquet(tmp_path / "x.parquet"))


@pytest.mark.parametrize("make", [pa.record_batch, pa.table], ids=["batch", "table"])
def test_columns_come_in_the_estimators_order_and_case(make: Any) -> None:
    batch = make({"B": pa.array([2.0]), "other": pa.array(["x"]), "a": pa.array([1])})
    frame = decode(batch, [one("int64", "A"), one("double", "b")], shape="frame")
    assert list(frame.columns) == ["A", "b"]
    assert frame.to_dict("list") == {"A": [1], "b": [2.0]}


def test_without_names_an_estimator_sees_a_matrix() -> None:
    batch = pa.record_batch({"b": pa.array([3, None]), "a": pa.array([1, 2]), "c": pa.array([True, False])})
    matrix = decode(batch, [one("int64", "a"), one("int64", "b"), one("bool", "c")], shape="matrix")
    assert isinstance(matrix, np.ndarray)
    assert (matrix.dtype, matrix.shape) == (np.dtype("float64"), (2, 3))
    np.testing.assert_array_equal(matrix, [[1, 3, 1], [2, np.nan, 0]])


def test_a_double_with_many_batches_is_one_column() -> None:
    table = pa.table({"x": pa.chunked_array([[1.0], [2.0], []], pa.float64())})
    assert decode(table, [one("double")], shape="frame")["x"].tolist() == [1.0, 2.0]


MISSING: list[tuple[list[Any], pa.DataType, str, list[Any]]] = [
    (["a", None], pa.string(), "string", ["a", np.nan]),
    ([True, None], pa.bool_(), "bool", [True, np.nan]),
    ([None, None], pa.string(), "string", [np.nan, np.nan]),
]


@pytest.mark.parametrize(("values", "arrow", "kind", "seen"), MISSING)
def test_missing_text_is_what_the_estimator_has_learnt(
    values: list[Any], arrow: pa.DataType, kind: str, seen: list[Any]
) -> None:
    batch = pa.record_batch({"x": pa.array(values, arrow)})
    as_nan = decode(batch, [one(kind)], shape="frame")["x"]
    as_none = decode(batch, [one(kind)], shape="frame", missing_text="none")["x"]
    assert [item is None for item in as_none] == [item is None for item in values]
    assert not any(item is None for item in as_nan)
    assert ["nan" if pd.isna(item) else item for item in as_nan] == ["nan" if pd.isna(item) else item for item in seen]


TYPES: list[tuple[pa.DataType, str]] = [
    (pa.int8(), "int64"),
    (pa.uint32(), "int64"),
    (pa.int64(), "int64"),
    (pa.float16(), "double"),
    (pa.float32(), "float"),
    (pa.float64(), "double"),
    (pa.decimal128(38, 9), "double"),
    (pa.bool_(), "bool"),
    (pa.string(), "string"),
    (pa.large_string(), "string"),
    (pa.dictionary(pa.int8(), pa.string()), "category<string>"),
    (pa.dictionary(pa.int32(), pa.large_string()), "category<string>"),
    (pa.dictionary(pa.int8(), pa.int64()), "category<int64>"),
]


@pytest.mark.parametrize(("arrow", "kind"), TYPES, ids=str)
def test_input_type(arrow: pa.DataType, kind: str) -> None:
    assert input_type("x", arrow) == kind


@pytest.mark.parametrize(
    "arrow",
    [
        pa.date32(),
        pa.timestamp("us", "UTC"),
        pa.list_(pa.int64()),
        pa.binary(),
        pa.null(),
        pa.dictionary(pa.int8(), pa.float64()),
    ],
    ids=str,
)
def test_no_input_type(arrow: pa.DataType) -> None:
    with pytest.raises(SampleError) as caught:
        input_type("opened", arrow)
    assert str(caught.value) == (
        f"The sample's column 'opened' has the type {arrow}; a model's input is a number, a boolean, text or a "
        "category. Derive such a column from it in the feature table."
    )


INPUTS = [one("int64", "Age"), one("double", "limit_bal"), one("category<string>", "sex")]
FITTING = {"age": "INT64", "limit_bal": "NUMERIC", "sex": "STRING"}

FAULTS: list[tuple[dict[str, str], list[str]]] = [
    (FITTING, []),
    ({**FITTING, "more": "GEOGRAPHY"}, []),
    (
        {"age": "INT64", "limit_ball": "NUMERIC", "sex": "STRING"},
        ["limit_bal: missing. Did you mean `limit_ball`?"],
    ),
    (
        {**FITTING, "age": "FLOAT64"},
        ["age: is FLOAT64, and the model was fitted on int64, which INT64 can feed."],
    ),
    (
        {**FITTING, "limit_bal": "STRING"},
        [
            "limit_bal: is STRING, and the model was fitted on double, which "
            + " or ".join(FEEDS["double"])
            + " can feed.",
        ],
    ),
    (
        {},
        ["Age: missing. There are none.", "limit_bal: missing. There are none.", "sex: missing. There are none."],
    ),
]


@pytest.mark.parametrize(("columns", "sentences"), FAULTS)
def test_faults(columns: dict[str, str], sentences: list[str]) -> None:
    assert faults(INPUTS, columns) == sentences


@pytest.mark.parametrize("kind", sorted(FEEDS))
def test_what_feeds_an_input(kind: str) -> None:
    warehouse = ("INT64", "FLOAT64", "NUMERIC", "BIGNUMERIC", "BOOL", "STRING", "DATE", "TIMESTAMP", "BYTES", "JSON")
    fitting = tuple(sql for sql in warehouse if not faults([one(kind)], {"X": sql}))
    assert sorted(fitting) == sorted(FEEDS[kind])


def test_many_faults_stay_bounded() -> None:
    error = SignatureError("credit_default/7", "features.card_accounts", [f"c{i}: missing." for i in range(40)])
    lines = str(error).splitlines()
    assert lines[0] == "The model credit_default/7 cannot read the columns of features.card_accounts:"
    assert (lines[1], lines[-1], len(lines)) == ("  - c0: missing.", "  … and 28 more", 14)
    assert len(error.faults) == 40


SAMPLE = pa.table({"age": [1, 2], "sex": ["f", "m"], "day": [dt.date(2026, 1, 1)] * 2})


def write_parquet(table: pa.Table, path: Path) -> None:
    parquet.write_table(table, path)


def write_csv(table: pa.Table, path: Path) -> None:
    csv.write_csv(table, path)


@pytest.mark.parametrize(("name", "write"), [("s.parquet", write_parquet), ("s.CSV", write_csv)])
def test_a_sample(tmp_path: Path, name: str, write: Any) -> None:
    write(SAMPLE, tmp_path / name)
    assert read_sample(tmp_path / name).to_pylist() == SAMPLE.to_pylist()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gone.parquet", None, "There is no sample file {path}."),
        ("s.parquet", b"not parquet at all", "The sample {path} is not a readable Parquet or CSV file: "),
        ("s.csv", b"", "The sample {path} is not a readable Parquet or CSV file: "),
        ("s.csv", b"age,sex\n", "The sample {path} holds no row."),
        ("s.csv", b"age,sex\n1\n", "The sample {path} is not a readable Parquet or CSV file: "),
    ],
)
def test_no_sample(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SampleError) as caught:
        read_sample(path)
    assert str(caught.value).startswith(words.format(path=path))
    assert len(str(caught.value)) < 250 + len(str(path))


def test_the_estimators_columns_are_selected() -> None:
    assert select_inputs(SAMPLE, ["sex", "age"], 2).column_names == ["sex", "age"]
    assert select_inputs(SAMPLE, None, 3).column_names == SAMPLE.column_names
    assert select_inputs(SAMPLE, None, None).column_names == SAMPLE.column_names


@pytest.mark.parametrize(
    ("names", "count", "sentence"),
    [
        (
            ["Sex", "age", "limit"],
            3,
            "The sample lacks columns that the estimator was fitted on: Sex, limit. Did you mean `sex`?",
        ),
        (
            None,
            2,
            (
                "The estimator was fitted on 2 unnamed columns and the sample has 3: age, sex, day. Fit it on a "
                "DataFrame, or give a sample of just its columns."
            ),
        ),
    ],
)
def test_columns_that_do_not_fit(names: Sequence[str] | None, count: int, sentence: str) -> None:
    with pytest.raises(SampleError) as caught:
        select_inputs(SAMPLE, names, count)
    assert str(caught.value) == sentence
