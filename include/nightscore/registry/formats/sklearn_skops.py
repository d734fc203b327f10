"""scikit-learn estimators saved by skops: describe → audit → construct.

skops writes an estimator as a zip of JSON and arrays that names every class to create, and can list those names without
importing any. What may be created is decided here, by a list in our code; nothing that a file says can widen it.
"""

import io
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from nightscore.errors import listed, shorten
from nightscore.registry.format import ArtifactError, UntrustedTypesError
from nightscore.registry.manifest import FormatName, Input, MissingText, Task
from nightscore.registry.signature import NUMBERS, Shape
from nightscore.registry.sklearn_checks import iter_objects, require_sound
from nightscore.registry.sklearn_reach import beyond_reach
from nightscore.registry.skops_archive import require_archive

if TYPE_CHECKING:
    import numpy as np

FORMAT: FormatName = "sklearn-skops"
FILE = "model.skops"
LIBRARIES = ("numpy", "scikit-learn", "scipy", "skops")
EXTRA: Final[str | None] = None
TOLERANCE = 1e-12

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

# Modules whose estimators treat every row by itself, without a matrix product.
_ROW_BY_ROW = (
    "sklearn._loss.",
    "sklearn.calibration",
    "sklearn.compose.",
    "sklearn.ensemble._forest",
    "sklearn.ensemble._gb",
    "sklearn.ensemble._hist_gradient_boosting.",
    "sklearn.impute._base",
    "sklearn.isotonic",
    "sklearn.pipeline",
    "sklearn.preprocessing._data",
    "sklearn.preprocessing._encoders",
    "sklearn.preprocessing._label",
    "sklearn.tree.",
    "sklearn.utils.",
)


def looks_like(data: bytes) -> bool:
    """Return whether a file is a zip, or was one before it was cut off."""
    return data[:4] == b"PK\x03\x04" or zipfile.is_zipfile(io.BytesIO(data))


def _skops_io() -> Any:
    """Return skops' own module, imported without a word.

    It looks for SciPy's functions in every module that is there. In a task's process Airflow's old modules answer each
    of these looks with a warning: a thousand lines of the task's log, which take seconds.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from skops import io as skops_io
    return skops_io


def describe(what: str, data: bytes) -> tuple[str, ...]:
    """Return the names of the classes a file would create beyond those skops and we trust, creating and importing none.

    Raises:
        ArtifactError: the bytes are not a skops file.
    """
    skops_io = _skops_io()
    if not zipfile.is_zipfile(io.BytesIO(data)):
        raise ArtifactError(f"{what} is not a skops file. Write it with `skops.io.dump(estimator, file)`.")
    named = require_archive(what, data)
    try:
        return tuple(sorted({*skops_io.get_untrusted_types(data=data), *beyond_reach(named)}))
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
        ArtifactError: it cannot be created with the libraries installed here, its arrays are malformed, or it would
            reach for files.
        UntrustedTypesError: it was not audited, and holds classes of scikit-learn that are not on our list.
    """
    skops_io = _skops_io()
    audit(what, sorted(beyond_reach(require_archive(what, data))))
    try:
        estimator = skops_io.loads(data, trusted=list(ALLOWED_TYPES))
    except Exception as error:
        # Anything may go wrong between two versions of scikit-learn; the manifest says which one wrote the file.
        raise ArtifactError(f"{what} cannot be loaded here: {shorten(error, 400)}") from error
    require_sound(what, estimator)
    return estimator


