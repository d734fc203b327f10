"""Parts: what is written is what was predicted, in small row groups, with constants that take no room."""

import datetime as dt
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from nightscore.scoring import part
from nightscore.scoring.part import PartWriter

NAMES = ["id", "day", "score", "model_version", "scored_at"]
TIME = dt.datetime(2026, 11, 20, 2, 13, 7, 123456, tzinfo=dt.UTC)
DAY = dt.date(2026, 11, 19)
CONSTANTS = {
    "day": pa.scalar(DAY, pa.date32()),
    "model_version": pa.scalar("credit_default/7"),
    "scored_at": pa.scalar(TIME, pa.timestamp("us", "UTC")),
}


def written(sink: Any, rows: int, size: int) -> pa.Table:
    """Write rows in chunks, and return them as they should be read."""
    ids, scores = np.arange(rows), np.linspace(0, 1, rows)
    with PartWriter(sink, NAMES, CONSTANTS) as writer:
        for start in range(0, rows, size):
            chunk = slice(start, start + size)
            writer.write(pa.table({"id": ids[chunk]}), pa.table({"score": scores[chunk]}))
    constant = {name: pa.repeat(value, rows) for name, value in CONSTANTS.items()}
    columns = {"id": pa.array(ids), "score": pa.array(scores), **constant}
    return pa.table([columns[name] for name in NAMES], names=NAMES)


@pytest.mark.parametrize(("rows", "size"), [(1, 1), (7, 3), (100, 100), (100, 33)])
def test_what_is_written_is_read(rows: int, size: int) -> None:
    buffer = io.BytesIO()
    expected = written(buffer, rows, size)
    assert parquet.read_table(buffer).equals(expected)


def test_row_groups_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "ROW_GROUP_ROWS", 40)
    buffer = io.BytesIO()
    expected = written(buffer, 100, 15)
    metadata = parquet.read_metadata(buffer)
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [45, 45, 10]
    assert parquet.read_table(buffer).equals(expected)


def test_constants_take_no_room(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    written(path, 100_000, 20_000)
    [group] = [parquet.read_metadata(path).row_group(0)]
    sizes = {group.column(i).path_in_schema: group.column(i).total_compressed_size for i in range(group.num_columns)}
    assert sizes["score"] > 8 * 100_000
    assert all(sizes[name] < 500 for name in CONSTANTS)


def test_probabilities_of_classes_are_read() -> None:
    labels = pa.array(["low", "high"] * 3)
    pairs = pa.StructArray.from_arrays([labels, pa.array(np.arange(6) / 10)], names=["label", "probability"])
    probabilities = pa.ListArray.from_arrays([0, 2, 4, 6], pairs)
    predictions = pa.table({"prediction": ["high", "low", "high"], "probabilities": probabilities})
    buffer = io.BytesIO()
    with PartWriter(buffer, ["id", "prediction", "probabilities", "model_version"], CONSTANTS) as writer:
        writer.write(pa.table({"id": ["a", "b", "c"]}), predictions)
    found = parquet.read_table(buffer)
    assert found.drop_columns(["id", "model_version"]).to_pylist() == predictions.to_pylist()
    assert found["model_version"].to_pylist() == ["credit_default/7"] * 3


def test_without_rows_there_is_no_file() -> None:
    buffer = io.BytesIO()
    written(buffer, 0, 1)
    assert buffer.getvalue() == b""
