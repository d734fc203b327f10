"""LightGBM boosters as `Booster.save_model` writes them: a text of `key=value` lines.

LightGBM's own parser trusts every number in it: sizes, offsets, indices of children, columns and classes. So the text
is parsed here first, strictly, and LightGBM is given only what was checked: the head and the trees, without the
parameters of its training, which name files.
"""

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

FORMAT: FormatName = "lightgbm"
FILE = "model.txt"
LIBRARIES = ("lightgbm", "numpy")
EXTRA: Final[str | None] = "lightgbm"
TOLERANCE = 1e-12

HOW_TO_SAVE = "Write it with `booster.save_model('model.txt')`; of an LGBMClassifier, the booster is `model.booster_`."

# Objective → whether it tells classes apart.
OBJECTIVES = {
    "binary": True,
    "multiclass": True,
    "multiclassova": True,
    "cross_entropy": False,
    "fair": False,
    "gamma": False,
    "huber": False,
    "mape": False,
    "poisson": False,
    "quantile": False,
    "regression": False,
    "regression_l1": False,
    "tweedie": False,
}

_HEAD = {
    "version",
    "num_class",
    "num_tree_per_iteration",
    "label_index",
    "max_feature_idx",
    "objective",
    "average_output",
    "feature_names",
    "monotone_constraints",
    "feature_infos",
    "tree_sizes",
}
_INNER = ("split_feature", "split_gain", "threshold", "decision_type", "left_child", "right_child")
_INNER_TOLD = ("internal_value", "internal_weight", "internal_count")
_LEAVES_TOLD = ("leaf_weight", "leaf_count")
_TREE = {
    "num_leaves",
    "num_cat",
    "leaf_value",
    "cat_boundaries",
    "cat_threshold",
    "is_linear",
    "shrinkage",
    *_INNER,
    *_INNER_TOLD,
    *_LEAVES_TOLD,
}
_INTEGERS = re.compile(r"(-?\d{1,10}( -?\d{1,10})*)?", re.ASCII)
_NUMBER = r"[-+]?(\d{1,40}(\.\d{0,60})?(e[-+]?\d{1,4})?|inf|nan)"
_NUMBERS = re.compile(rf"({_NUMBER}( {_NUMBER})*)?", re.ASCII)
_OBJECTIVE = re.compile(r"[a-z_0-9]+( sqrt| [a-z_]+:[-+0-9.e]{1,40})*", re.ASCII)
_UNNAMED = re.compile(r"Column_\d+")


@dataclass(frozen=True)
class _Parsed:
    """A text that was checked: its head's keys, its trees, and what pandas called its categories."""

    head: Mapping[str, str]
    text: str
    categories: list[list[Any]]

    @property
    def objective(self) -> str:
        return self.head.get("objective", "").split(" ")[0]

    @property
    def names(self) -> list[str]:
        return self.head["feature_names"].split(" ")


def looks_like(data: bytes) -> bool:
    """Return whether a file begins as LightGBM's texts do."""
    return data[:5] == b"tree\n"


def describe(what: str, data: bytes) -> tuple[str, ...]:
    """Return the objective, which decides what becomes of the trees' sums, of a text that was parsed as a whole.

    Raises:
        ArtifactError: the text is malformed, or its trees are.
    """
    parsed = _parse(what, data)
    return (parsed.objective or "custom",)


def audit(what: str, types: Sequence[str]) -> None:
    """Check that the objective is on our list.

    Raises:
        UntrustedTypesError: it is not.
    """
    refused = [name for name in types if name not in OBJECTIVES]
    if refused:
        raise UntrustedTypesError(
            what, refused, "use an objective", f"Objectives that it knows: {listed(OBJECTIVES, most=20)}. Beyond them"
        )


def construct(what: str, data: bytes) -> Any:
    """Create the booster from a checked text; return it with what was parsed.

    Raises:
        ArtifactError: the text is malformed, or LightGBM cannot read it.
    """
    import lightgbm

    parsed = _parse(what, data)
    try:
        return lightgbm.Booster(model_str=parsed.text), parsed
    except Exception as error:
        raise ArtifactError(f"{what} cannot be loaded here: {shorten(error, 400)}") from error


