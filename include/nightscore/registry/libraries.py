"""Library versions: what a model was registered with, and what is installed where it is loaded."""

from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version

from packaging.version import InvalidVersion, Version

from nightscore.errors import ConfigurationError

# Distributions that install the same module under another name.
_ALSO = {"xgboost": ("xgboost-cpu",), "onnxruntime": ("onnxruntime-gpu",)}

# How many leading numbers of a version must agree. scikit-learn promises nothing between minor versions, and skops
# stores its attributes as they are; the other libraries keep reading what an earlier release of theirs has written.
_AGREE = {"scikit-learn": 2, "lightgbm": 1, "numpy": 1, "scipy": 1, "skops": 0, "onnx": 0}
_NOT_OLDER = frozenset({"xgboost", "onnxruntime", "lightgbm", "skops"})


class LibraryError(ConfigurationError):
    """A library that a model needs is missing here, or its version cannot be trusted to predict the same."""


def installed(name: str) -> str | None:
    """Return the installed version of a distribution, or of another that installs the same module; None without one."""
    for candidate in (name, *_ALSO.get(name, ())):
        try:
            return version(candidate)
        except PackageNotFoundError:
            continue
    return None


def require_installed(what: str, names: Iterable[str], extra: str | None) -> dict[str, str]:
    """Return the installed versions of these distributions.

    Raises:
        LibraryError: one is missing; names the extra that installs it.
    """
    found = {name: installed(name) for name in names}
    missing = [name for name, number in found.items() if number is None]
    if missing:
        fix = f"pip install 'nightscore[{extra}]'" if extra else f"pip install {' '.join(missing)}"
        raise LibraryError(f"{what} needs {' and '.join(missing)}, which is not installed here. Install it: {fix}")
    return {name: number for name, number in found.items() if number is not None}


def require_libraries(label: str, registered: Mapping[str, str], extra: str | None) -> list[str]:
    """Check that what is installed can be trusted with a version; return a sentence for every harmless difference.

    Args:
        label: the version, `name/version`.
        registered: distribution → version that it was registered with.
        extra: the extra of the package that installs them.

    Raises:
        LibraryError: one is missing or too different; names what to install.
    """
    here = require_installed(label, registered, extra)
    warnings = []
    for name, number in sorted(registered.items()):
        if here[name] == number:
            continue
        fault = _fault(name, number, here[name])
        if fault:
            raise LibraryError(
                f"{label} was registered with {name} {number}, and {here[name]} is installed here: {fault}. Install "
                f"{_wanted(name, number)}, or register the model again with {name} {here[name]}."
            )
        warnings.append(f"{label} was registered with {name} {number}, and {here[name]} is installed here.")
    return warnings


def _fault(name: str, registered: str, here: str) -> str | None:
    try:
        then, now = Version(registered), Version(here)
    except InvalidVersion:
        return "one of them is not a version that can be compared"
    agree = _AGREE.get(name, 0)
    if then.release[:agree] != now.release[:agree]:
        level = "major" if agree == 1 else "minor"
        return f"another {level} version may read the file differently, or predict differently from it"
    if name in _NOT_OLDER and now.release[:2] < then.release[:2]:
        return "an older one may not read the file rightly"
    return None


def _wanted(name: str, registered: str) -> str:
    numbers = registered.split(".")
    agree = _AGREE.get(name, 0)
    return f"'{name}=={'.'.join(numbers[:agree])}.*'" if agree else f"'{name}>={'.'.join(numbers[:2])}'"
