"""The exceptions of nightscore: each carries its data, says what to do next and knows whether a retry can help.

Three branches decide everything downstream: the exit code of the command line, and whether Airflow retries.

* `GateRefusedError` (exit 1): the data was judged and found wanting. Nothing was published.
* `ConfigurationError` (exit 2): a spec, a setting, a model or an argument is wrong. A retry meets the same fault.
* `TransientError` (exit 3): a server or the network failed. A retry may succeed.
"""

import datetime as dt
import difflib
from collections.abc import Iterable, Sequence
from typing import ClassVar

MOST_LISTED = 6
LONGEST_VALUE = 120


class NightscoreError(Exception):
    """Base of every error that nightscore raises on purpose."""

    exit_code: ClassVar[int] = 2


class GateRefusedError(NightscoreError):
    """A gate looked at the data and refused it; nothing was published."""

    exit_code = 1


class ConfigurationError(NightscoreError):
    """What was asked for cannot work, however often it is tried."""

    exit_code = 2


class TransientError(NightscoreError):
    """A server or the network failed; the same call may succeed later."""

    exit_code = 3


class LeaseLostError(TransientError):
    """This run was taken for dead and another one took its place; it must change nothing any more."""

    def __init__(self, pipeline: str, partition: dt.date, who: str) -> None:
        super().__init__(
            f"{pipeline}: {partition} was taken over by {who}, because this run had not renewed its lease in time. "
            "This run publishes nothing any more."
        )


def shorten(value: object, limit: int = LONGEST_VALUE) -> str:
    """Return `value` as text of at most `limit` characters.

    >>> shorten("x" * 200, 10)
    'xxxxxxxxx…'
    """
    text = str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def listed(values: Iterable[object], most: int = MOST_LISTED) -> str:
    """Return the first values joined with commas, and how many were left out.

    >>> listed(["a", "b", "c"], most=2)
    'a, b … and 1 more'
    """
    items = [shorten(value) for value in values]
    shown = ", ".join(items[:most])
    return shown if len(items) <= most else f"{shown} … and {len(items) - most} more"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> counted(1, "row"), counted(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def near_miss(name: str, allowed: Sequence[str]) -> str:
    """Return a sentence naming the allowed word nearest to `name`, or all of them when none is near.

    >>> near_miss("treshold", ["table", "threshold"])
    'Did you mean `threshold`?'
    >>> near_miss("zzz", ["table", "threshold"])
    'Allowed: table, threshold.'
    """
    near = difflib.get_close_matches(name, allowed, n=1, cutoff=0.6)
    if near:
        return f"Did you mean `{near[0]}`?"
    return f"Allowed: {listed(sorted(allowed), most=16)}." if allowed else "There are none."
