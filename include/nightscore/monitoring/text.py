"""Figures as words; one that is not known yet has words too."""

from collections.abc import Mapping
from typing import Any


def figure(value: float | None, form: str = ".4f") -> str:
    """Return a figure as text.

    >>> figure(0.79612), figure(0.01, "+.4f"), figure(None)
    ('0.7961', '+0.0100', 'unknown')
    """
    return "unknown" if value is None else format(value, form)


def interval(found: Mapping[str, Any], between: str, form: str = ".4f") -> str:
    """Return the bounds `low` and `high` of a figure as text; nothing where there are none.

    >>> interval({"value": 0.8, "low": 0.7, "high": 0.9}, ", "), interval({"low": None, "high": None}, ", ")
    ('0.7000, 0.9000', '')
    """
    low, high = found.get("low"), found.get("high")
    return "" if low is None or high is None else f"{low:{form}}{between}{high:{form}}"
