"""What must hold of an ONNX graph before ONNX Runtime is given it.

ONNX Runtime's operators of `ai.onnx.ml` take sizes and indices from their attributes and trust most of them. Where the
number of columns that reach such an operator is not known from the graph, a Gather of exactly the columns it reads is
put before it: Gather looks at its indices, and fails where the operator would have read on.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nightscore.errors import listed, shorten
from nightscore.registry.format import ArtifactError
from nightscore.registry.trees import Nodes, refuse, require_trees

if TYPE_CHECKING:
    import numpy as np

MOST_NODES = 20_000
MOST_VALUES = 2**27  # of one tensor, for each row
DEEPEST_TREE = 1_000  # ONNX Runtime reads trees by recursion

_MODES = {"BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "LEAF"}
_KEEP_WIDTH = {"Binarizer", "Cast", "Identity", "Imputer", "Normalizer", "Scaler"}

Attributes = Mapping[str, Any]


def require_plain(what: str, model: Any) -> None:
    """Check that a model is one graph that holds all of its data.

    Raises:
        ArtifactError: it refers to other files, holds functions or graphs within graphs, or tensors of a wrong size.
    """
    graph = model.graph
    if model.functions or model.training_info or graph.sparse_initializer:
        raise ArtifactError(f"{what} holds functions, training graphs or sparse tensors, which are not supported.")
    if not graph.node or not graph.output:
        raise ArtifactError(f"{what} holds no graph that computes something.")
    if len(graph.node) > MOST_NODES:
        raise ArtifactError(f"{what} has {len(graph.node):,} operators; {MOST_NODES:,} are allowed.")
    for tensor in _tensors(graph):
        _check_tensor(what, tensor)


def require_sound(what: str, model: Any) -> None:
    """Check every operator whose attributes ONNX Runtime trusts, and put guards where widths are unknown.

    Args:
        what: what it is called in messages.
        model: an audited model; changed.

    Raises:
        ArtifactError: an operator would read beyond its memory or make tensors beyond all bounds, or a name is made
            twice.
    """
    import onnx

    graph = model.graph
    _require_single_names(what, graph)
    _require_bounded(what, model)
    widths = _widths(what, graph)
    nodes: list[Any] = []
    for node in graph.node:
        if any(a.ref_attr_name or a.type not in _plain_attributes() for a in node.attribute):
            raise ArtifactError(f"{what}: {node.op_type} holds a graph or a reference, which is not supported.")
        if node.domain == "ai.onnx.ml" and node.op_type in _CHECKS:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            where = f"{what} ({node.op_type} {shorten(node.name or node.output[0], 40)})"
            wanted, exactly = _CHECKS[node.op_type](where, attributes)
            width = widths.get(node.input[0])
            if width is None:
                nodes.append(_guard(graph, node, wanted))
            elif width < wanted or (exactly and width != wanted):
                refuse(where, f"it reads {wanted:,} columns and is given {width:,}")
        nodes.append(node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _check_tensor(what: str, tensor: Any) -> None:
    import math

    import onnx

    name = shorten(tensor.name or "a constant", 40)
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        told = {entry.key: entry.value for entry in tensor.external_data}
        raise ArtifactError(
            f"{what}: the data of {name} lies in another file, {shorten(told.get('location', '?'))!r}. It was not "
            "looked for. Save the model as one file: `onnx.save(model, 'model.onnx', save_as_external_data=False)`."
        )
    try:
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        field = onnx.helper.tensor_dtype_to_field(tensor.data_type)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"{what}: {name} is of an unknown type.") from error
    size = math.prod(tensor.dims)
    if any(dim < 0 for dim in tensor.dims) or size > MOST_VALUES or tensor.HasField("segment"):
        refuse(what, f"{name} has the shape {listed(tensor.dims)}")
    if tensor.HasField("raw_data"):
        found, wanted = len(tensor.raw_data), size * kind.itemsize
    else:
        found, wanted = len(getattr(tensor, field)), size
    if found != wanted:
        refuse(what, f"{name} has the shape {listed(tensor.dims)}, and not its data")


def _plain_attributes() -> Sequence[int]:
    from onnx import AttributeProto as Kind

    return (Kind.FLOAT, Kind.INT, Kind.STRING, Kind.TENSOR, Kind.FLOATS, Kind.INTS, Kind.STRINGS)


def _require_single_names(what: str, graph: Any) -> None:
    made = [item.name for item in graph.initializer] + [name for node in graph.node for name in node.output if name]
    initial = {item.name for item in graph.initializer}
    made += [item.name for item in graph.input if item.name not in initial]
    if len(set(made)) != len(made):
        raise ArtifactError(f"{what} is no valid graph: two of its values have one name.")


def _require_bounded(what: str, model: Any) -> None:
    """Check every shape that the graph itself tells, without a row."""
    import math

    import onnx

    undeclared = onnx.ModelProto.FromString(model.SerializeToString())
    del undeclared.graph.value_info[:]  # what the file says of its values would stand in the way of what they are
    for value in undeclared.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(undeclared, data_prop=True)
    except Exception as error:
        raise ArtifactError(f"{what} is no valid graph: {shorten(error, 200)}") from error
    graph = inferred.graph
    for value in (*graph.value_info, *graph.output, *graph.input):
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim if dim.HasField("dim_value")]
        size = math.prod(max(dim, 1) for dim in dims)
        if size > MOST_VALUES or any(dim < 0 for dim in dims):
            raise ArtifactError(
                f"{what}: {shorten(value.name, 40)} would hold {size:,} numbers for every row; {MOST_VALUES:,} are "
                "allowed."
            )


def _widths(what: str, graph: Any) -> dict[str, int]:
    """Return how many columns values have, of those that are matrices of rows with as many as the graph tells.

    Raises:
        ArtifactError: a FeatureVectorizer joins other columns than it is given.
    """
    found: dict[str, int] = {}
    for item in graph.input:
        dims = item.type.tensor_type.shape.dim
        if len(dims) == 2 and dims[1].dim_value > 0:
            found[item.name] = dims[1].dim_value
    for tensor in graph.initializer:
        found.pop(tensor.name, None)
    for node in graph.node:
        inputs = [found.get(name) for name in node.input]
        if node.op_type in _KEEP_WIDTH and inputs and inputs[0]:
            found[node.output[0]] = inputs[0]
        elif node.op_type == "Concat" and all(inputs) and node.attribute[0].i in (1, -1):
            found[node.output[0]] = sum(width for width in inputs if width)
        elif node.op_type == "FeatureVectorizer":
            told = [size for attribute in node.attribute for size in attribute.ints]
            if told != inputs:
                refuse(f"{what} (FeatureVectorizer)", "it does not join the columns that it is given")
            found[node.output[0]] = sum(told)
    return found


def _guard(graph: Any, node: Any, width: int) -> Any:
    """Return an operator that hands on the first columns and fails where there are fewer; `node` reads it then."""
    import onnx

    value, stem = node.input[0], f"nightscore_guard_{len(graph.initializer)}"
    graph.initializer.append(onnx.helper.make_tensor(f"{stem}_columns", onnx.TensorProto.INT64, [width], range(width)))
    node.input[0] = stem
    return onnx.helper.make_node("Gather", [value, f"{stem}_columns"], [stem], axis=1)


def _check_tree_classifier(what: str, attributes: Attributes) -> tuple[int, bool]:
    labels = len(attributes.get("classlabels_strings", ())) or len(attributes.get("classlabels_int64s", ()))
    return _check_trees(what, attributes, "class", labels)


def _check_tree_regressor(what: str, attributes: Attributes) -> tuple[int, bool]:
    return _check_trees(what, attributes, "target", attributes.get("n_targets", 1))


def _check_trees(what: str, attributes: Attributes, leaf: str, outputs: int) -> tuple[int, bool]:
    """Check a tree ensemble; return how many columns it reads."""
    import numpy as np

    tree, node, feature, true, false = (
        _integers(what, attributes, f"nodes_{key}")
        for key in ("treeids", "nodeids", "featureids", "truenodeids", "falsenodeids")
    )
    modes = np.array([mode.decode(errors="replace") for mode in attributes.get("nodes_modes", ())], dtype=object)
    size = len(tree)
    tracks = _integers(what, attributes, "nodes_missing_value_tracks_true")
    hits = _values(attributes, "nodes_hitrates")
    same = [len(node), len(feature), len(true), len(false), len(modes), len(_values(attributes, "nodes_values"))]
    if size == 0 or any(length != size for length in same) or any(n not in (0, size) for n in (len(tracks), hits.size)):
        refuse(what, f"the lists of its {size:,} nodes are of different lengths")
    if not set(modes) <= _MODES:
        refuse(what, "a node compares in an unknown way")
    keys = (tree << 32) | node
    order = np.argsort(keys, kind="stable")
    if len(np.unique(keys)) != size:
        refuse(what, "two nodes of a tree have the same number")
    roots = np.append(0, np.flatnonzero(np.diff(tree)) + 1)
    if len(np.unique(tree)) != len(roots):
        refuse(what, "the nodes of a tree do not stand together")

    def places(trees: Any, nodes: Any) -> Any:
        """Return where nodes stand, -1 of those that do not exist."""
        wanted = (trees << 32) | nodes
        found = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), size - 1)]
        return np.where(keys[found] == wanted, found, -1)

    inner = modes != "LEAF"
    read = int(feature[inner].max(initial=-1)) + 1
    require_trees(
        what,
        Nodes(places(tree, true), places(tree, false), feature, inner, roots),
        max(read, 1),
        DEEPEST_TREE,
    )
    trees, nodes, ids = (_integers(what, attributes, f"{leaf}_{key}") for key in ("treeids", "nodeids", "ids"))
    if not len(trees) == len(nodes) == len(ids) == _values(attributes, f"{leaf}_weights").size:
        refuse(what, "the lists of its leaves are of different lengths")
    if outputs < 1 or (ids >= outputs).any():
        refuse(what, f"a leaf adds to an output that does not exist; there are {outputs:,}")
    at = places(trees, nodes)
    if (at < 0).any() or inner[at].any():
        refuse(what, "the weight of a leaf is of a node that is none")
    if _values(attributes, "base_values").size not in (0, 1, outputs):
        refuse(what, "it has not as many base values as outputs")
    return max(read, 1), False


def _check_linear_classifier(what: str, attributes: Attributes) -> tuple[int, bool]:
    labels = len(attributes.get("classlabels_strings", ())) or len(attributes.get("classlabels_ints", ()))
    rows = len(attributes.get("intercepts", ())) or labels
    if labels < 2 or rows not in (labels, 1 if labels == 2 else labels):
        refuse(what, f"it has {rows:,} intercepts for {labels:,} classes")
    return _divided(what, len(attributes.get("coefficients", ())), rows), True


def _check_linear_regressor(what: str, attributes: Attributes) -> tuple[int, bool]:
    targets = attributes.get("targets", 1)
    if targets < 1 or len(attributes.get("intercepts", ())) not in (0, targets):
        refuse(what, f"it has not as many intercepts as targets, {targets:,}")
    return _divided(what, len(attributes.get("coefficients", ())), targets), True


def _check_svm_classifier(what: str, attributes: Attributes) -> tuple[int, bool]:
    labels = len(attributes.get("classlabels_strings", ())) or len(attributes.get("classlabels_ints", ()))
    each = _integers(what, attributes, "vectors_per_class")
    vectors, pairs = int(each.sum()), labels * (labels - 1) // 2
    if labels < 2 or len(each) != labels or vectors < 1:
        refuse(what, f"it has no support vectors for each of {labels:,} classes")
    if len(attributes.get("coefficients", ())) != (labels - 1) * vectors:
        refuse(what, "it has not as many coefficients as support vectors")
    if any(
        len(attributes.get(key, ())) not in lengths
        for key, lengths in (
            ("rho", (pairs,)),
            ("prob_a", (0, pairs)),
            ("prob_b", (len(attributes.get("prob_a", ())),)),
        )
    ):
        refuse(what, "it has not as many constants as pairs of classes")
    return _svm_columns(what, attributes, vectors), True


def _check_svm_regressor(what: str, attributes: Attributes) -> tuple[int, bool]:
    vectors = attributes.get("n_supports", 0)
    if vectors < 1 or len(attributes.get("coefficients", ())) != vectors or len(attributes.get("rho", ())) != 1:
        refuse(what, "it has not as many coefficients as support vectors")
    return _svm_columns(what, attributes, vectors), True


def _svm_columns(what: str, attributes: Attributes, vectors: int) -> int:
    if len(attributes.get("kernel_params", ())) not in (0, 3):
        refuse(what, "its kernel has not three parameters")
    return _divided(what, len(attributes.get("support_vectors", ())), vectors)


def _divided(what: str, numbers: int, rows: int) -> int:
    if numbers < rows or numbers % rows:
        refuse(what, f"{numbers:,} coefficients are not as many in each of {rows:,} rows")
    return numbers // rows


def _integers(what: str, attributes: Attributes, key: str) -> "np.ndarray[Any, np.dtype[np.int64]]":
    import numpy as np

    found = np.array(attributes.get(key, ()), dtype=np.int64)
    if ((found < 0) | (found >= 2**31)).any():
        refuse(what, f"`{key}` holds numbers that are no indices")
    return found


def _values(attributes: Attributes, key: str) -> "np.ndarray[Any, Any]":
    """Return an attribute's numbers, which may also stand in a tensor."""
    import numpy as np
    import onnx

    if f"{key}_as_tensor" in attributes:
        return onnx.numpy_helper.to_array(attributes[f"{key}_as_tensor"]).reshape(-1)
    return np.array(attributes.get(key, ()), dtype=np.float64)


_CHECKS = {
    "LinearClassifier": _check_linear_classifier,
    "LinearRegressor": _check_linear_regressor,
    "SVMClassifier": _check_svm_classifier,
    "SVMRegressor": _check_svm_regressor,
    "TreeEnsembleClassifier": _check_tree_classifier,
    "TreeEnsembleRegressor": _check_tree_regressor,
}
