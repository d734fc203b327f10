"""Reading MLflow's `MLmodel` files: what is imported, what is refused, and with which words."""

import json
from typing import Any

import pytest
import yaml

from nightscore.registry.signature import SampleError
from nightscore.registry.sources.mlmodel import FLAVOURS, parse_mlmodel, read_example
from nightscore.registry.sources.source import RefusedModelError

WHAT = "mlflow:credit_default@7"
SKOPS = {"pickled_model": "model.skops", "serialization_format": "skops"}
SIGNATURE = {"inputs": json.dumps([{"type": "long", "name": "age", "required": True}])}
EXAMPLE = {"artifact_path": "input_example.json", "type": "dataframe", "pandas_orient": "split"}


def text(flavours: Any, **more: Any) -> str:
    return yaml.safe_dump({"flavors": {"python_function": {"loader_module": "any"}, **flavours}, **more})


@pytest.mark.parametrize(
    ("flavours", "file"),
    [
        ({"sklearn": SKOPS}, "model.skops"),
        ({"onnx": {"data": "model.onnx"}}, "model.onnx"),
        ({"lightgbm": {"data": "model.lgb", "serialization_format": "cloudpickle"}}, "model.lgb"),
        ({"xgboost": {"data": "model.json", "model_format": "json"}}, "model.json"),
        ({"xgboost": {"data": "data/model.json"}}, "data/model.json"),
    ],
)
def test_what_is_imported(flavours: Any, file: str) -> None:
    found = parse_mlmodel(WHAT, text(flavours, signature=SIGNATURE, saved_input_example_info=EXAMPLE))
    assert (found.file, found.example, found.inputs) == (file, "input_example.json", {"age": "long"})


@pytest.mark.parametrize(
    ("flavours", "reason", "instead"),
    [
        (
            {"sklearn": {"pickled_model": "model.pkl", "serialization_format": "cloudpickle"}},
            "runs whatever code it holds",
            FLAVOURS["sklearn"][2],
        ),
        (
            {"sklearn": {"pickled_model": "model.skops", "serialization_format": "pickle"}},
            "Of that flavour, only .",
            FLAVOURS["sklearn"][2],
        ),
        (
            {"lightgbm": {"data": "model.skops", "serialization_format": "skops"}},
            "Of that flavour, only .",
            FLAVOURS["lightgbm"][2],
        ),
        ({"xgboost": {"data": "model.ubj", "model_format": "ubj"}}, "Of that flavour, only .", FLAVOURS["xgboost"][2]),
        ({"onnx": {}}, "Of that flavour, only .", FLAVOURS["onnx"][2]),
        ({"sklearn": {"pickled_model": ["model.skops"]}}, "Of that flavour, only .", FLAVOURS["sklearn"][2]),
    ],
)
def test_what_is_refused_with_what_to_log_instead(flavours: Any, reason: str, instead: str) -> None:
    with pytest.raises(RefusedModelError) as caught:
        parse_mlmodel(WHAT, text(flavours))
    message = str(caught.value)
    assert message.startswith(f"{WHAT} was logged by mlflow.{next(iter(flavours))} as ")
    assert reason in message
    assert "Nothing but its MLmodel file was downloaded." in message
    assert message.endswith(f"Log it with `{instead}`.")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("flavors: [", "its MLmodel file is not valid YAML"),
        ("[]", "its MLmodel file names no flavors."),
        ("flavors: !!python/object/apply:os.system [id]", "its MLmodel file is not valid YAML"),
        (text({"pytorch": {}}), "was logged as python_function, pytorch, and only the flavours sklearn, onnx"),
    ],
)
def test_what_is_no_model_of_a_known_flavour(content: str, message: str) -> None:
    with pytest.raises(RefusedModelError) as caught:
        parse_mlmodel(WHAT, content)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_few_lines_that_stand_for_gigabytes_are_not_spelt_out() -> None:
    lines = ["a: &a0 [x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]" for n in range(1, 20)]
    bomb = "\n".join([*lines, "flavors: {sklearn: {pickled_model: *a19, serialization_format: *a19}}"])
    with pytest.raises(RefusedModelError, match=r"was logged by mlflow.sklearn as nothing\."):
        parse_mlmodel(WHAT, bomb)


@pytest.mark.parametrize(
    "file", ["../model.skops", "/etc/model.skops", "a/../../model.skops", "a\\b.skops", "C:/m.skops", "a//m.skops"]
)
def test_a_file_stays_inside_the_models_folder(file: str) -> None:
    with pytest.raises(RefusedModelError, match="which is not a plain path"):
        parse_mlmodel(WHAT, text({"sklearn": {**SKOPS, "pickled_model": file}}))
    with pytest.raises(RefusedModelError, match="which is not a plain path"):
        parse_mlmodel(WHAT, text({"sklearn": SKOPS}, saved_input_example_info={**EXAMPLE, "artifact_path": file}))


@pytest.mark.parametrize("info", [None, {**EXAMPLE, "type": "ndarray"}, {**EXAMPLE, "pandas_orient": "records"}])
def test_an_example_without_columns_is_none(info: Any) -> None:
    assert parse_mlmodel(WHAT, text({"sklearn": SKOPS}, saved_input_example_info=info)).example is None


@pytest.mark.parametrize("inputs", [None, "[]", "nonsense", '[{"type": "tensor"}]'])
def test_a_signature_without_columns_is_none(inputs: Any) -> None:
    assert parse_mlmodel(WHAT, text({"sklearn": SKOPS}, signature={"inputs": inputs})).inputs is None


def test_an_example_has_the_types_of_the_signature() -> None:
    inputs = {"age": "long", "limit": "double", "rate": "float", "few": "integer", "sex": "string", "gold": "boolean"}
    rows = [[30, 1000, 0.5, 1, "f", True], [None, float("nan"), None, 2, None, None]]
    data = json.dumps({"columns": list(inputs), "data": rows}).encode()
    found = read_example(WHAT, data, dict(reversed(inputs.items())))
    assert found.schema.names == list(reversed(inputs))
    assert {field.name: str(field.type) for field in found.schema} == {
        "age": "int64",
        "limit": "double",
        "rate": "float",
        "few": "int32",
        "sex": "string",
        "gold": "bool",
    }
    assert found.select(list(inputs)).to_pylist() == [
        {"age": 30, "limit": 1000.0, "rate": 0.5, "few": 1, "sex": "f", "gold": True},
        {"age": None, "limit": None, "rate": None, "few": 2, "sex": None, "gold": None},
    ]


@pytest.mark.parametrize(
    ("data", "inputs", "message"),
    [
        (b"{", {"age": "long"}, "its input example is not a table of rows"),
        (b"[1]", {"age": "long"}, "its input example is not a table of rows"),
        (b"[" * 100_000, {"age": "long"}, "its input example is not a table of rows"),
        (b'{"columns": ["age"], "data": [[]]}', {"age": "long"}, "its input example is not a table of rows"),
        (b'{"columns": ["age"], "data": [[1]]}', {"day": "datetime"}, "can have the type of day (datetime)"),
        (b'{"columns": ["age"], "data": [[1]]}', {"limit": "double"}, "lacks columns of its signature: limit"),
        (b'{"columns": ["age"], "data": [["x"]]}', {"age": "long"}, "does not fit its signature"),
        (b'{"columns": ["age"], "data": [[0.5]]}', {"age": "long"}, "does not fit its signature"),
    ],
)
def test_an_example_that_does_not_fit(data: bytes, inputs: dict[str, str], message: str) -> None:
    with pytest.raises(SampleError) as caught:
        read_example(WHAT, data, inputs)
    assert message in str(caught.value)
