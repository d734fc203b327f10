"""XGBoost models as `save_model("model.json")` writes them.

XGBoost's reader checks little of what a file says of its trees, groups and categories. So the JSON is parsed and
checked here first, and XGBoost is given what was parsed, written anew: there is no second reading of the same bytes
that might differ from the first.
"""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from nightscore.errors import listed, shorten
from nightscore.registry.boosting import (
    MOST_CLASSES,
    MOST_COLUMNS,
    Categories,
    as_numbers,
    coded,
    require_categories,
    require_numbers,
    task_and_labels,
)
from nightscore.registry.format import ArtifactError, UntrustedTypesError
from nightscore.registry.manifest import FormatName, Input, MissingText, Task
from nightscore.registry.signature import Shape
from nightscore.registry.trees import Nodes, refuse, require_trees

if TYPE_CHECKING:
    import numpy as np

FORMAT: FormatName = "xgboost"
FILE = "model.json"
LIBRARIES = ("numpy", "xgboost")
EXTRA: Final[str | None] = "xgboost"
TOLERANCE = 1e-6  # XGBoost predicts in single precision

HOW_TO_SAVE = "Write it with `model.save_model('model.json')`; the suffix decides the format."

# Objective → whether it tells classes apart.
OBJECTIVES = {
    "binary:logistic": True,
    "multi:softprob": True,
    "count:poisson": False,
    "reg:absoluteerror": False,
    "reg:gamma": False,
    "reg:linear": False,
    "reg:logistic": False,
    "reg:pseudohubererror": False,
    "reg:quantileerror": False,
    "reg:squarederror": False,
    "reg:squaredlogerror": False,
    "reg:tweedie": False,
}
_ADVICE = (
    "It reads one of {} with one output; for probabilities of several classes that is multi:softprob. Fit it with one "
    "of them"
)
_NO_PARENT = 2**31 - 1
_LARGEST_CATEGORY = 2**24
_DEEPEST_JSON = 32
_BASE_SCORE = re.compile(r"\[?[-+0-9.eE]{1,40}(,[-+0-9.eE]{1,40})*\]?", re.ASCII)


@dataclass(frozen=True)
class _Parsed:
    """A file that was checked: the document, and what scoring needs of it."""

    document: Mapping[str, Any]
    objective: str
    outputs: int
    columns: int
    rounds: int
    names: tuple[str, ...]
    types: tuple[str, ...]
    categories: tuple[tuple[Any, ...], ...]


def looks_like(data: bytes) -> bool:
    """Return whether a file is a JSON object, or one of XGBoost's binary formats, which are then refused by name."""
    return data[:64].lstrip()[:1] == b"{" or data[:4] in (b"binf", b"bs64")


def describe(what: str, data: bytes) -> tuple[str, ...]:
    """Return the booster and the objective of a file that was parsed and checked as a whole.

    Raises:
        ArtifactError: it is malformed, or its trees are.
    """
    learner = _mapping(what, _read(what, data), "learner")
    booster = _word(what, _mapping(what, learner, "gradient_booster"), "name")
    objective = _word(what, _mapping(what, learner, "objective"), "name")
    if booster in ("gbtree", "dart") and objective in OBJECTIVES:
        _parse(what, data)
    return booster, objective


def audit(what: str, types: Sequence[str]) -> None:
    """Check that booster and objective are on our lists.

    Raises:
        UntrustedTypesError: one is not.
    """
    allowed = {"gbtree", "dart", *OBJECTIVES}
    refused = [name for name in types if name not in allowed]
    if refused:
        known = listed(["gbtree", "dart", *OBJECTIVES], most=20)
        raise UntrustedTypesError(what, refused, "use a booster or an objective", _ADVICE.format(known))


def construct(what: str, data: bytes) -> Any:
    """Create the booster from a checked file; return it with what was parsed.

    Raises:
        ArtifactError: the file is malformed, or XGBoost cannot read it.
    """
    import xgboost

    parsed = _parse(what, data)
    try:
        booster = xgboost.Booster()
        booster.load_model(bytearray(json.dumps(parsed.document, allow_nan=False).encode()))
        booster.set_param({"nthread": 1})
    except Exception as error:
        raise ArtifactError(f"{what} cannot be loaded here: {shorten(error, 400)}") from error
    return booster, parsed


