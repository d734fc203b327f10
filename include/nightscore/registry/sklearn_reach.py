"""What an estimator may reach beyond its arrays: scikit-learn has classes that read files, and parameters that do.

skops trusts every public estimator, whatever it does when it predicts. This list is ours: estimators of rows and
columns, which compute and do nothing else.
"""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from nightscore.errors import listed, shorten
from nightscore.registry.format import ArtifactError

# Left out: clusterings, manifolds, densities and outliers, which are neither a step before a prediction nor one;
# decompositions that iterate in compiled code; hashing and dictionaries, whose compiled code trusts its sizes.
_MODULES = (
    "sklearn._loss.",
    "sklearn.calibration.",
    "sklearn.cluster._kmeans.",
    "sklearn.compose.",
    "sklearn.covariance._empirical_covariance.",
    "sklearn.covariance._shrunk_covariance.",
    "sklearn.cross_decomposition.",
    "sklearn.decomposition._factor_analysis.",
    "sklearn.decomposition._fastica.",
    "sklearn.decomposition._incremental_pca.",
    "sklearn.decomposition._kernel_pca.",
    "sklearn.decomposition._pca.",
    "sklearn.decomposition._truncated_svd.",
    "sklearn.discriminant_analysis.",
    "sklearn.dummy.",
    "sklearn.ensemble._bagging.",
    "sklearn.ensemble._forest.",
    "sklearn.ensemble._gb.",
    "sklearn.ensemble._hist_gradient_boosting.",
    "sklearn.ensemble._stacking.",
    "sklearn.ensemble._voting.",
    "sklearn.ensemble._weight_boosting.",
    "sklearn.feature_extraction.text.",
    "sklearn.feature_selection.",
    "sklearn.frozen.",
    "sklearn.gaussian_process.",
    "sklearn.impute.",
    "sklearn.isotonic.",
    "sklearn.kernel_approximation.",
    "sklearn.kernel_ridge.",
    "sklearn.linear_model.",
    "sklearn.model_selection.",
    "sklearn.multiclass.",
    "sklearn.multioutput.",
    "sklearn.naive_bayes.",
    "sklearn.neighbors._classification.",
    "sklearn.neighbors._nca.",
    "sklearn.neighbors._nearest_centroid.",
    "sklearn.neighbors._regression.",
    "sklearn.neural_network.",
    "sklearn.pipeline.",
    "sklearn.preprocessing.",
    "sklearn.random_projection.",
    "sklearn.semi_supervised._self_training.",
    "sklearn.svm.",
    "sklearn.tree.",
    "sklearn.utils._bunch.Bunch",
    "sklearn.utils._metadata_requests.",
    "sklearn.utils.validation.check_array",
)

_FUNCTIONS = (
    "scipy._lib.array_api_compat.numpy._aliases.asarray",
    "scipy.interpolate._interpolate.interp1d._call_",  # what an isotonic regression makes of its own points
    "sklearn.isotonic.IsotonicRegression._build_f.",
    "sklearn.utils.validation.check_array",
)
_ANALYZERS = ("word", "char", "char_wb")
# Where a ufunc writes, and what it leaves as memory was: both are more than a function of its input.
_UNSAFE_KEYWORDS = frozenset({"out", "where"})


def beyond_reach(names: Iterable[str]) -> frozenset[str]:
    """Return those of scikit-learn's classes and functions that no model may hold, though skops trusts them.

    >>> sorted(beyond_reach(["sklearn.svm._classes.SVC", "sklearn.datasets._base.load_files", "numpy.ndarray"]))
    ['sklearn.datasets._base.load_files']
    """
    return frozenset(name for name in names if name.startswith("sklearn.") and not name.startswith(_MODULES))


