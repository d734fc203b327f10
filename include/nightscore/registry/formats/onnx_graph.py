"""ONNX graphs of tabular models: describe → audit → construct.

A graph is data: operators by name, and their constants. What it may compute is decided by a list in our code; what
operators trust of their attributes is checked by `registry.onnx_checks`. ONNX Runtime is given the checked graph from
memory, so that it reads no file, with one thread for each call.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nightscore.errors import ConfigurationError, listed, shorten
from nightscore.registry.format import ArtifactError, UntrustedTypesError
from nightscore.registry.manifest import FormatName, Input, MissingText, Task
from nightscore.registry.onnx_checks import require_plain, require_sound
from nightscore.registry.signature import NUMBERS, SampleError, Shape

if TYPE_CHECKING:
    import numpy as np

FORMAT: FormatName = "onnx"
FILE = "model.onnx"
LIBRARIES = ("numpy", "onnx", "onnxruntime")
EXTRA: Final[str | None] = "onnx"
TOLERANCE = 1e-5  # most graphs compute in single precision

HOW_TO_SAVE = "Write it with `onnx.save(model, 'model.onnx')`, or the bytes of `model.SerializeToString()`."

# What converters of tabular models write. Loops and branches are left out, and whatever makes large tensors of small
# constants.
ALLOWED_OPERATORS = (
    *(f"ai.onnx.{name}" for name in (
        "Abs", "Add", "And", "ArgMax", "ArgMin", "Cast", "Ceil", "Clip", "Concat", "Constant", "ConstantOfShape",
        "Div", "Equal", "Erf", "Exp", "Flatten", "Floor", "Gather", "Gemm", "Greater", "GreaterOrEqual", "Identity",
        "IsInf", "IsNaN", "Less", "LessOrEqual", "Log", "MatMul", "Max", "Mean", "Min", "Mul", "Neg", "Not", "Or",
        "Pow", "Reciprocal", "ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
        "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Round", "Shape", "Sigmoid", "Sign", "Slice", "Softmax",
        "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Transpose", "Unsqueeze", "Where", "Xor",
    )),
    *(f"ai.onnx.ml.{name}" for name in (
        "ArrayFeatureExtractor", "Binarizer", "FeatureVectorizer", "Imputer", "LabelEncoder", "LinearClassifier",
        "LinearRegressor", "Normalizer", "OneHotEncoder", "SVMClassifier", "SVMRegressor", "Scaler",
        "TreeEnsembleClassifier", "TreeEnsembleRegressor", "ZipMap",
    )),
)  # fmt: skip

# Operators that treat every row by itself and sum in one order.
_ROW_BY_ROW = frozenset(
    {"ai.onnx.Cast", "ai.onnx.Identity"}
    | {f"ai.onnx.ml.{name}" for name in ("TreeEnsembleClassifier", "TreeEnsembleRegressor", "ZipMap")}
)
_FLOATS = (1, 11)  # TensorProto's numbers of float and double
_INTEGERS = (6, 7)
_BOOL, _STRING = 9, 8


class NullInputError(ConfigurationError):
    """A row has a NULL where an ONNX tensor cannot say so."""

    def __init__(self, name: str, kind: str) -> None:
        super().__init__(
            f"The input {name!r} is NULL in some rows; it is {kind} in the ONNX graph, which knows no NULL. Replace it "
            "in the feature query, or reject such rows."
        )


@dataclass(frozen=True)
class _Tensor:
    """An input of the graph: its name, TensorProto's number of its type, and its columns."""

    name: str
    kind: int
    width: int


@dataclass(frozen=True)
class _Graph:
    """What scoring needs to know of a graph.

    Attributes:
        inputs: its inputs.
        output: the name of the predictions.
        labels: a classifier's labels as far as the graph tells them; None of a regressor.
        width: the columns of the predictions, where the graph tells them.
        operators: what it computes.
        converter: who wrote it.
    """

    inputs: tuple[_Tensor, ...]
    output: str
    labels: tuple[str, ...] | None
    width: int | None
    operators: tuple[str, ...]
    converter: str