@dataclass
class LightGBMModel:
    """A LightGBM booster as scoring needs it."""

    what: str
    booster: Any
    parsed: _Parsed
    task: Task
    classes: tuple[str, ...]
    _categories: Categories = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """Its objective."""
        return f"Booster({self.parsed.objective})"

    @property
    def names(self) -> tuple[str, ...] | None:
        """The columns that it was fitted on, if it was fitted on a DataFrame."""
        names = tuple(self.parsed.names)
        return None if all(_UNNAMED.fullmatch(name) for name in names) else names

    @property
    def count(self) -> int | None:
        """How many columns it was fitted on."""
        return len(self.parsed.names)

    @property
    def missing_text(self) -> MissingText:
        """A NULL is NaN."""
        return "nan"

    @property
    def is_reproducible(self) -> bool:
        """Trees are summed row by row."""
        return True

    def prepare(self, inputs: Sequence[Input], *, named: bool) -> Shape:  # noqa: ARG002 - names are checked by now
        """Learn which columns are categories.

        Raises:
            SampleError: they are not those of the file.
        """
        require_numbers(self.what, inputs)
        columns = [item.name for item in inputs if item.type.startswith("category")]
        # The file holds the categories in the order of the columns, and not whose they are.
        names = [*columns, *(f"category {n + 1} of the file" for n in range(len(columns), len(self.parsed.categories)))]
        self._categories = dict(zip(names, self.parsed.categories, strict=False))
        require_categories(self.what, inputs, self._categories, known=bool(self.parsed.categories))
        return "frame" if columns else "matrix"

    def predict(self, features: Any) -> "np.ndarray[Any, np.dtype[np.float64]]":
        """Return probabilities, or a regressor's values."""
        import numpy as np

        rows = len(features)
        if rows == 0:
            return np.empty((0, len(self.classes)) if self.classes else 0)
        if self._categories:
            features = coded(features, self._categories, unknown="missing")
        elif not isinstance(features, np.ndarray):
            features = as_numbers(features)
        found = np.asarray(self.booster.predict(features, num_threads=1), dtype=np.float64)
        return np.column_stack([1 - found, found]) if self.task == "binary" else found


def fitted(what: str, constructed: Any, classes: Sequence[str] = ()) -> LightGBMModel:
    """Return a constructed booster as what scoring needs; its file holds no labels.

    Raises:
        ArtifactError: other labels were named than it can have.
    """
    booster, parsed = constructed
    outputs = None
    if OBJECTIVES[parsed.objective]:
        outputs = max(int(parsed.head["num_class"]), 2)
    return LightGBMModel(what, booster, parsed, *task_and_labels(what, outputs, classes))


def _parse(what: str, data: bytes) -> _Parsed:
    """Parse and check a text.

    Raises:
        ArtifactError: it is malformed.
    """
    if not looks_like(data):
        raise ArtifactError(f"{what} is not a LightGBM model. {HOW_TO_SAVE}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{what} is no text, as a LightGBM model is. {HOW_TO_SAVE}") from error
    first = text.find("\n\n")
    head = _lines(what, text[len("tree\n") : first + 1], _HEAD) if first > 0 else {}
    sizes = _integers(what, "tree_sizes", head.get("tree_sizes", ""))
    columns = _check_head(what, head, len(sizes))
    end = text.find("\nend of trees\n", first + 1 if len(sizes) else first)
    if end < 0:
        raise ArtifactError(f"{what} was cut off: the line `end of trees` is missing. {HOW_TO_SAVE}")
    blocks = text[first + 2 : end + 1].encode()
    if int(sizes.sum()) != len(blocks) or (sizes <= 0).any():
        refuse(what, "`tree_sizes` are not the sizes of its trees")
    start = 0
    for number, size in enumerate(sizes.tolist()):
        _check_tree(what, number, blocks[start : start + size].decode(), columns)
        start += size
    categories = _pandas_categories(what, text[end:])
    checked = f"{text[: end + 1]}end of trees\n\npandas_categorical:{json.dumps(categories or None)}\n"
    return _Parsed(head, checked, categories)


