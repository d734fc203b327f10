"""How two specs differ, field by field: what a reviewer wants to read before anything runs."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nightscore.errors import shorten
from nightscore.spec import Expectation

LONGEST_SHOWN = 120


def differences(before: Mapping[str, Any], after: Mapping[str, Any], path: str = "") -> list[dict[str, Any]]:
    """Return what differs between two nested mappings: `field`, `change` (added, removed, changed), `before`, `after`.

    Checks are compared by the expectation and its columns, not by their place in the list. Of a text of several lines,
    only their numbers are told.

    >>> differences({"checks": {"max_rejected": 1}}, {"checks": {"max_rejected": 1.0}})[0]["field"]
    'checks.max_rejected'
    >>> differences({"checks": {"max_rejected": 0.01}}, {"checks": {"max_rejected": 0.02}})
    [{'field': 'checks.max_rejected', 'change': 'changed', 'before': 0.01, 'after': 0.02}]
    """
    return list(_differences(path, _named(before), _named(after)))


def _differences(path: str, before: Any, after: Any) -> Iterator[dict[str, Any]]:
    if isinstance(before, Mapping) and after == []:  # of checks, of which each is told
        after = {}
    elif before == [] and isinstance(after, Mapping):
        before = {}
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys([*before, *after]):
            inner = f"{path}{key}" if not path or key.startswith("[") else f"{path}.{key}"
            yield from _differences(inner, before.get(key), after.get(key))
    elif _differ(before, after):
        change = "added" if _is_nothing(before) else "removed" if _is_nothing(after) else "changed"
        yield {"field": path, "change": change, **_shown(before, after)}


def _differ(before: Any, after: Any) -> bool:
    # Of budgets, 1 is a row and 1.0 is all of them.
    return before != after or (isinstance(before, float) != isinstance(after, float))


def _is_nothing(value: Any) -> bool:
    return value is None or value in ("", [], {})


def _shown(before: Any, after: Any) -> dict[str, Any]:
    texts = [value for value in (before, after) if isinstance(value, str)]
    if len(texts) == 2 and any("\n" in text for text in texts):
        old, new = (text.splitlines() for text in texts)
        steps = [line[0] for line in difflib.ndiff(old, new)]
        lines = f"{len(new)} lines, {steps.count('+')} added, {steps.count('-')} removed"
        return {"before": f"{len(old)} lines", "after": lines}
    return {"before": _bounded(before), "after": _bounded(after)}


def _bounded(value: Any) -> Any:
    """Return a value as a record holds it, of bounded length."""
    if isinstance(value, str):
        return shorten(" ".join(value.split()), LONGEST_SHOWN)
    if isinstance(value, (Mapping, Sequence)) and len(str(value)) > LONGEST_SHOWN:
        return shorten(value, LONGEST_SHOWN)
    return value


def _named(content: Any) -> Any:
    """Return nested mappings in which a list of checks is a mapping by what is checked.

    >>> _named({"features": [{"expect": "expect_a", "severity": "critical", "column": "x", "max_value": 1}]})
    {'features': {'[expect_a on x]': {'expect': 'expect_a', 'severity': 'critical', 'column': 'x', 'max_value': 1}}}
    """
    if isinstance(content, Mapping):
        return {key: _named(value) for key, value in content.items()}
    if not (
        isinstance(content, Sequence) and content and all(isinstance(i, Mapping) and "expect" in i for i in content)
    ):
        return list(content) if isinstance(content, tuple) else content
    found: dict[str, Any] = {}
    for item in content:
        check = Expectation.model_validate(item)
        about = f" on {', '.join(check.columns)}" if check.columns else ""
        name, number = f"[{check.expect}{about}]", 2
        while name in found:
            name, number = f"[{check.expect}{about} #{number}]", number + 1
        found[name] = dict(item)
    return found