@dataclass(frozen=True)
class SklearnModel:
    """A scikit-learn estimator as scoring needs it."""

    estimator: Any
    task: Task
    classes: tuple[str, ...]

    @property
    def kind(self) -> str:
        """Its class, and of a pipeline the last step's."""
        final = self.estimator.steps[-1][1] if hasattr(self.estimator, "steps") else self.estimator
        inner = "" if final is self.estimator else f"({type(final).__name__})"
        return f"{type(self.estimator).__name__}{inner}"

    @cached_property
    def names(self) -> tuple[str, ...] | None:
        """The columns that it was fitted on, if it was fitted on a DataFrame."""
        found = getattr(self.estimator, "feature_names_in_", None)
        return None if found is None else tuple(str(name) for name in found)

    @property
    def count(self) -> int | None:
        """How many columns it was fitted on."""
        found = getattr(self.estimator, "n_features_in_", None)
        return None if found is None else int(found)

    @property
    def missing_text(self) -> MissingText:
        """How missing text looked when it was fitted."""
        return missing_text(self.estimator)

    @property
    def is_reproducible(self) -> bool:
        """Whether it predicts the same bits for a row wherever it is computed."""
        return is_reproducible(self.estimator)

    def prepare(self, inputs: Sequence[Input], *, named: bool) -> Shape:
        """Make the estimator ready to score, see `prepare` of this module."""
        return prepare(self.estimator, inputs, named=named)

    def predict(self, features: Any) -> "np.ndarray[Any, np.dtype[np.float64]]":
        """Return probabilities, or a regressor's values."""
        import numpy as np

        if self.task == "regression":
            return np.asarray(self.estimator.predict(features), dtype=np.float64).reshape(len(features))
        return np.asarray(self.estimator.predict_proba(features), dtype=np.float64)


def fitted(what: str, constructed: Any, classes: Sequence[str] = ()) -> SklearnModel:
    """Return a constructed estimator as what scoring needs; its labels are its own, and `classes` may only agree.

    Raises:
        ArtifactError: it cannot score, or has other labels.
    """
    task, own = task_of(what, constructed)
    if classes and tuple(classes) != own:
        raise ArtifactError(f"{what} predicts the classes {listed(own)}, and not {listed(classes)}.")
    return SklearnModel(constructed, task, own)


def missing_text(estimator: Any) -> MissingText:
    """Return how missing text looked when the estimator was fitted: as NaN, or as None where it has learnt None.

    Encoders keep the categories they have seen, and imputers what they replace; both tell None from NaN.
    """
    for part in _parts(estimator):
        if getattr(part, "missing_values", 0) is None:
            return "none"
        if any(label is None for labels in getattr(part, "categories_", ()) for label in labels):
            return "none"
    return "nan"


def prepare(estimator: Any, inputs: Sequence[Input], *, named: bool) -> Shape:
    """Make an estimator of our own ready to score, which changes it, and return what it is given.

    Whatever it consists of works in one thread, because the scoring engine has one for every processor. Where nothing
    in it can tell a matrix from a DataFrame, it is given a matrix, and forgets its column names: the signature has
    checked them already, and scikit-learn would warn of their absence at every call.

    Args:
        estimator: as `construct` returned it.
        inputs: the signature.
        named: whether it was fitted with column names.
    """
    parts = list(_parts(estimator))
    for part in parts:
        if "n_jobs" in vars(part):
            part.n_jobs = 1
    if not named:
        return "matrix"
    kinds = {item.type for item in inputs}
    # Without a double among them, scikit-learn would have computed with integers or single precision.
    if not kinds <= NUMBERS or "double" not in kinds or any(_looks_at_columns(part) for part in parts):
        return "frame"
    for part in parts:
        vars(part).pop("feature_names_in_", None)
    return "matrix"


def is_reproducible(estimator: Any) -> bool:
    """Return whether an estimator predicts the same bits for a row wherever and beside whichever rows it is computed.

    Trees compare and look up, and what may surround them here treats every value by itself. Everything that multiplies
    matrices sums in an order that depends on the processor and the number of rows.
    """
    return all(type(part).__module__.startswith(_ROW_BY_ROW) for part in _parts(estimator))


def _looks_at_columns(part: Any) -> bool:
    """Return whether this part of an estimator may go by the names or the types of columns."""
    from sklearn.compose import ColumnTransformer, make_column_selector
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, TargetEncoder

    by_column = (
        ColumnTransformer,
        FunctionTransformer,  # calls any function of NumPy's, SciPy's or scikit-learn's
        OneHotEncoder,
        OrdinalEncoder,
        TargetEncoder,
        make_column_selector,
    )
    output = vars(part).get("_sklearn_output_config", {}).get("transform")  # as what it hands its columns on
    return isinstance(part, by_column) or output not in (None, "default")


def _parts(estimator: Any) -> Iterator[Any]:
    """Yield scikit-learn's objects with attributes that an estimator consists of, and the estimator itself."""
    for found in iter_objects(estimator):
        if type(found).__module__.startswith("sklearn.") and hasattr(found, "__dict__"):
            yield found


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
