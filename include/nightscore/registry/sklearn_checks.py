"""What must hold of a constructed scikit-learn estimator whose compiled code trusts its arrays.

Most estimators predict with NumPy, which looks at shapes. These do not: trees, histogram boosting, support vectors,
neighbours, splines, sparse matrices and what makes them.
"""

from collections.abc import Callable, Iterator
from typing import Any

from nightscore.errors import shorten
from nightscore.registry.format import ArtifactError
from nightscore.registry.sklearn_reach import reach_checks
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
    """Yield the objects of scikit-learn and SciPy, and the functions, that an estimator consists of, each once."""
    import functools

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
        elif isinstance(found, functools.partial):
            yield found
            waiting.extend((found.func, *found.args, found.keywords))
        elif callable(found):
            yield found


def _checks() -> list[tuple[Any, Callable[[str, Any], None]]]:
    from scipy.interpolate import BSpline
    from scipy.sparse._base import _spbase
    from sklearn.cluster._kmeans import _BaseKMeans
    from sklearn.ensemble._forest import BaseForest
    from sklearn.ensemble._gb import BaseGradientBoosting
    from sklearn.ensemble._hist_gradient_boosting.gradient_boosting import BaseHistGradientBoosting
    from sklearn.neighbors._base import NeighborsBase
    from sklearn.preprocessing import OneHotEncoder
    from sklearn.svm._base import BaseLibSVM
    from sklearn.tree import BaseDecisionTree
    from sklearn.tree._tree import Tree

    return [
        (Tree, _check_nodes),
        (BaseDecisionTree, _check_decision_tree),
        (BaseForest, _check_forest),
        (BaseGradientBoosting, _check_gradient_boosting),
        (BaseHistGradientBoosting, _check_histogram_boosting),
        (OneHotEncoder, _check_one_hot),
        (_BaseKMeans, _check_centres),
        (BaseLibSVM, _check_support_vectors),
        (NeighborsBase, _check_neighbours),
        (BSpline, _check_spline),
        (_spbase, _check_sparse),
        *reach_checks(),
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


def _check_forest(what: str, part: Any) -> None:
    """Check that the trees of a forest, which are given its rows unseen, read and predict what it does."""
    import numpy as np
    from sklearn.tree import BaseDecisionTree

    for tree in getattr(part, "estimators_", ()):
        if not isinstance(tree, BaseDecisionTree) or tree.tree_.n_features != part.n_features_in_:
            refuse(what, "a tree of an ensemble reads other columns than the ensemble")
        if tree.tree_.n_outputs != part.n_outputs_:
            refuse(what, "a tree of an ensemble predicts other outputs than the ensemble")
        if hasattr(part, "n_classes_") and not np.array_equal(tree.n_classes_, part.n_classes_):
            refuse(what, "a tree of an ensemble has other classes than the ensemble")


def _check_gradient_boosting(what: str, part: Any) -> None:
    """Check that the trees, which add to their output by number, are as many in a row as it has columns."""
    import numpy as np
    from sklearn.tree import DecisionTreeRegressor

    if not hasattr(part, "estimators_"):
        return
    kinds = {type(part._loss).__module__, type(part._loss.link).__module__}
    if kinds != {"sklearn._loss.loss", "sklearn._loss.link"}:
        refuse(what, "an ensemble has a loss of something else")
    width = len(part.classes_) if part._loss.is_multiclass else 1
    if not isinstance(part.estimators_, np.ndarray) or part.estimators_.ndim != 2 or not part.estimators_.size:
        refuse(what, "the trees of an ensemble are no matrix")
    if part.estimators_.shape[1] != width or part.n_trees_per_iteration_ != width:
        refuse(what, "an ensemble has not one tree for each of its outputs")
    if hasattr(part, "n_classes_") and part.n_classes_ != len(part.classes_):
        refuse(what, "an ensemble has another number of classes than it has classes")
    for tree in part.estimators_.flat:
        if type(tree) is not DecisionTreeRegressor or tree.tree_.n_features != part.n_features_in_:
            refuse(what, "a tree of an ensemble reads other columns than the ensemble")
        if tree.tree_.n_outputs != 1 or tree.tree_.max_n_classes != 1:
            refuse(what, "a tree of an ensemble predicts more than one number")
    _check_first_prediction(what, part, width)


def _check_first_prediction(what: str, part: Any, width: int) -> None:
    """Check that what the trees add to has a column for each: any other first estimator gives what it likes."""
    import numpy as np
    from sklearn.dummy import DummyClassifier, DummyRegressor

    first = part.init_
    if isinstance(first, str) and first == "zero":
        return
    if type(first) is DummyClassifier and hasattr(part, "classes_"):
        has_shape = first._strategy == "prior" and np.shape(first.class_prior_) == (len(part.classes_),)
    elif type(first) is DummyRegressor and not hasattr(part, "classes_"):
        has_shape = np.shape(first.constant_) == (1, width)
    else:
        raise ArtifactError(
            f"{what} holds a {type(part).__name__} whose `init` is a {type(first).__name__}, which nightscore cannot "
            'check. Fit it with `init=None` or `init="zero"`.'
        )
    if first.n_outputs_ != 1 or not has_shape:
        refuse(what, "the first prediction of an ensemble has not the shape of its trees")


def _check_histogram_boosting(what: str, part: Any) -> None:
    import numpy as np

    if not hasattr(part, "_predictors"):
        return
    categorical, bins = np.asarray(part._bin_mapper.is_categorical_), part._bin_mapper.bin_thresholds_
    if categorical.shape != (part._n_features,) or categorical.dtype.kind not in "bu" or len(bins) != part._n_features:
        refuse(what, "it has not as many columns as it says")
    for column in np.flatnonzero(categorical):
        # Each becomes a bit of 256, set without a look at its number.
        known = np.asarray(bins[column], dtype=np.float64)
        if known.ndim != 1 or not ((known >= 0) & (known <= 255)).all():
            refuse(what, "a category has no number below 256")
    if getattr(part, "_in_fit", False) or _columns_given(what, part) != part._n_features:
        refuse(what, "its trees are given other columns than it has")
    width = part.n_trees_per_iteration_
    if type(width) is not int or np.size(part._baseline_prediction) != width:
        refuse(what, "its first prediction has not the shape of its trees")
    for iteration in part._predictors:
        if len(iteration) != width:
            refuse(what, "an ensemble has not one tree for each of its outputs")
        for predictor in iteration:
            _check_histogram_tree(what, predictor, categorical.astype(bool))


def _columns_given(what: str, part: Any) -> int:
    """Return how many columns reach the trees, which is decided before them where categories are encoded."""
    import numpy as np
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder

    before = part._preprocessor
    if before is None:
        return int(part.n_features_in_)
    kinds = {"encoder": OrdinalEncoder, "numerical": FunctionTransformer}
    steps = [step for step in before.transformers_ if step[0] != "remainder" or step[1] != "drop"]
    if type(before) is not ColumnTransformer or [step[0] for step in steps] != list(kinds):
        refuse(what, "its columns are prepared by something else")
    given = 0
    for name, step, mask in steps:
        chosen = np.flatnonzero(mask)
        if type(step) is not kinds[name] or np.shape(mask) != (before.n_features_in_,) or mask.dtype != bool:
            refuse(what, "its columns are prepared by something else")
        if not np.array_equal(before._transformer_to_input_indices[name], chosen):
            refuse(what, "it prepares other columns than it says")
        given += len(chosen)
    _check_conversion(what, steps[1][1])
    return given


def _check_conversion(what: str, step: Any) -> None:
    """Check that the numbers among the columns are converted and nothing else, so that as many come out."""
    from functools import partial

    from sklearn.utils.validation import check_array

    func = step.func
    is_plain = isinstance(func, partial) and func.func is check_array and not func.args and not step.kw_args
    if not is_plain or not func.keywords.keys() <= {"dtype", "ensure_all_finite", "force_all_finite"}:
        refuse(what, "its columns are prepared by something else")


def _check_histogram_tree(what: str, predictor: Any, categorical: Any) -> None:
    import numpy as np

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


def _check_one_hot(what: str, part: Any) -> None:
    """Check that every category has a column: they become the indices of a sparse matrix, which nobody looks at."""
    if not hasattr(part, "categories_"):
        return
    count, widths = len(part.categories_), part._n_features_outs
    dropped = part._drop_idx_after_grouping
    per_column = {
        "_n_features_outs": widths,
        "_drop_idx_after_grouping": [None] * count if dropped is None else dropped,
        "_default_to_infrequent_mappings": [None] * count,
        "_infrequent_indices": [None] * count,
    }
    if getattr(part, "_infrequent_enabled", False):
        per_column.update({key: getattr(part, key) for key in list(per_column)[2:]})
    lengths_agree = all(len(values) == count for values in per_column.values())
    if part.n_features_in_ != count or not lengths_agree or not isinstance(widths, list):
        raise ArtifactError(f"{what} holds malformed categories: their numbers.")
    if not all(map(_has_columns, part.categories_, *per_column.values())):
        raise ArtifactError(f"{what} holds malformed categories: their columns.")


def _has_columns(labels: Any, width: Any, drop: Any, mapping: Any, rare: Any) -> bool:
    """Return whether every category of one input column becomes one of its `width` columns, or is dropped."""
    import numpy as np

    if np.ndim(labels) != 1 or not _is_searchable(labels) or type(width) is not int:
        return False
    if rare is not None and not all(0 <= one < len(labels) for one in rare):
        return False
    codes = np.arange(len(labels)) if mapping is None else np.asarray(mapping)
    if len(codes) != len(labels) or codes.dtype.kind != "i":
        return False
    if drop is not None:
        codes = np.where(codes > drop, codes - 1, codes)[codes != drop]
    return bool(((codes >= 0) & (codes < width)).all())


def _is_searchable(labels: Any) -> bool:
    """Return whether numbers among categories are in order; texts are looked up, and need no order."""
    import numpy as np

    if labels.dtype.kind not in "iufb":
        return labels.dtype.kind in "OUS"
    known = labels[~np.isnan(labels)] if labels.dtype.kind == "f" else labels
    return bool((known[1:] > known[:-1]).all()) and not np.isnan(labels[: len(known)].astype(np.float64)).any()


def _check_centres(what: str, part: Any) -> None:
    """Check the centres of clusters, and into how many threads looking for the next one is split."""
    import numpy as np

    if not hasattr(part, "cluster_centers_"):
        return
    if np.shape(part.cluster_centers_) != (part.n_clusters, part.n_features_in_) or not 1 <= part._n_threads <= 1024:
        raise ArtifactError(f"{what} holds malformed clusters: their centres.")


def _check_support_vectors(what: str, part: Any) -> None:
    import numpy as np

    if not hasattr(part, "support_vectors_"):
        return
    if part._sparse:
        raise ArtifactError(
            f"{what} holds support vectors that are sparse, which nightscore cannot check. Fit it on a dense matrix: "
            "`sparse_output=False`, or `sparse_threshold=0`."
        )
    if part.kernel not in ("linear", "poly", "rbf", "sigmoid"):
        # Given as a matrix, a row's columns are numbers of vectors, which compiled code takes as they come.
        raise ArtifactError(
            f"{what} holds support vectors with a kernel of its own; linear, poly, rbf and sigmoid are read."
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
        # Of a regressor, the first has one number and the second none.
        if np.shape(getattr(part, key)) not in ((0,), (pairs,)):
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