def looks_like(data: bytes) -> bool:
    """Return whether a file begins as ONNX files do: with the number of their format's version."""
    return len(data) > 2 and data[0] == 0x08 and 1 <= data[1] < 0x40


def describe(what: str, data: bytes) -> tuple[str, ...]:
    """Return the names of the operators that a graph would compute, with their domains.

    Raises:
        ArtifactError: it is no ONNX graph, or more than one, or its data is not in it.
    """
    model = _parse(what, data)
    require_plain(what, model)
    return _operators(model)


def audit(what: str, types: Sequence[str]) -> None:
    """Check that every operator is on our list.

    Raises:
        UntrustedTypesError: one is not.
    """
    refused = sorted(set(types) - set(ALLOWED_OPERATORS))
    if refused:
        raise UntrustedTypesError(
            what, refused, "compute operators", "Only those that converters of tabular models write may be in a graph"
        )


def construct(what: str, data: bytes) -> Any:
    """Create a session from an audited graph; return it with what scoring needs to know.

    Raises:
        ArtifactError: the graph is malformed, or ONNX Runtime cannot read it.
    """
    import onnxruntime

    model = _parse(what, data)
    require_plain(what, model)
    audit(what, _operators(model))  # the second lock: no session without it
    require_sound(what, model)
    graph = _reduced(what, model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ArtifactError(f"{what} cannot be loaded here: {shorten(error, 400)}") from error
    return session, graph


@dataclass
class OnnxModel:
    """An ONNX Runtime session as scoring needs it."""

    what: str
    session: Any
    graph: _Graph
    task: Task
    classes: tuple[str, ...]

    @property
    def kind(self) -> str:
        """Who converted it, and what decides."""
        models = [name.rsplit(".", 1)[1] for name in self.graph.operators if name.endswith(("Classifier", "Regressor"))]
        return f"ONNX({', '.join(models)}{' by ' if models else 'by '}{self.graph.converter})"

    @property
    def names(self) -> tuple[str, ...] | None:
        """The names of its inputs, where there are several of one column each."""
        return tuple(tensor.name for tensor in self.graph.inputs) if len(self.graph.inputs) > 1 else None

    @property
    def count(self) -> int | None:
        """How many columns it reads."""
        return sum(tensor.width for tensor in self.graph.inputs)

    @property
    def missing_text(self) -> MissingText:
        """A NULL among texts is refused, whatever it looks like."""
        return "none"

    @property
    def is_reproducible(self) -> bool:
        """Whether it consists of trees alone: matrix products sum in an order that depends on the rows."""
        return set(self.graph.operators) <= _ROW_BY_ROW

    def prepare(self, inputs: Sequence[Input], *, named: bool) -> Shape:  # noqa: ARG002 - names are checked by now
        """Compare the types of the sample with those of the graph.

        Raises:
            SampleError: a column cannot feed its input.
        """
        tensors = self.graph.inputs if len(self.graph.inputs) > 1 else self.graph.inputs * len(inputs)
        for item, tensor in zip(inputs, tensors, strict=True):
            if not _feeds(item, tensor.kind):
                raise SampleError(
                    f"The sample's column {item.name!r} is {item.type}, and the input of {self.what} "
                    f"{_name_of(tensor.kind)}."
                )
        is_numeric = all(tensor.kind in _FLOATS for tensor in tensors)
        return "matrix" if is_numeric and all(item.type in NUMBERS | {"bool"} for item in inputs) else "frame"

    def predict(self, features: Any) -> "np.ndarray[Any, np.dtype[np.float64]]":
        """Return probabilities, or a regressor's values.

        Raises:
            NullInputError: a row has a NULL where the graph takes an integer, a boolean or a text.
        """
        import numpy as np

        rows = len(features)
        if rows == 0:
            return np.empty((0, len(self.classes)) if self.classes else 0)
        [found] = self.session.run([self.graph.output], self._fed(features))
        found = np.asarray(found, dtype=np.float64)
        return found if self.classes else found.reshape(rows)

    def _fed(self, features: Any) -> Mapping[str, Any]:
        import numpy as np

        if len(self.graph.inputs) == 1:
            [tensor] = self.graph.inputs
            values = features if isinstance(features, np.ndarray) else features.to_numpy()
            return {tensor.name: _as_tensor(values, tensor)}
        if isinstance(features, np.ndarray):
            return {
                tensor.name: _as_tensor(features[:, index : index + 1], tensor)
                for index, tensor in enumerate(self.graph.inputs)
            }
        return {
            tensor.name: _as_tensor(features[tensor.name].to_numpy(dtype=_column_type(tensor)).reshape(-1, 1), tensor)
            for tensor in self.graph.inputs
        }


def fitted(what: str, constructed: Any, classes: Sequence[str] = ()) -> OnnxModel:
    """Return a session as what scoring needs; labels are the graph's, or those that were named.

    Raises:
        ArtifactError: other labels were named than it has or can have.
    """
    session, graph = constructed
    if graph.labels is None:
        if classes:
            raise ArtifactError(f"{what} is a regressor, which has no classes; {listed(classes)} were named.")
        return OnnxModel(what, session, graph, "regression", ())
    if graph.labels and classes and tuple(classes) != graph.labels:
        raise ArtifactError(f"{what} predicts the classes {listed(graph.labels)}, and not {listed(classes)}.")
    labels = graph.labels or tuple(classes) or tuple(str(number) for number in range(graph.width or 0))
    if len(labels) < 2 or graph.width not in (None, len(labels)):
        raise ArtifactError(
            f"{what} predicts {graph.width or 'an unknown number of'} probabilities, and has {len(labels)} labels: "
            f"{listed(labels)}. Name its labels in the order of its probabilities."
        )
    return OnnxModel(what, session, graph, "binary" if len(labels) == 2 else "multiclass", labels)


def _parse(what: str, data: bytes) -> Any:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise ArtifactError(
            f"{what} is no readable ONNX file, or was cut off: {shorten(error)}. {HOW_TO_SAVE}"
        ) from error
    if not model.ir_version or not model.HasField("graph"):
        raise ArtifactError(f"{what} is no ONNX model. {HOW_TO_SAVE}")
    return model


def _operators(model: Any) -> tuple[str, ...]:
    return tuple(sorted({f"{node.domain or 'ai.onnx'}.{node.op_type}" for node in model.graph.node}))


def _reduced(what: str, model: Any) -> _Graph:
    """Keep of a graph's outputs the predictions alone, as a tensor; return what scoring needs to know.

    Raises:
        ArtifactError: inputs or outputs are of a kind that scoring cannot use.
    """
    import onnx

    graph = model.graph
    operators, initial = _operators(model), {tensor.name for tensor in graph.initializer}
    inputs = tuple(_input(what, value) for value in graph.input if value.name not in initial)
    if not inputs or (len(inputs) > 1 and any(tensor.width != 1 for tensor in inputs)):
        raise ArtifactError(
            f"{what} has the inputs {listed(f'{t.name} [{t.width}]' for t in inputs)}. It needs one with all columns, "
            "or one for each column."
        )
    outputs = list(graph.output)
    makers = {name: node for node in graph.node for name in node.output}
    label = next((value for value in outputs if value.type.tensor_type.elem_type in (*_INTEGERS, _STRING)), None)
    others = [value for value in outputs if value is not label]
    if len(others) != 1:
        raise ArtifactError(
            f"{what} has the outputs {listed(value.name for value in outputs)}. A classifier needs a label and one "
            "tensor of probabilities (`zipmap=False`), a regressor one output."
        )
    [output] = others
    labels: tuple[str, ...] | None = None if label is None else _labels_of(graph, makers, label.name)
    maker = makers.get(output.name)
    if maker is not None and maker.op_type == "ZipMap":
        labels = _attribute_labels(maker) or labels
        name, width = maker.input[0], len(labels or ()) or None
        graph.node.remove(maker)
        output = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
    elif output.type.tensor_type.elem_type in _FLOATS:
        dims = output.type.tensor_type.shape.dim
        name, width = output.name, (dims[1].dim_value or None) if len(dims) == 2 else None
    else:
        raise ArtifactError(f"{what}: the output {shorten(output.name, 40)} is no tensor of float or double.")
    if label is None and width not in (None, 1):
        raise ArtifactError(f"{what} predicts {width} values for a row, and no label; a regressor predicts one.")
    output = onnx.ValueInfoProto.FromString(output.SerializeToString())
    del graph.output[:]
    graph.output.append(output)
    converter = re.sub(r"[^A-Za-z0-9_.-]", "", model.producer_name)[:40] or "an unknown converter"
    return _Graph(inputs, name, labels, width, operators, converter)


def _input(what: str, value: Any) -> _Tensor:
    kind, dims = value.type.tensor_type.elem_type, value.type.tensor_type.shape.dim
    if kind not in (*_FLOATS, *_INTEGERS, _BOOL, _STRING):
        raise ArtifactError(f"{what}: the input {shorten(value.name, 40)} is of a type that no column has.")
    if len(dims) != 2 or dims[0].dim_value > 0 or dims[1].dim_value < 1:
        raise ArtifactError(
            f"{what}: the input {shorten(value.name, 40)} must be of the shape [None, columns], with their number."
        )
    return _Tensor(value.name, kind, dims[1].dim_value)


def _labels_of(graph: Any, makers: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return the labels that the label's output is taken from; none where that cannot be told."""
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    for _ in range(len(graph.node)):
        node = makers.get(name)
        if node is None:
            return ()
        if node.op_type in ("TreeEnsembleClassifier", "LinearClassifier", "SVMClassifier"):
            return _attribute_labels(node)
        if node.op_type == "ArrayFeatureExtractor" and node.input[0] in constants:
            values = numpy_helper.to_array(constants[node.input[0]]).reshape(-1).tolist()
            return tuple(value.decode() if isinstance(value, bytes) else _plain(value) for value in values)
        if node.op_type not in ("Cast", "Reshape", "Identity", "Squeeze", "Flatten"):
            return ()
        name = node.input[0]
    return ()


def _attribute_labels(node: Any) -> tuple[str, ...]:
    for attribute in node.attribute:
        if attribute.name == "classlabels_strings" and attribute.strings:
            return tuple(label.decode() for label in attribute.strings)
        if attribute.name in ("classlabels_int64s", "classlabels_ints") and attribute.ints:
            return tuple(str(label) for label in attribute.ints)
    return ()


def _plain(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _feeds(item: Input, kind: int) -> bool:
    """Return whether a column of the signature can be what an input takes, without a loss that nobody sees."""
    if kind == _STRING:
        return item.type in ("string", "category<string>")
    if kind in _INTEGERS:
        return item.type in ("int64", "bool", "category<int64>")
    if kind == _BOOL:
        return item.type == "bool"
    return item.type in NUMBERS or item.type in ("bool", "category<int64>")


def _name_of(kind: int) -> str:
    if kind == _STRING:
        return "takes text"
    return {_BOOL: "takes booleans"}.get(kind, "takes integers" if kind in _INTEGERS else "takes numbers")


def _column_type(tensor: _Tensor) -> str:
    return "float64" if tensor.kind in _FLOATS else "object"


def _as_tensor(values: Any, tensor: _Tensor) -> Any:
    """Return values as the graph takes them, row after row.

    Raises:
        NullInputError: a NULL is among integers, booleans or texts.
    """
    import numpy as np
    import pandas as pd

    types = {1: np.float32, 11: np.float64, 6: np.int32, 7: np.int64, _BOOL: np.bool_, _STRING: np.object_}
    if tensor.kind not in _FLOATS and pd.isna(values).any():
        raise NullInputError(tensor.name, _name_of(tensor.kind).removeprefix("takes "))
    with np.errstate(over="ignore"):  # beyond single precision is infinite, as it is to the converter's users
        return np.ascontiguousarray(values, dtype=types[tensor.kind])
