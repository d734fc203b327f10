"""The model formats, one module each."""

from collections.abc import Mapping

from nightscore.errors import listed
from nightscore.registry.format import ArtifactError, Format
from nightscore.registry.formats import lightgbm_text, onnx_graph, sklearn_skops, xgboost_json

FORMATS: Mapping[str, Format] = {
    module.FORMAT: module for module in (sklearn_skops, onnx_graph, lightgbm_text, xgboost_json)
}

_PICKLES = (b"\x80", b"(", b"c", b"]", b"}")  # how protocols 2+, 1 and 0 begin


def recognise(what: str, data: bytes) -> Format:
    """Return the format of a file, from its content; its name says nothing.

    Raises:
        ArtifactError: it is of none; a pickle is named as one.
    """
    for candidate in FORMATS.values():
        if candidate.looks_like(data):
            return candidate
    if data[:1] in _PICKLES or data[:2] == b"\x1f\x8b":
        raise ArtifactError(
            f"{what} looks like a pickle. Loading a pickle runs whatever code it holds, so it is refused. Save a "
            "fitted scikit-learn estimator with `skops.io.dump(estimator, file)`, and other models in the format of "
            "their own library."
        )
    raise ArtifactError(
        f"{what} is of no format that nightscore reads: {listed(sorted(FORMATS))}. A scikit-learn estimator is written "
        "with `skops.io.dump(estimator, file)`."
    )
