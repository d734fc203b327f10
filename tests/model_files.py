"""Models through the registry's gate without a registry, for the tests of every format."""

import itertools
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from nightscore.registry.examination import _input
from nightscore.registry.formats import recognise
from nightscore.registry.manifest import Manifest
from nightscore.registry.model import Model

ROWS = 120
DRAW = np.random.default_rng(7)
FRAME = pd.DataFrame(
    {
        "age": DRAW.integers(18, 90, ROWS),
        "limit_bal": DRAW.gamma(2.0, 1000.0, ROWS),
        "sex": pd.Categorical(DRAW.choice(["f", "m"], ROWS)),
        "region": pd.Categorical(DRAW.choice([11, 12, 13, 14], ROWS)),
    }
)
NUMBERS = FRAME[["age", "limit_bal"]]
VALUE = NUMBERS["limit_bal"] * 2 + NUMBERS["age"] * 10 + DRAW.normal(0, 200, ROWS) + (FRAME["sex"] == "f") * 500
LABEL = (VALUE + DRAW.normal(0, 2000, ROWS) > VALUE.median()).astype(int)
GRADE = pd.cut(VALUE, 3, labels=False)


def construct(data: bytes, classes: Sequence[str] = (), what: str = "model.bin") -> Any:
    """Recognise, describe, audit and construct; return what scoring would be given."""
    form = recognise(what, data)
    form.audit(what, form.describe(what, data))
    return form.fitted(what, form.construct(what, data), classes)


def load(data: bytes, table: pa.Table, classes: Sequence[str] = ()) -> Model:
    """Return a file as a loaded version whose signature is that of the table."""
    fitted = construct(data, classes)
    if fitted.names is not None:
        table = table.select(list(fitted.names))
    inputs = tuple(_input(table, index) for index in range(table.num_columns))
    manifest = Manifest(
        name="m",
        version=1,
        format=recognise("model.bin", data).FORMAT,
        estimator=fitted.kind,
        task=fitted.task,
        classes=fitted.classes,
        named_inputs=fitted.names is not None,
        inputs=inputs,
        missing_text=fitted.missing_text,
        files={},
        libraries={},
        sample_rows=table.num_rows,
        created_at="",
        created_by="",
    )
    return Model(manifest, "", fitted, fitted.prepare(inputs, named=manifest.named_inputs))


def as_table(frame: pd.DataFrame) -> pa.Table:
    """Return a frame as Arrow, categories as dictionaries."""
    return pa.Table.from_pandas(frame, preserve_index=False)


def in_pieces(model: Model, table: pa.Table, size: int) -> np.ndarray:
    """Return the predictions of a table, some rows at a time."""
    return np.concatenate([model.predict(table.slice(start, size)) for start in range(0, table.num_rows, size)])


def from_several_threads(model: Model, table: pa.Table) -> list[np.ndarray]:
    """Return the predictions of a table by eight threads at once, several times each."""
    found: list[np.ndarray] = []
    together = threading.Barrier(8)

    def work(number: int) -> None:
        together.wait()
        for turn in range(6):
            size = (7, 40, table.num_rows)[(number + turn) % 3]
            found.append(in_pieces(model, table, size))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in itertools.chain(threads):
        thread.start()
    for thread in threads:
        thread.join()
    return found
