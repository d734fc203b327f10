"""Reading a suite that Great Expectations has saved, without importing it: JSON in, expectations of a spec out."""

import json
from typing import Any

from nightscore.errors import near_miss

_KEPT = ("meta", "notes", "description")  # what a suite says of an expectation to people


class SuiteError(ValueError):
    """A text is no suite; says why, as the words after the file's name."""


def read_suite(text: str) -> list[dict[str, Any]]:
    """Return a suite's expectations as a list of a spec has them.

    >>> read_suite('{"name": "a", "expectations": [{"type": "expect_column_to_exist", "kwargs": {"column": "age"}}]}')
    [{'expect': 'expect_column_to_exist', 'column': 'age'}]

    Raises:
        SuiteError: the text is not JSON, or not a suite as Great Expectations 1 saves it.
    """
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise SuiteError(f"is not JSON (line {error.lineno}, column {error.colno}): {error.msg}.") from error
    except RecursionError as error:
        raise SuiteError("is not a suite: its lists are nested too deeply.") from error
    if not isinstance(content, dict) or not isinstance(content.get("expectations"), list):
        keys = list(content) if isinstance(content, dict) else []
        hint = near_miss("expectations", keys) if keys else ""
        raise SuiteError(f"is not a suite of Great Expectations: it has no list `expectations`. {hint}".rstrip())
    return [_expectation(number, item) for number, item in enumerate(content["expectations"])]


def _expectation(number: int, item: Any) -> dict[str, Any]:
    where = f"is not a suite of Great Expectations: expectations[{number}]"
    if not isinstance(item, dict):
        raise SuiteError(f"{where} is not a mapping.")
    if not isinstance(item.get("type"), str):
        older = " Versions before 1 wrote `expectation_type`; save the suite again with a version from 1 on."
        raise SuiteError(f"{where} has no `type`.{older if 'expectation_type' in item else ''}")
    arguments = item.get("kwargs", {})
    if not isinstance(arguments, dict):
        raise SuiteError(f"{where}.kwargs is not a mapping.")
    for name, value in arguments.items():
        if name in ("expect", "severity"):
            raise SuiteError(f"{where}.kwargs.{name} is no argument of an expectation.")
        if isinstance(value, dict) and "$PARAMETER" in value:
            raise SuiteError(f"takes a parameter: expectations[{number}].kwargs.{name}; write the value itself.")
    severity = {} if item.get("severity") is None else {"severity": item["severity"]}
    words = {key: item[key] for key in _KEPT if item.get(key)}
    return {"expect": item["type"], **arguments, **severity, **words}
