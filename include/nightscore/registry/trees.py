"""Decision trees as arrays of nodes: the checks without which a library would read beyond its memory, or never end.

Every library that predicts from trees follows child indices without looking at them. The checks are the same whoever
wrote the nodes: an index is one of a node, no node is reached twice, a split reads a column that there is.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from nightscore.registry.format import ArtifactError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Nodes:
    """The nodes of one tree, or of several whose indices follow one another; int64 arrays of one length.

    Attributes:
        left, right: the index of the node's children; of leaves, anything.
        feature: the column that the node compares; of leaves, anything.
        inner: whether a node has children, bool.
        roots: where the trees begin, ascending, the first at 0.
    """

    left: "np.ndarray[Any, np.dtype[np.int64]]"
    right: "np.ndarray[Any, np.dtype[np.int64]]"
    feature: "np.ndarray[Any, np.dtype[np.int64]]"
    inner: "np.ndarray[Any, np.dtype[np.bool_]]"
    roots: "np.ndarray[Any, np.dtype[np.int64]]"


def require_trees(what: str, nodes: Nodes, columns: int, deepest: int | None = None) -> None:
    """Check that predicting from these nodes reads no memory but theirs, and ends.

    Args:
        what: whose trees they are, in messages.
        nodes: the nodes.
        columns: how many columns the model reads.
        deepest: the most levels, for a library that walks trees by recursion.

    Raises:
        ArtifactError: a child is no node of its tree, a node is reached twice, or a column does not exist.
    """
    import numpy as np

    inner = np.flatnonzero(nodes.inner)
    # Of which tree each node is: an index into another tree is as wrong as one beyond the end.
    ends = np.append(nodes.roots[1:], len(nodes.left))
    tree = np.repeat(np.arange(len(nodes.roots)), ends - nodes.roots)[inner]
    for side, children in (("left", nodes.left[inner]), ("right", nodes.right[inner])):
        wrong = (children <= nodes.roots[tree]) | (children >= ends[tree])
        if wrong.any():
            refuse(what, f"{int(wrong.sum()):,} nodes have a {side} child that is no node below them")
    features = nodes.feature[inner]
    wrong = (features < 0) | (features >= columns)
    if wrong.any():
        refuse(what, f"{int(wrong.sum()):,} nodes compare a column that does not exist; it has {columns:,}")
    # No root is a child and no node is two nodes' child: then no walk from a root comes to a node twice.
    children = np.concatenate([nodes.left[inner], nodes.right[inner]])
    if len(children) and np.bincount(children).max() > 1:
        refuse(what, "a node is the child of two nodes, so that a walk through the tree might never end")
    if deepest is not None:
        _require_depth(what, nodes, deepest)


def _require_depth(what: str, nodes: Nodes, deepest: int) -> None:
    import numpy as np

    level, depth = nodes.roots[nodes.inner[nodes.roots]], 0
    while len(level):
        depth += 1
        if depth > deepest:
            refuse(what, f"a tree is deeper than {deepest:,} levels")
        below = np.concatenate([nodes.left[level], nodes.right[level]])
        level = below[nodes.inner[below]]


def refuse(what: str, found: str) -> NoReturn:
    """Raise the error of malformed trees.

    Raises:
        ArtifactError: always.
    """
    raise ArtifactError(
        f"{what} holds malformed trees: {found}. Nothing of it was run. Save the model again with its library."
    )
