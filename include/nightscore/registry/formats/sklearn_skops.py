"""scikit-learn estimators saved by skops: describe → audit → construct.

skops writes an estimator as a zip of JSON and arrays that names every class to create, and can list those names without
importing any. What may be created is decided here, by a list in our code; nothing that a file says can widen it.
"""

import io
import zipfile
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from nightscore.errors import ConfigurationError, listed, shorten
from nightscore.registry.manifest import MissingText, Task

FORMAT = "sklearn-skops"
FILE = "model.skops"

# Beyond what skops trusts by itself (scikit-learn's public estimators, NumPy and SciPy data). Each holds data, or is a
# function that only converts data. Search trees of nearest neighbours are left out: their C code trusts its arrays, and
# `algorithm="brute"` does without.
ALLOWED_TYPES = (
    "functools.partial",  # the function inside is audited as well
    "numpy.dtype",
    "scipy._lib.array_api_compat.numpy._aliases.asarray",
    "scipy.interpolate._bsplines.BSpline",
    "sklearn._loss.loss.HalfTweedieLoss",
    "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.compose._column_transformer._RemainderColsList",
    "sklearn.compose._column_transformer.make_column_selector",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
    "sklearn.gaussian_process.kernels.ConstantKernel",
    "sklearn.gaussian_process.kernels.Product",
    "sklearn.gaussian_process.kernels.RBF",
    "sklearn.gaussian_process.kernels.Sum",
    "sklearn.gaussian_process.kernels.WhiteKernel",
    "sklearn.multiclass._ConstantPredictor",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",
    "sklearn.utils._metadata_requests.MetadataRequest",
    "sklearn.utils._metadata_requests.MethodMetadataRequest",
    "sklearn.utils.validation.check_array",
)

_PICKLES = (b"\x80", b"(", b"c", b"]", b"}")  # how protocols 2+, 1 and 0 begin


class ArtifactError(ConfigurationError):
    """A model file is not of this format, or damaged."""


class UntrustedTypesError(ConfigurationError):
    """A model file would create classes that are not on our list; nothing of it was run."""

    def __init__(self, what: str, types: Sequence[str]) -> None:
        super().__init__(
            f"{what} would create classes that nightscore does not allow: {listed(types)}. Nothing of it was run. Only "
            "scikit-learn's own classes may be part of a model: move custom steps into the feature query."
        )
        self.types = tuple(types)


def describe(what: str, data: bytes) -> tuple[str, ...]:
    """Return the names of the classes a file would create beyond those skops trusts, creating and importing none.

    Raises:
        ArtifactError: the bytes are not a skops file.
    """
    from skops import io as skops_io

    if not zipfile.is_zipfile(io.BytesIO(data)):
        if data[:1] in _PICKLES or data[:2] == b"\x1f\x8b":
            raise ArtifactError(
                f"{what} looks like a pickle. Loading a pickle runs whatever code it holds, so it is refused. Save the "
                "fitted estimator with `skops.io.dump(estimator, file)`."
            )
        raise ArtifactError(f"{what} is not a skops file. Write it with `skops.io.dump(estimator, file)`.")
    try:
        return tuple(skops_io.get_untrusted_types(data=data))
    except Exception as error:
        # skops parses what a stranger wrote: whatever goes wrong there, the file is what is wrong.
        raise ArtifactError(f"{what} is not a readable skops file: {shorten(error)}") from error


def audit(what: str, types: Sequence[str]) -> None:
    """Check that every class is on our list.

    Raises:
        UntrustedTypesError: one is not.
    """
    refused = sorted(set(types) - set(ALLOWED_TYPES))
    if refused:
        raise UntrustedTypesError(what, refused)


def construct(what: str, data: bytes) -> Any:
    """Create the estimator from an audited file.

    Raises:
        ArtifactError: it cannot be created with the libraries installed here.
    """
    from skops import io as skops_io

    try:
        return skops_io.loads(data, trusted=list(ALLOWED_TYPES))
    except Exception as error:
        # Anything may go wrong between two versions of scikit-learn; the manifest says which one wrote the file.
        raise ArtifactError(f"{what} cannot be loaded here: {shorten(error, 400)}") from error


def missing_text(estimator: Any) -> MissingText:
    """Return how missing text looked when the estimator was fitted: as NaN, or as None where it has learnt None.

    Encoders keep the categories they have seen, and imputers what they replace; both tell None from NaN.
    """
    from sklearn.base import BaseEstimator

    waiting, seen = [estimator], set()
    while waiting:
        found = waiting.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, (list, tuple)):
            waiting.extend(found)
        elif isinstance(found, dict):
            waiting.extend(found.values())
        elif isinstance(found, BaseEstimator):
            if getattr(found, "missing_values", 0) is None:
                return "none"
            if any(label is None for labels in getattr(found, "categories_", ()) for label in labels):
                return "none"
            waiting.extend(vars(found).values())
    return "nan"


def libraries() -> dict[str, str]:
    """Return the versions of the libraries that decide what a prediction is."""
    return {name: version(name) for name in ("numpy", "scikit-learn", "scipy", "skops")}


def task_of(what: str, estimator: Any) -> tuple[Task, tuple[str, ...]]:
    """Return what the estimator predicts and a classifier's labels.

    Raises:
        ArtifactError: it is not fitted, or is neither a classifier with probabilities nor a regressor.
    """
    from sklearn.base import is_classifier, is_regressor
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(estimator)
    except (NotFittedError, TypeError) as error:
        raise ArtifactError(f"{what} holds no fitted estimator: {shorten(error)}") from error
    if is_regressor(estimator):
        return "regression", ()
    if not is_classifier(estimator):
        raise ArtifactError(
            f"{what} holds a {type(estimator).__name__}, which is neither a classifier nor a regressor."
        )
    if not hasattr(estimator, "predict_proba"):
        raise ArtifactError(
            f"{what} holds a {type(estimator).__name__}, which gives no probabilities; "
            "wrap it in CalibratedClassifierCV."
        )
    classes = tuple(str(label) for label in estimator.classes_)
    if len(classes) < 2:
        raise ArtifactError(f"{what} was fitted on one class only, {listed(classes)}.")
    return ("binary" if len(classes) == 2 else "multiclass"), classes