def reach_checks() -> list[tuple[Any, Callable[[str, Any], None]]]:
    """Return the kinds of objects that could reach something, and what must hold of each."""
    from sklearn.base import BaseEstimator
    from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer
    from sklearn.preprocessing import FunctionTransformer

    return [
        (object, _check_methods),
        (BaseEstimator, _check_memory),
        ((CountVectorizer, HashingVectorizer), _check_vectorizer),
        (FunctionTransformer, _check_keywords_of_transformer),
        (functools.partial, _check_keywords_of_partial),
        (Callable, _check_function),
    ]


def _check_methods(what: str, part: Any) -> None:
    """Check that an object's methods are its class's: a file sets attributes, and `predict` may be one."""
    if not type(part).__module__.startswith("sklearn.") or not hasattr(part, "__dict__"):
        return
    for name in vars(part):
        found = inspect.getattr_static(type(part), name, None)
        if hasattr(found, "__get__") and not hasattr(found, "__set__"):
            raise ArtifactError(f"{what} holds a {type(part).__name__} that replaces its own {shorten(name, 60)}.")


def _check_memory(what: str, part: Any) -> None:
    """Check that nothing is kept in a folder: joblib writes pickles there, and loads what it finds."""
    if getattr(part, "memory", None) is not None:
        raise ArtifactError(
            f"{what} holds a {type(part).__name__} that would keep its steps in a folder. Save it with "
            "`set_params(memory=None)`."
        )


def _check_vectorizer(what: str, part: Any) -> None:
    """Check that a vectorizer counts the words of its texts, and reads no file that they name."""
    import numpy as np

    wanted: dict[str, Callable[[Any], bool]] = {
        "input": lambda found: found == "content",
        "analyzer": lambda found: isinstance(found, str) and found in _ANALYZERS,
        "tokenizer": lambda found: found is None,
        "preprocessor": lambda found: found is None,
        "strip_accents": lambda found: found in (None, "ascii", "unicode"),
    }
    wrong = [key for key, is_allowed in wanted.items() if not is_allowed(getattr(part, key))]
    if wrong:
        raise ArtifactError(
            f"{what} holds a {type(part).__name__} whose {', '.join(wrong)} could read files or call anything. Allowed "
            'are `input="content"` and what scikit-learn itself finds words with.'
        )
    # Its words become the columns of a sparse matrix, which compiled code reads without looking.
    if hasattr(part, "n_features") and not (type(part.n_features) is int and 1 <= part.n_features < 2**31):
        raise ArtifactError(f"{what} holds a {type(part).__name__} with a malformed number of columns.")
    columns = getattr(part, "vocabulary_", {})
    if sorted(columns.values()) != list(range(len(columns))) or not all(
        isinstance(column, (int, np.integer)) for column in columns.values()
    ):
        raise ArtifactError(f"{what} holds a {type(part).__name__} with a malformed vocabulary.")


def _check_keywords_of_transformer(what: str, part: Any) -> None:
    for keywords in (part.kw_args, part.inv_kw_args):
        _check_keywords(what, keywords or {})


def _check_keywords_of_partial(what: str, part: Any) -> None:
    _check_keywords(what, part.keywords)


def _check_keywords(what: str, keywords: dict[str, Any]) -> None:
    unsafe = _UNSAFE_KEYWORDS & keywords.keys()
    if unsafe:
        raise ArtifactError(f"{what} would call a function with {listed(sorted(unsafe))}, and so change other memory.")


def _check_function(what: str, part: Any) -> None:
    """Check a function: NumPy's and SciPy's elementwise ones, and those that only convert."""
    import numpy as np

    if isinstance(part, (np.ufunc, functools.partial, type)):
        return  # of classes, skops creates only those of our list, and names those of data
    if type(part).__module__.startswith(("scipy.", "sklearn.")):
        return  # an object of a class of our list that can be called, like a column selector or a spline
    name = f"{getattr(part, '__module__', '')}.{getattr(part, '__qualname__', type(part).__name__)}"
    if not name.startswith(_FUNCTIONS):
        raise ArtifactError(f"{what} would call {shorten(name, 80)}. It may call NumPy's and SciPy's ufuncs.")
