"""Examining a model file before it becomes a version: describe, audit, construct, and try it on a sample.

Nothing is stored here. Registration stores what the examination made; `nightscore models check` only shows it.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated_dataclass

from nightscore.errors import ConfigurationError, listed, near_miss, shorten
from nightscore.objects import to_json
from nightscore.registry.format import LARGEST_ARTIFACT, ArtifactError, Fitted, Format
from nightscore.registry.formats import recognise
from nightscore.registry.libraries import require_installed
from nightscore.registry.manifest import (
    MOST_CATEGORIES,
    REFERENCE_FILE,
    Agreement,
    File,
    Input,
    Manifest,
    digest,
)
from nightscore.registry.model import Model
from nightscore.registry.reference import build_reference
from nightscore.registry.signature import SampleError, decode, input_type, read_sample, select_inputs

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

PROBE_ROWS = 32
TIMED_ROWS = 100_000  # of the sample, repeated where it is shorter


class ModelFileError(ConfigurationError):
    """There is no such model file."""


class FactsError(ConfigurationError):
    """A file of facts cannot be read."""


@validated_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Facts:
    """What the owner of a version says of it.

    Attributes:
        metrics: figures of their choice.
        description: what it is.
        owner: the team that answers for it.
        training_data: what it was fitted on: a table and its partitions, a URI.
        git_revision: the commit of the code that fitted it.
        classes: a classifier's labels in the order of its probabilities, where the file does not hold them.
        expected: the sample's column of what the original predicted; of several classes, what their columns begin
            with: `<expected>_<label>`.
        tolerance: by how much a prediction may differ from the original's; by default the format's own.
    """

    metrics: Mapping[str, FiniteFloat] = Field(default_factory=dict)
    description: str = ""
    owner: str = ""
    training_data: str = ""
    git_revision: str = ""
    classes: tuple[str, ...] = ()
    expected: str | None = None
    tolerance: FiniteFloat | None = None


@dataclass(frozen=True)
class Examined:
    """What an examination made.

    Attributes:
        manifest: the draft; its version, time and author are those of registration.
        files: name → bytes of every file that will be stored; the model's own is the first.
        rows_per_second: how fast it predicts in one thread.
    """

    manifest: Manifest
    files: Mapping[str, bytes]
    rows_per_second: float


def read_facts(file: Path) -> Facts:
    """Read facts from a YAML file whose keys are the attributes of `Facts`.

    Raises:
        FactsError: there is no such file, it is no mapping, or a key or value is not known; names the near miss.
    """
    import yaml

    try:
        content = yaml.safe_load(file.read_bytes())
        return TypeAdapter(Facts).validate_python({} if content is None else content)
    except (OSError, yaml.YAMLError) as error:
        raise FactsError(f"The facts {file} cannot be read: {shorten(error)}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else "the file"
        allowed = [item.name for item in fields(Facts)]
        hint = near_miss(key, allowed) if key not in allowed else first["msg"]
        raise FactsError(f"The facts {file}: {shorten(key)}: {shorten(hint)}") from error


def examine(name: str, file: Path, sample: Path, facts: Facts | None = None) -> Examined:
    """Examine a file as a version of a model.

    Args:
        name: the model's name.
        file: the model's file, of one of `registry.formats`.
        sample: Parquet or CSV file of rows that it was fitted on, or of such rows; further columns are ignored where
            the model knows its names.
        facts: what its owner says of it.

    Raises:
        ConfigurationError: it is refused; nothing of it was run unless the audit had passed.
    """
    facts = facts or Facts()
    data = _read(file)
    form = recognise(file.name, data)
    libraries = require_installed(file.name, form.LIBRARIES, form.EXTRA)
    types = form.describe(file.name, data)
    form.audit(file.name, types)
    fitted = form.fitted(file.name, form.construct(file.name, data), facts.classes)
    table = read_sample(sample)
    expected = _expected(table, fitted, facts.expected)
    if facts.expected and fitted.names is None:
        table = table.drop_columns([column for column in table.column_names if _is_expected(column, facts.expected)])
    rows = select_inputs(table, fitted.names, fitted.count)
    draft = Manifest(
        name=name,
        version=1,
        format=form.FORMAT,
        estimator=fitted.kind,
        task=fitted.task,
        classes=fitted.classes,
        named_inputs=fitted.names is not None,
        inputs=tuple(_input(rows, index) for index in range(rows.num_columns)),
        missing_text=fitted.missing_text,
        files={form.FILE: _file(data)},
        types=types,
        libraries=libraries,
        metrics=dict(facts.metrics),
        training_data=facts.training_data,
        sample_rows=rows.num_rows,
        owner=facts.owner,
        git_revision=facts.git_revision,
        created_at="",
        created_by="",
        description=facts.description,
    )
    model = Model(draft, "", fitted, fitted.prepare(draft.inputs, named=draft.named_inputs))
    predictions, speed = _try_on(file.name, model, rows)
    if expected is None:
        expected = _as_in_the_file(file.name, form, data, draft, rows)
    agreement = _agreement(file.name, predictions, expected, facts.expected or "file", _tolerance(form, facts))
    reference = to_json(build_reference(rows, draft.inputs, predictions, draft.classes))
    changes: dict[str, Any] = {
        "inputs": _probed(model, rows),
        "agreement": agreement,
        "files": {form.FILE: _file(data), REFERENCE_FILE: _file(reference)},
    }
    return Examined(draft.model_copy(update=changes), {form.FILE: data, REFERENCE_FILE: reference}, speed)


def _read(file: Path) -> bytes:
    if not file.is_file():
        raise ModelFileError(f"There is no model file {file}.")
    if file.stat().st_size > LARGEST_ARTIFACT:
        raise ArtifactError(f"{file} is larger than {LARGEST_ARTIFACT:,} bytes.")
    return file.read_bytes()


def _file(data: bytes) -> File:
    return File(sha256=digest(data), size=len(data))


def _input(rows: "pa.Table", index: int) -> Input:
    column = rows.schema.field(index)
    kind = input_type(column.name, column.type)
    categories = None
    if kind.startswith("category"):
        found = sorted({value for chunk in rows.column(index).chunks for value in chunk.dictionary.to_pylist()})
        categories = tuple(found) if len(found) <= MOST_CATEGORIES else None
    return Input(name=column.name, type=kind, nullable=False, categories=categories)


def _try_on(what: str, model: Model, rows: "pa.Table") -> "tuple[np.ndarray[Any, Any], float]":
    """Return the predictions of the sample, and how many rows a second were predicted."""
    import numpy as np

    try:
        predictions = model.predict(rows)
    except Exception as error:
        # The estimator is its author's: whatever it raises, the message belongs to them.
        raise SampleError(f"The estimator in {what} cannot predict the sample: {shorten(error, 400)}") from error
    shape = (rows.num_rows, len(model.classes)) if model.classes else (rows.num_rows,)
    if predictions.shape != shape:
        raise SampleError(f"The estimator in {what} predicts the shape {predictions.shape}; {shape} was expected.")
    if not np.isfinite(predictions).all():
        count = int((~np.isfinite(predictions)).sum())
        raise SampleError(f"The estimator in {what} predicts {count} values of the sample as NaN or infinite.")
    return predictions, _speed(model, rows)


def _speed(model: Model, rows: "pa.Table") -> float:
    """Return how many rows a second are decoded and predicted, from the sample, repeated where it is short."""
    import pyarrow as pa

    many = pa.concat_tables([rows] * -(-TIMED_ROWS // (10 * rows.num_rows))).slice(0, TIMED_ROWS)
    started = time.perf_counter()
    model.predict(many)
    seconds = time.perf_counter() - started
    return float(many.num_rows / max(seconds, 1e-9))


def _probed(model: Model, rows: "pa.Table") -> tuple[Input, ...]:
    """Predict a few rows with each column as NULL, which tells the inputs that may be NULL."""
    import numpy as np
    import pyarrow as pa

    few = rows.slice(0, PROBE_ROWS)
    inputs: list[Input] = []
    for index, item in enumerate(model.manifest.inputs):
        nulls = few.set_column(index, few.schema.field(index), pa.nulls(few.num_rows, few.schema.field(index).type))
        try:
            nullable = bool(np.isfinite(model.predict(nulls)).all())
        except Exception:  # noqa: BLE001 - the estimator's own way of saying that it takes no NULL here
            nullable = False
        inputs.append(item.model_copy(update={"nullable": nullable}))
    return tuple(inputs)


def _as_in_the_file(what: str, form: Format, data: bytes, draft: Manifest, rows: "pa.Table") -> "np.ndarray[Any, Any]":
    """Return the predictions of the file as its library reads it, given a DataFrame, without anything we prepare."""
    untouched = form.fitted(what, form.construct(what, data), draft.classes)
    frame = decode(rows, draft.inputs, shape="frame", missing_text=draft.missing_text)
    try:
        return untouched.predict(frame if draft.named_inputs else frame.to_numpy())
    except Exception as error:
        raise SampleError(f"The estimator in {what} cannot predict the sample: {shorten(error, 400)}") from error


def _is_expected(column: str, expected: str) -> bool:
    return column == expected or column.startswith(f"{expected}_")


def _expected(table: "pa.Table", fitted: Fitted, expected: str | None) -> "np.ndarray[Any, Any] | None":
    """Return the original's predictions from the sample, of the shape of the model's own."""
    import numpy as np
    import pyarrow as pa

    if expected is None:
        return None
    several = len(fitted.classes) > 2
    names = [f"{expected}_{label}" for label in fitted.classes] if several else [expected]
    missing = [name for name in names if name not in table.column_names]
    if missing:
        near = near_miss(missing[0], table.column_names)
        raise SampleError(f"The sample has no column {listed(missing)} of expected predictions. {near}")
    try:
        columns = [table.column(name).cast(pa.float64()).to_numpy() for name in names]
    except pa.ArrowInvalid as error:
        raise SampleError(f"The sample's column {listed(names)} of expected predictions holds no numbers.") from error
    if several:
        return np.column_stack(columns)
    return columns[0] if not fitted.classes else np.column_stack([1 - columns[0], columns[0]])


def _tolerance(form: Format, facts: Facts) -> float:
    return form.TOLERANCE if facts.tolerance is None else facts.tolerance


def _agreement(
    what: str, found: "np.ndarray[Any, Any]", expected: "np.ndarray[Any, Any]", original: str, tolerance: float
) -> Agreement:
    """Return how far the predictions are from the original's.

    Raises:
        SampleError: farther than the tolerance allows.
    """
    import numpy as np

    difference = np.abs(found - expected) / np.maximum(1.0, np.abs(expected))
    by_row = difference if difference.ndim == 1 else difference.max(axis=1)
    beyond = int((~(by_row <= tolerance)).sum())
    if beyond:
        whose = "those of the file as its library reads it" if original == "file" else f"the sample's {original}"
        raise SampleError(
            f"The predictions of {what} differ from {whose} by up to {np.nanmax(by_row):.3g}, in {beyond:,} of "
            f"{len(by_row):,} rows by more than {tolerance:g}. It is not the model that made them, or was converted "
            "with a loss; `--tolerance` allows more."
        )
    return Agreement(
        original=original,
        rows=len(by_row),
        largest=float(by_row.max()),
        mean=float(by_row.mean()),
        differing=int(np.count_nonzero(by_row)),
        tolerance=tolerance,
    )