def _lines(what: str, block: str, allowed: set[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in block.strip("\n").split("\n"):
        key, _, value = line.partition("=")
        if key not in allowed:
            hint = " Linear trees are not supported." if key == "leaf_const" else ""
            refuse(what, f"the key {shorten(key, 40)!r} is not one of LightGBM's{hint}")
        if key in found:
            refuse(what, f"the key {key!r} stands twice in one place")
        found[key] = value.strip(" ")
    return found


def _check_head(what: str, head: Mapping[str, str], trees: int) -> int:
    """Return how many columns the model reads."""
    missing = _HEAD - {"objective", "average_output", "monotone_constraints"} - set(head)
    if missing:
        raise ArtifactError(f"{what} was cut off, or is no LightGBM model: it has no {listed(sorted(missing))}.")
    if head["version"] not in ("v3", "v4"):
        raise ArtifactError(
            f"{what} has the version {shorten(head['version'], 20)} of LightGBM's text; v3 and v4 are read. Save it "
            "with LightGBM 3 or 4."
        )
    columns = _integer(what, "max_feature_idx", head["max_feature_idx"]) + 1
    if not 1 <= columns <= MOST_COLUMNS:
        refuse(what, f"it reads {columns:,} columns")
    for key in ("feature_names", "feature_infos"):
        if len(head[key].split(" ")) != columns:
            refuse(what, f"`{key}` does not name {columns:,} columns")
    if len(set(head["feature_names"].split(" "))) != columns:
        refuse(what, "two columns have the same name")
    outputs = _integer(what, "num_class", head["num_class"])
    each = _integer(what, "num_tree_per_iteration", head["num_tree_per_iteration"])
    if not 1 <= outputs <= MOST_CLASSES or each != outputs:
        refuse(what, f"it has {outputs:,} classes, and {each:,} trees per iteration")
    if trees == 0 or trees % each:
        refuse(what, f"{trees:,} trees are not as many in each iteration, {each:,}")
    _check_objective(what, head.get("objective", ""), outputs)
    return columns


def _check_objective(what: str, objective: str, outputs: int) -> None:
    if not objective:
        return  # a custom one, which the audit refuses
    if not _OBJECTIVE.fullmatch(objective):
        refuse(what, f"the objective {shorten(objective, 60)!r} is not one of LightGBM's")
    name, *rest = objective.split(" ")
    if name in ("multiclass", "multiclassova"):
        # LightGBM writes as many probabilities as the objective says into room for as many as the head says.
        if [word for word in rest if word.startswith("num_class:")] != [f"num_class:{outputs}"] or outputs < 2:
            refuse(what, f"the objective {shorten(objective, 60)!r} is not of {outputs:,} classes")
    elif outputs != 1:
        refuse(what, f"the objective {name!r} has one output, and the trees {outputs:,}")


def _check_tree(what: str, number: int, block: str, columns: int) -> None:
    import numpy as np

    if not block.startswith(f"Tree={number}\n") or not block.endswith("\n\n"):
        refuse(what, f"tree {number:,} is not where `tree_sizes` says")
    keys = _lines(what, block.partition("\n")[2], _TREE)
    missing = {"num_leaves", "num_cat", "leaf_value", *_INNER} - set(keys)
    if missing:
        refuse(what, f"tree {number:,} has no {listed(sorted(missing))}")
    if keys.get("is_linear", "0") != "0":
        refuse(what, f"tree {number:,} is a linear one, which is not supported")
    leaves = _integer(what, "num_leaves", keys["num_leaves"])
    if leaves < 1:
        refuse(what, f"tree {number:,} has {leaves:,} leaves")
    _check_lengths(what, number, keys, leaves)
    for name in ("split_gain", "shrinkage", *_INNER_TOLD, *_LEAVES_TOLD):
        _numbers(what, name, keys.get(name, ""))
    values, threshold = _numbers(what, "leaf_value", keys["leaf_value"]), _numbers(what, "threshold", keys["threshold"])
    if not np.isfinite(values).all() or not np.isfinite(threshold).all():
        refuse(what, f"tree {number:,} holds numbers that are not finite")
    kinds = _integers(what, "decision_type", keys["decision_type"])
    if ((kinds < 0) | (kinds > 15) | (kinds >> 2 & 3 == 3)).any():
        refuse(what, f"tree {number:,} has decisions of an unknown type")
    _check_categories(what, number, keys, threshold[kinds & 1 == 1])
    nodes = [_integers(what, name, keys[name]) for name in ("left_child", "right_child", "split_feature")]
    require_trees(f"{what} (tree {number:,})", _nodes(what, leaves, *nodes), columns)


def _check_lengths(what: str, number: int, keys: Mapping[str, str], leaves: int) -> None:
    for names, size in (((*_INNER, *_INNER_TOLD), leaves - 1), (("leaf_value", *_LEAVES_TOLD), leaves)):
        for name in names:
            told = keys.get(name)
            # Of a tree that is one leaf, LightGBM leaves out the leaf's weight.
            if told is not None and _count(told) != size and (told or leaves > 1):
                refuse(what, f"`{name}` of tree {number:,} has {_count(told):,} values, not {size:,}")


def _check_categories(what: str, number: int, keys: Mapping[str, str], split: Any) -> None:
    """Check what categorical splits refer to: their threshold is an index into bitsets."""
    import numpy as np

    count = _integer(what, "num_cat", keys["num_cat"])
    bounds = _integers(what, "cat_boundaries", keys.get("cat_boundaries", ""))
    words = _integers(what, "cat_threshold", keys.get("cat_threshold", ""))
    if count < 0 or len(bounds) != (count + 1 if count else 0):
        refuse(what, f"tree {number:,} has {count:,} categorical splits, and bounds for {len(bounds):,}")
    if count and (bounds[0] != 0 or (np.diff(bounds) <= 0).any() or bounds[-1] != len(words)):
        refuse(what, f"the bounds of tree {number:,}'s categories are not those of its bits")
    if not count and len(words):
        refuse(what, f"tree {number:,} has bits of categories, and no categorical split")
    if ((words < 0) | (words >= 2**32)).any():
        refuse(what, f"tree {number:,} has bits of categories beyond 32")
    if ((split < 0) | (split >= count) | (split != np.floor(split))).any():
        refuse(what, f"tree {number:,} has a categorical split without its categories")


def _nodes(what: str, leaves: int, left: Any, right: Any, feature: Any) -> Nodes:
    """Return a tree's nodes, in which LightGBM calls leaf n the child -n - 1, as nodes of one numbering."""
    import numpy as np

    def renumbered(children: Any) -> Any:
        if (children < -leaves).any():
            refuse(what, "a node has a leaf that does not exist")
        return np.where(children < 0, leaves - 2 - children, children)

    if leaves > 1 and ((left >= leaves - 1) | (right >= leaves - 1)).any():
        refuse(what, "a node has a child that does not exist")
    nothing = np.zeros(leaves, dtype=np.int64)
    return Nodes(
        left=np.append(renumbered(left), nothing),
        right=np.append(renumbered(right), nothing),
        feature=np.append(feature, nothing),
        inner=np.arange(2 * leaves - 1) < leaves - 1,
        roots=np.zeros(1, dtype=np.int64),
    )


def _pandas_categories(what: str, tail: str) -> list[list[Any]]:
    """Return what follows `pandas_categorical:`, a list of lists of names or numbers; empty where there is none."""
    _, found, told = tail.rpartition("\npandas_categorical:")
    if not found:
        return []
    try:
        categories = json.loads(told)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{what} has unreadable `pandas_categorical`: {shorten(error)}") from error
    if categories is None:
        return []
    if not isinstance(categories, list) or not all(
        isinstance(values, list) and all(isinstance(value, (str, int, float)) for value in values)
        for values in categories
    ):
        raise ArtifactError(f"{what} has `pandas_categorical` that are no lists of names or numbers.")
    return categories


def _count(told: str) -> int:
    return told.count(" ") + 1 if told else 0


def _integer(what: str, key: str, told: str) -> int:
    found = _integers(what, key, told)
    if len(found) != 1 or abs(int(found[0])) >= 2**31:
        refuse(what, f"`{key}` is {shorten(told, 40)!r}, and not one number below 2^31")
    return int(found[0])


def _integers(what: str, key: str, told: str) -> "np.ndarray[Any, np.dtype[np.int64]]":
    import numpy as np

    if not _INTEGERS.fullmatch(told):
        refuse(what, f"`{key}` holds something else than integers")
    return np.fromstring(told, dtype=np.int64, sep=" ") if told else np.empty(0, dtype=np.int64)


def _numbers(what: str, key: str, told: str) -> "np.ndarray[Any, np.dtype[np.float64]]":
    import numpy as np

    if not _NUMBERS.fullmatch(told):
        refuse(what, f"`{key}` holds something else than numbers")
    return np.fromstring(told, dtype=np.float64, sep=" ") if told else np.empty(0)
