"""What MLflow's `MLmodel` file says: which file holds the model, what its inputs are called, and their types.

Nothing here downloads anything or runs anything of a model.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from nightscore.errors import listed, shorten
from nightscore.registry.signature import SampleError
from nightscore.registry.sources.source import RefusedModelError

if TYPE_CHECKING:
    import pyarrow as pa

EXAMPLE = "input_example=X[:1000]"
SIGNATURE = "signature=mlflow.models.infer_signature(X)"
FILE = r"(?:[A-Za-z0-9_-][A-Za-z0-9_.-]*/)*[A-Za-z0-9_-][A-Za-z0-9_.-]*"

# Flavour → the key that names its file, how the names of accepted files end, and what to log instead of others.
FLAVOURS: Mapping[str, tuple[str, tuple[str, ...], str]] = {
    "sklearn": (
        "pickled_model",
        (".skops",),
        f'mlflow.sklearn.log_model(model, name="model", serialization_format="skops", {EXAMPLE})',
    ),
    "onnx": (  # of which MLflow infers no signature, and which it spreads over several files unless told otherwise
        "data",
        (".onnx",),
        f'mlflow.onnx.log_model(model, name="model", save_as_external_data=False, {SIGNATURE}, {EXAMPLE})',
    ),
    "lightgbm": (
        "data",
        (".lgb", ".txt"),
        f'mlflow.lightgbm.log_model(model.booster_, name="model", {EXAMPLE})',
    ),
    "xgboost": (
        "data",
        (".json",),
        f'mlflow.xgboost.log_model(model, name="model", model_format="json", {EXAMPLE})',
    ),
}

_ARROW = {
    "boolean": "bool_",
    "integer": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
    "string": "string",
}


@dataclass(frozen=True)
class MLmodel:
    """What counts of an `MLmodel` file.

    Attributes:
        file: the path of the model's file beside it.
        example: the path of the input example; None without one that has columns.
        inputs: name → MLflow's type of the signature's columns; None without a signature of columns.
    """

    file: str
    example: str | None
    inputs: Mapping[str, str] | None


def parse_mlmodel(what: str, text: str) -> MLmodel:
    """Return what an `MLmodel` file says.

    Raises:
        RefusedModelError: it is none, or the model was logged in a format that is refused; says what to log instead.
    """
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RefusedModelError(f"{what}: its MLmodel file is not valid YAML: {shorten(error)}") from error
    flavours = content.get("flavors") if isinstance(content, dict) else None
    if not isinstance(flavours, dict):
        raise RefusedModelError(f"{what}: its MLmodel file names no flavors.")
    example = content.get("saved_input_example_info")
    return MLmodel(_model_file(what, flavours), _example_file(what, example), _inputs(content.get("signature")))


def read_example(what: str, data: bytes, inputs: Mapping[str, str]) -> "pa.Table":
    """Return an input example as rows, with the signature's columns and types.

    Raises:
        SampleError: it is not what the signature says, or has columns of types that no model input can have.
    """
    import pyarrow as pa

    try:
        content = json.loads(data)
        columns = {name: [row[at] for row in content["data"]] for at, name in enumerate(content["columns"])}
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise SampleError(f"{what}: its input example is not a table of rows: {shorten(error)}") from error
    unknown = [f"{name} ({kind})" for name, kind in inputs.items() if kind not in _ARROW]
    if unknown:
        raise SampleError(f"{what}: no model input here can have the type of {listed(unknown)}.")
    missing = [name for name in inputs if name not in columns]
    if missing:
        raise SampleError(f"{what}: its input example lacks columns of its signature: {listed(missing)}.")
    try:
        arrays = {name: _array(columns[name], getattr(pa, _ARROW[kind])()) for name, kind in inputs.items()}
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise SampleError(f"{what}: its input example does not fit its signature: {shorten(error)}") from error
    return pa.table(arrays)


def _array(values: list[Any], kind: "pa.DataType") -> "pa.Array":
    import pyarrow as pa

    # JSON has one kind of number, so an integer stands for a double; and a NaN is how pandas writes what is missing.
    present = [None if isinstance(value, float) and value != value else value for value in values]  # noqa: PLR0124
    if pa.types.is_floating(kind):
        present = [None if value is None else float(value) for value in present]
    elif pa.types.is_integer(kind) and any(value is not None and value != int(value) for value in present):
        raise ValueError("a whole number was expected")  # which Arrow would make of any other
    return pa.array(present, type=kind)


def _model_file(what: str, flavours: Mapping[str, Any]) -> str:
    flavour = next((name for name in FLAVOURS if isinstance(flavours.get(name), dict)), None)
    if flavour is None:
        raise RefusedModelError(
            f"{what} was logged as {listed(sorted(map(str, flavours))) or 'nothing'}, and only the flavours "
            f"{listed(FLAVOURS)} can be imported. Nothing but its MLmodel file was downloaded."
        )
    key, endings, instead = FLAVOURS[flavour]
    said = flavours[flavour]
    file, written = _word(said.get(key)), _word(said.get("serialization_format"))
    # A booster of LightGBM is its own text, whatever MLflow notes down as the format of other LightGBM models.
    if not file.endswith(endings) or (flavour == "sklearn" and written != "skops"):
        how = ", in ".join(shorten(word) for word in (written, file) if word) or "nothing"
        raise RefusedModelError(
            f"{what} was logged by mlflow.{flavour} as {how}. {_reason(flavour, file)} "
            f"Nothing but its MLmodel file was downloaded. Log it with `{instead}`."
        )
    return _inside(what, file)


def _word(value: object) -> str:
    # A few lines of YAML can stand for a value whose text fills the memory.
    return value if isinstance(value, str) else ""


def _reason(flavour: str, file: str) -> str:
    if file.endswith((".pkl", ".pickle", ".cloudpickle", ".joblib")):
        return "Loading a pickle runs whatever code it holds, so it is refused."
    kinds = " or ".join(FLAVOURS[flavour][1])
    return f"Of that flavour, only {kinds} can be imported, in the format of that name."


def _inside(what: str, file: str) -> str:
    if len(file) > 200 or not re.fullmatch(FILE, file):
        raise RefusedModelError(f"{what}: its MLmodel file names a file {shorten(file)!r}, which is not a plain path.")
    return file


def _example_file(what: str, info: object) -> str | None:
    if not isinstance(info, dict) or info.get("type") != "dataframe" or info.get("pandas_orient") != "split":
        return None
    return _inside(what, _word(info.get("artifact_path")))


def _inputs(signature: object) -> Mapping[str, str] | None:
    """Return a signature's columns; None where there is none, or one without names."""
    text = signature.get("inputs") if isinstance(signature, dict) else None
    try:
        columns = json.loads(text) if isinstance(text, str) else []
        found = {str(column["name"]): str(column["type"]) for column in columns}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return found or None
