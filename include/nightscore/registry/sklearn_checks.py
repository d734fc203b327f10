"""What must hold of a constructed scikit-learn estimator whose compiled code trusts its arrays.

Most estimators predict with NumPy, which looks at shapes. These do not: trees, histogram boosting, support vectors,
neighbours, splines and sparse matrices.
"""

from collections.abc import Callable, Iterator
from typing import Any

from nightscore.errors import shorten
from nightscore.registry.format import ArtifactError
from nightscore.registry.trees import Nodes, refuse, require_trees


def require_sound(what: str, estimator: Any) -> None:
    """Check every part of an estimator that compiled code would trust.

    Raises:
        ArtifactError: an index or a shape leads beyond memory.
    """
    try:
        for part in iter_objects(estimator):
            for kind, check in _checks():
                if isinstance(part, kind):
                    check(what, part)
    except ArtifactError:
        raise
    except Exception as error:
        # An attribute is missing, or is something else: no estimator of scikit-learn's was saved like this.
        raise ArtifactError(f"{what} holds a malformed estimator: {shorten(error, 200)}") from error


def iter_objects(estimator: Any) -> Iterator[Any]:
    """Yield the objects of scikit-learn and SciPy that an estimator consists of, itself too, each once."""
    import numpy as np

    waiting, seen = [estimator], set()
    while waiting:
        found = waiting.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, (list, tuple, set)):
            waiting.extend(found)
        elif isinstance(found, dict):
            waiting.extend(found.values())
        elif isinstance(found, np.ndarray):
            waiting.extend(found.flat if found.dtype == object else ())
        elif type(found).__module__.partition(".")[0] in ("sklearn", "scipy"):
            yield found
            waiting.extend(vars(found).values() if hasattr(found, "__dict__") else ())


def _checks() -> list[tuple[Any, Callable[[str, Any], None]]]:
    from scipy.interpolate import BSpline
    from scipy.sparse._base import _spbase
    from sklearn.ensemble._forest import BaseForest
    from sklearn.ensemble._gb import BaseGradientBoosting
    from sklearn.ensemble._hist_gradient_boosting.gradient_boosting import BaseHistGradientBoosting
    from sklearn.neighbors._base import NeighborsBase
    from sklearn.svm._base import BaseLibSVM
    from sklearn.tree import BaseDecisionTree
    from sklearn.tree._tree import Tree

    return [
        (Tree, _check_nodes),
        (BaseDecisionTree, _check_decision_tree),
        (BaseForest, _check_ensemble),
        (BaseGradientBoosting, _check_ensemble),
        (BaseHistGradientBoosting, _check_histogram_boosting),
        (BaseLibSVM, _check_support_vectors),
        (NeighborsBase, _check_neighbours),
        (BSpline, _check_spline),
        (_spbase, _check_sparse),
    ]


def _check_nodes(what: str, tree: Any) -> None:
    """Check the nodes of a Tree against its own number of columns."""
    import numpy as np

    # Before any array of it is looked at: they are views of as many nodes as it says.
    if not 1 <= tree.node_count <= tree.capacity:
        refuse(what, f"a tree says that it has {tree.node_count:,} nodes, and has {tree.capacity:,}")
    left, right = tree.children_left, tree.children_right
    inner = left != -1
    roots = np.zeros(1, dtype=np.int64)
    require_trees(what, Nodes(left, right, tree.feature, inner, roots), tree.n_features)


def _check_decision_tree(what: str, part: Any) -> None:
    """Check that an estimator's tree reads the columns that the estimator is given, and has its classes."""
    import numpy as np

    if not hasattr(part, "tree_"):
        return
    if part.tree_.n_features != part.n_features_in_ or part.tree_.n_outputs != part.n_outputs_:
        refuse(what, "a tree reads other columns, or predicts other outputs, than its estimator")
    if hasattr(part, "n_classes_") and int(np.max(part.n_classes_)) > part.tree_.max_n_classes:
        refuse(what, "a tree has fewer classes than its estimator")


def _check_ensemble(what: str, part: Any) -> None:
    """Check that the trees of a forest, which are given its rows unseen, read as many columns as it does."""
    import numpy as np

    for tree in np.ravel(getattr(part, "estimators_", [])):
        if tree.tree_.n_features != part.n_features_in_:
            refuse(what, "a tree of an ensemble reads other columns than the ensemble")


