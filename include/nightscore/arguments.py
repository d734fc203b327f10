"""What people type for a partition and a model, on a command line or in Airflow's form."""

import datetime as dt
import re

from nightscore.errors import ConfigurationError, shorten
from nightscore.names import MODEL_NAME
from nightscore.spec import ModelReference
from nightscore.spec_values import parse_reference


class ArgumentError(ConfigurationError):
    """An argument cannot be understood."""


def parse_partition(text: str) -> dt.date:
    """Return the day that `YYYY-MM-DD` means.

    Raises:
        ArgumentError: it means none.

    >>> parse_partition("2026-11-19")
    datetime.date(2026, 11, 19)
    """
    try:
        return dt.date.fromisoformat(text)
    except ValueError as error:
        raise ArgumentError(f"{shorten(text)!r} is not a scoring date; write it like 2026-11-19.") from error


def require_name(text: str, what: str) -> None:
    """Check that a model or an alias can have this name; `what` is it called in the message.

    Raises:
        ArgumentError: it cannot.
    """
    if not re.fullmatch(MODEL_NAME, text):
        raise ArgumentError(
            f"{shorten(text)!r} is not {what}; use lower-case letters, digits, - and _, and begin with a letter."
        )


def parse_model(text: str) -> ModelReference:
    """Return the model that `NAME`, `NAME@ALIAS` or `NAME@VERSION` means, each perhaps after `mlflow:` or `vertex:`.

    Raises:
        ArgumentError: it means none.

    >>> str(parse_model("mlflow:credit_default@7"))
    'mlflow:credit_default@7'
    """
    try:
        found = parse_reference(text)
    except ValueError as error:
        raise ArgumentError(f"{error}.") from error
    reference = ModelReference.model_validate(found)
    return reference if reference.version else reference.model_copy(update={"alias": reference.alias_name})