@dataclass
class XGBoostModel:
    """An XGBoost booster as scoring needs it."""

    what: str
    booster: Any
    parsed: _Parsed
    task: Task
    classes: tuple[str, ...]
    _categories: Categories | None = field(default=None)

    @property
    def kind(self) -> str:
        """Its objective."""
        return f"Booster({self.parsed.objective})"

    @property
    def names(self) -> tuple[str, ...] | None:
        """The columns that it was fitted on, if it was fitted on a DataFrame."""
        return self.parsed.names or None

    @property
    def count(self) -> int | None:
        """How many columns it was fitted on."""
        return self.parsed.columns

    @property
    def missing_text(self) -> MissingText:
        """A NULL is NaN."""
        return "nan"

    @property
    def is_reproducible(self) -> bool:
        """Trees are summed row by row."""
        return True

    def prepare(self, inputs: Sequence[Input], *, named: bool) -> Shape:  # noqa: ARG002 - names are checked by now
        """Compare the categories of the sample with those of the file.

        Raises:
            SampleError: they are others.
        """
        self._compare(inputs)
        return "frame" if self._categories else "matrix"

    def predict(self, features: Any) -> "np.ndarray[Any, np.dtype[np.float64]]":
        """Return probabilities, or a regressor's values.

        Raises:
            UnknownCategoryError: a row has a category that it was not fitted on.
        """
        import numpy as np

        if len(features) == 0:
            return np.empty((0, len(self.classes)) if self.classes else 0)
        if self._categories:
            features = coded(features, self._categories, unknown="refused")
        elif not isinstance(features, np.ndarray):
            features = as_numbers(features)
        found = self.booster.inplace_predict(
            features, iteration_range=(0, self.parsed.rounds), missing=np.nan, validate_features=False
        )
        found = np.asarray(found, dtype=np.float64)
        return np.column_stack([1 - found, found]) if self.task == "binary" else found

    def _compare(self, inputs: Sequence[Input]) -> None:
        require_numbers(self.what, inputs)
        known = {
            item.name: list(values)
            for item, values, kind in zip(inputs, self.parsed.categories, self.parsed.types, strict=False)
            if kind == "c" and values
        }
        if known or any(item.type.startswith("category") for item in inputs):
            require_categories(self.what, inputs, known, known=bool(known))
        self._categories = known


def fitted(what: str, constructed: Any, classes: Sequence[str] = ()) -> XGBoostModel:
    """Return a constructed booster as what scoring needs; its file holds no labels.

    Raises:
        ArtifactError: other labels were named than it can have.
    """
    booster, parsed = constructed
    outputs = max(parsed.outputs, 2) if OBJECTIVES[parsed.objective] else None
    return XGBoostModel(what, booster, parsed, *task_and_labels(what, outputs, classes))