def _check_histogram_boosting(what: str, part: Any) -> None:
    import numpy as np

    if not hasattr(part, "_predictors"):
        return
    categorical = np.asarray(part._bin_mapper.is_categorical_, dtype=bool)
    if len(categorical) != part._n_features:
        refuse(what, "it has not as many columns as it says")
    for predictor in (one for iteration in part._predictors for one in iteration):
        nodes, bits = predictor.nodes, predictor.raw_left_cat_bitsets
        inner = nodes["is_leaf"] == 0
        if nodes.ndim != 1 or len(nodes) == 0:
            refuse(what, "a tree has no nodes")
        left, right, feature = (nodes[key].astype(np.int64) for key in ("left", "right", "feature_idx"))
        require_trees(what, Nodes(left, right, feature, inner, np.zeros(1, dtype=np.int64)), len(categorical))
        split = inner & (nodes["is_categorical"] != 0)
        if bits.ndim != 2 or bits.shape[1] != 8 or (nodes["bitset_idx"][split] >= len(bits)).any():
            refuse(what, "a categorical split has no categories")
        if not categorical[feature[split]].all():
            refuse(what, "a categorical split is of a column that is no category")


def _check_support_vectors(what: str, part: Any) -> None:
    import numpy as np

    if not hasattr(part, "support_vectors_"):
        return
    if part._sparse:
        raise ArtifactError(
            f"{what} holds support vectors that are sparse, which nightscore cannot check. Fit it on a dense matrix: "
            "`sparse_output=False`, or `sparse_threshold=0`."
        )
    is_classifier = hasattr(part, "classes_")
    classes = len(part.classes_) if is_classifier else 2
    pairs, vectors = classes * (classes - 1) // 2, len(part.support_)
    each = np.asarray(part._n_support)
    shapes = {
        "support_vectors_": (vectors, part.n_features_in_),
        "_dual_coef_": (classes - 1, vectors),
        "_intercept_": (pairs,),
        "_n_support": (classes,),
    }
    wrong = [key for key, shape in shapes.items() if np.shape(getattr(part, key)) != shape]
    if wrong or (each < 0).any() or int(each.sum() if is_classifier else each[0]) != vectors:
        raise ArtifactError(f"{what} holds malformed support vectors: {', '.join(wrong) or 'their number'}.")
    for key in ("_probA", "_probB"):
        if np.shape(getattr(part, key)) not in ((0,), (pairs,), (1,)):
            raise ArtifactError(f"{what} holds malformed support vectors: {key}.")


def _check_neighbours(what: str, part: Any) -> None:
    import numpy as np

    if not hasattr(part, "_fit_X"):
        return
    rows = part._fit_X
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.shape[1] != part.n_features_in_:
        raise ArtifactError(f"{what} holds malformed neighbours: their rows are no matrix of its columns.")
    labels = np.asarray(getattr(part, "_y", np.zeros(len(rows))))
    if len(labels) != len(rows):
        raise ArtifactError(f"{what} holds malformed neighbours: they have not one label each.")
    if hasattr(part, "classes_"):
        lists = part.classes_ if isinstance(part.classes_, list) else [part.classes_]
        if labels.dtype.kind != "i" or (labels < 0).any() or (labels >= min(map(len, lists))).any():
            raise ArtifactError(f"{what} holds malformed neighbours: a label is of no class.")


def _check_spline(what: str, part: Any) -> None:
    import numpy as np

    knots, degree = np.asarray(part.t), part.k
    known = knots.ndim == 1 and isinstance(degree, (int, np.integer)) and 0 <= degree <= 100
    if not known or len(knots) < 2 * degree + 2 or not np.isfinite(knots).all() or (np.diff(knots) < 0).any():
        raise ArtifactError(f"{what} holds a malformed spline: its knots.")
    if part.axis != 0 or np.ndim(part.c) < 1 or len(part.c) < len(knots) - degree - 1:
        raise ArtifactError(f"{what} holds a malformed spline: its coefficients.")


def _check_sparse(what: str, part: Any) -> None:
    if part.format not in ("csr", "csc"):
        raise ArtifactError(f"{what} holds a sparse matrix of the format {part.format}; csr and csc are read.")
    try:
        part.check_format(full_check=True)
    except ValueError as error:
        raise ArtifactError(f"{what} holds a malformed sparse matrix: {shorten(error)}.") from error