def _read(what: str, data: bytes) -> Mapping[str, Any]:
    """Return the JSON object of a file.

    Raises:
        ArtifactError: it is none; names XGBoost's binary formats.
    """
    if data[:4] in (b"binf", b"bs64") or (data[:1] == b"{" and data[1:2] in b"LlIiU" and data[1:2]):
        raise ArtifactError(f"{what} is one of XGBoost's binary formats; nightscore reads its JSON. {HOW_TO_SAVE}")
    _require_shallow(what, data)
    try:
        document = json.loads(data, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{what} is no readable JSON: {shorten(error)}. {HOW_TO_SAVE}") from error
    if not isinstance(document, dict):
        raise ArtifactError(f"{what} is JSON, but no XGBoost model. {HOW_TO_SAVE}")
    return document


def _require_shallow(what: str, data: bytes) -> None:
    """Check the nesting before a parser walks it by recursion; brackets within texts count too, which is harmless."""
    import numpy as np

    depth, step = 0, 2**24
    for start in range(0, len(data), step):
        part = np.frombuffer(data, dtype=np.uint8, count=min(step, len(data) - start), offset=start)
        opening = (part == 0x5B) | (part == 0x7B)
        closing = (part == 0x5D) | (part == 0x7D)
        marks = opening[opening | closing].astype(np.int64) * 2 - 1
        depths = depth + np.cumsum(marks)
        if len(depths):
            if depths.max() > _DEEPEST_JSON:
                raise ArtifactError(f"{what} is JSON nested deeper than an XGBoost model is. {HOW_TO_SAVE}")
            depth = int(depths[-1])


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _parse(what: str, data: bytes) -> _Parsed:
    """Parse and check a file.

    Raises:
        ArtifactError: it is malformed.
    """
    document = _read(what, data)
    learner = _mapping(what, document, "learner")
    parameters = _mapping(what, learner, "learner_model_param")
    columns = _number(what, parameters, "num_feature", 1, MOST_COLUMNS)
    classes = _number(what, parameters, "num_class", 0, MOST_CLASSES)
    if _number(what, parameters, "num_target", 1, MOST_CLASSES, default=1) != 1:
        raise ArtifactError(f"{what} predicts several targets; nightscore scores models with one.")
    objective = _mapping(what, learner, "objective")
    name = _word(what, objective, "name")
    if (name == "multi:softprob") != (classes > 1):
        refuse(what, f"the objective {shorten(name, 40)} is not of {classes:,} classes")
    if name == "multi:softprob":
        told = _number(what, _mapping(what, objective, "softmax_multiclass_param"), "num_class", 2, MOST_CLASSES)
        if told != classes:
            refuse(what, f"the objective is of {told:,} classes, and the model of {classes:,}")
    groups = max(classes, 1)
    base = parameters.get("base_score")
    if not isinstance(base, str) or not _BASE_SCORE.fullmatch(base) or base.count(",") + 1 not in (1, groups):
        refuse(what, "`base_score` is not one number, nor one for every class")
    booster, rounds = _check_booster(what, _mapping(what, learner, "gradient_booster"), columns, groups)
    names, types = (_texts(what, learner, key, columns) for key in ("feature_names", "feature_types"))
    if len(set(names)) != len(names):
        refuse(what, "two columns have the same name")
    return _Parsed(
        document=document,
        objective=name,
        outputs=groups,
        columns=columns,
        rounds=_best(what, learner, rounds),
        names=names,
        types=tuple("c" if kind == "categorical" else kind for kind in types) or ("float",) * columns,
        categories=_categories(what, booster, columns),
    )


def _check_booster(what: str, booster: Mapping[str, Any], columns: int, groups: int) -> tuple[Mapping[str, Any], int]:
    """Return the trees' part of the document, and the number of rounds."""
    weights = []
    if _word(what, booster, "name") == "dart":
        weights.append(_numbers(what, booster, "weight_drop"))
        booster = _mapping(what, booster, "gbtree")
        if _word(what, booster, "name") != "gbtree":
            refuse(what, "the booster within dart is no gbtree")
    model = _mapping(what, booster, "model")
    parameters = _mapping(what, model, "gbtree_model_param")
    trees, groups_of = _list(what, model, "trees"), _integers(what, model, "tree_info")
    count = _number(what, parameters, "num_trees", 1, 10**7)
    if "weight_drop" in model:  # where XGBoost 3.4 keeps it
        weights.append(_numbers(what, model, "weight_drop"))
    if len(trees) != count or len(groups_of) != count or any(len(weight) != count for weight in weights):
        refuse(what, f"it says that it has {count:,} trees, and has {len(trees):,}")
    if ((groups_of < 0) | (groups_of >= groups)).any():
        refuse(what, f"a tree adds to an output that does not exist; there are {groups:,}")
    parallel = _number(what, parameters, "num_parallel_tree", 0, 10**6, default=1) or 1
    rounds = _check_rounds(what, model, count, groups * parallel)
    for number, tree in enumerate(trees):
        if not isinstance(tree, dict):
            refuse(what, f"tree {number:,} is none")
        _check_tree(f"{what} (tree {number:,})", number, tree, columns)
    return model, rounds


def _check_rounds(what: str, model: Mapping[str, Any], trees: int, each: int) -> int:
    """Return how many rounds of boosting there are."""
    import numpy as np

    if "iteration_indptr" not in model:  # files of XGBoost 1
        if trees % each:
            refuse(what, f"{trees:,} trees are not as many in each round, {each:,}")
        return trees // each
    bounds = _integers(what, model, "iteration_indptr")
    if len(bounds) < 2 or bounds[0] != 0 or bounds[-1] != trees or (np.diff(bounds) <= 0).any():
        refuse(what, "`iteration_indptr` does not divide its trees")
    return len(bounds) - 1


def _check_tree(what: str, number: int, tree: Mapping[str, Any], columns: int) -> None:
    import numpy as np

    parameters = _mapping(what, tree, "tree_param")
    size = _number(what, parameters, "num_nodes", 1, 2**31 - 2)
    if _number(what, parameters, "num_feature", 0, MOST_COLUMNS) not in (0, columns):
        refuse(what, "it is of another number of columns than the model")
    if _number(what, parameters, "size_leaf_vector", 0, MOST_CLASSES, default=1) > 1:
        raise ArtifactError(f"{what} has vectors for leaves; fit it with `multi_strategy='one_output_per_tree'`.")
    _number(what, parameters, "num_deleted", 0, size)
    if tree.get("id", number) != number:
        refuse(what, "its number is another one")
    arrays = {key: _integers(what, tree, key) for key in ("left_children", "right_children", "parents")}
    features = _integers(what, tree, "split_indices")
    kinds = _integers(what, tree, "split_type") if "split_type" in tree else np.zeros(size, dtype=np.int64)
    arrays |= {"split_indices": features, "split_type": kinds, "default_left": _integers(what, tree, "default_left")}
    told = {key: _numbers(what, tree, key) for key in ("split_conditions", "base_weights", "loss_changes")}
    told["sum_hessian"] = _numbers(what, tree, "sum_hessian")
    for key, values in (arrays | told).items():
        if len(values) != size:
            refuse(what, f"`{key}` has {len(values):,} values, and the tree {size:,} nodes")
    left, right = arrays["left_children"], arrays["right_children"]
    inner = left != -1
    if ((right != -1) != inner).any():
        refuse(what, "a node has one child only")
    if ((kinds < 0) | (kinds > 1)).any() or ((arrays["default_left"] < 0) | (arrays["default_left"] > 1)).any():
        refuse(what, "a node splits in an unknown way")
    require_trees(what, Nodes(left, right, features, inner, np.zeros(1, dtype=np.int64)), columns)
    parents = np.full(size, _NO_PARENT)
    above = np.flatnonzero(inner)
    parents[left[above]] = above
    parents[right[above]] = above
    reached = np.append(left[above], right[above])
    if arrays["parents"][0] not in (_NO_PARENT, -1) or (arrays["parents"][reached] != parents[reached]).any():
        refuse(what, "`parents` are not the nodes' parents")
    _check_split_categories(what, tree, (kinds == 1) & inner)


def _check_split_categories(what: str, tree: Mapping[str, Any], categorical: Any) -> None:
    import numpy as np

    keys = ("categories", "categories_nodes", "categories_segments", "categories_sizes")
    if not any(key in tree for key in keys) and not categorical.any():
        return
    values, nodes, starts, sizes = (_integers(what, tree, key) for key in keys)
    if ((values < 0) | (values >= _LARGEST_CATEGORY)).any():
        refuse(what, "a categorical split has a category that XGBoost does not know")
    if len(starts) != len(nodes) or len(sizes) != len(nodes) or not np.array_equal(nodes, np.flatnonzero(categorical)):
        refuse(what, "its categorical splits are not those that have categories")
    expected = np.cumsum(sizes) - sizes
    if (sizes <= 0).any() or not np.array_equal(starts, expected) or int(sizes.sum()) != len(values):
        refuse(what, "the categories are not divided among its splits")


def _categories(what: str, model: Mapping[str, Any], columns: int) -> tuple[tuple[Any, ...], ...]:
    """Return every column's categories, in the order of their numbers; of numbers, none."""
    import numpy as np

    if "cats" not in model:  # files of XGBoost before 3.1
        return ()
    told = _mapping(what, model, "cats")
    encoded = _list(what, told, "enc")
    if len(encoded) not in (0, columns):
        refuse(what, "`cats` are of another number of columns")
    found = tuple(tuple(_column_categories(what, column)) for column in encoded)
    sizes = np.array([len(values) for values in found], dtype=np.int64)
    bounds, order = _integers(what, told, "feature_segments"), _integers(what, told, "sorted_idx")
    if len(bounds) and not np.array_equal(bounds, np.append(0, np.cumsum(sizes))):
        refuse(what, "`feature_segments` do not divide its categories")
    if len(order) != sizes.sum() or ((order < 0) | (order >= np.repeat(sizes, sizes))).any():
        refuse(what, "`sorted_idx` is no order of its categories")
    return found


def _column_categories(what: str, column: Any) -> list[Any]:
    if not isinstance(column, dict):
        refuse(what, "the categories of a column are no object")
    values = _integers(what, column, "values")
    if "offsets" not in column:
        return [int(value) for value in values]
    bounds = _integers(what, column, "offsets")
    if not len(bounds):
        return []
    if bounds[0] != 0 or bounds[-1] != len(values) or (bounds[1:] < bounds[:-1]).any():
        refuse(what, "the offsets of a column's categories are not within them")
    if ((values < -128) | (values > 255)).any():
        refuse(what, "the categories of a column are no text")
    text = bytes(int(value) & 0xFF for value in values)
    try:
        return [text[start:end].decode() for start, end in itertools.pairwise(bounds.tolist())]
    except UnicodeDecodeError:
        refuse(what, "the categories of a column are no text")


def _best(what: str, learner: Mapping[str, Any], rounds: int) -> int:
    """Return how many rounds predict: up to the best one where fitting stopped early, as XGBoost's estimators do."""
    attributes = _mapping(what, learner, "attributes") if "attributes" in learner else {}
    best = attributes.get("best_iteration")
    if best is None:
        return rounds
    if not isinstance(best, str) or not re.fullmatch(r"\d{1,9}", best, re.ASCII) or int(best) >= rounds:
        refuse(what, f"`best_iteration` is {shorten(best, 20)!r}, of {rounds:,} rounds")
    return int(best) + 1


def _mapping(what: str, within: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = within.get(key)
    if not isinstance(found, dict):
        raise ArtifactError(f"{what} is no XGBoost model, or a part of one: there is no object `{key}`. {HOW_TO_SAVE}")
    return found


def _list(what: str, within: Mapping[str, Any], key: str) -> list[Any]:
    found = within.get(key)
    if not isinstance(found, list):
        refuse(what, f"`{key}` is no list")
    return found


def _word(what: str, within: Mapping[str, Any], key: str) -> str:
    found = within.get(key)
    if not isinstance(found, str):
        refuse(what, f"`{key}` is no text")
    return found


def _texts(what: str, within: Mapping[str, Any], key: str, count: int) -> tuple[str, ...]:
    found = within.get(key, [])
    if not isinstance(found, list) or len(found) not in (0, count) or not all(isinstance(item, str) for item in found):
        refuse(what, f"`{key}` does not name {count:,} columns")
    return tuple(found)


def _number(what: str, within: Mapping[str, Any], key: str, least: int, most: int, default: int | None = None) -> int:
    """Return an integer, which XGBoost writes as text."""
    found = within.get(key, default if default is None else str(default))
    if not isinstance(found, str) or not re.fullmatch(r"\d{1,10}", found, re.ASCII) or not least <= int(found) <= most:
        refuse(what, f"`{key}` is {shorten(found, 40)!r}, and not a number from {least:,} to {most:,}")
    return int(found)


def _integers(what: str, within: Mapping[str, Any], key: str) -> "np.ndarray[Any, np.dtype[np.int64]]":
    import numpy as np

    found = _list(what, within, key)
    if not all(type(value) in (int, bool) and -(2**31) <= value < 2**32 for value in found):
        refuse(what, f"`{key}` holds something else than integers of 32 bits")
    return np.array(found, dtype=np.int64)


def _numbers(what: str, within: Mapping[str, Any], key: str) -> "np.ndarray[Any, np.dtype[np.float64]]":
    import numpy as np

    found = _list(what, within, key)
    if not all(type(value) in (int, float) for value in found):
        refuse(what, f"`{key}` holds something else than numbers")
    try:
        numbers = np.array(found, dtype=np.float64)
    except OverflowError:
        refuse(what, f"`{key}` holds numbers that are not finite")
    if not (np.abs(numbers) <= np.finfo(np.float32).max).all():
        refuse(what, f"`{key}` holds numbers that are not finite in single precision")
    return numbers
