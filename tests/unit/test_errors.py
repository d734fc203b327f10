"""The base of every error: which branch it is on, and words that stay bounded."""

import importlib
import inspect
from pathlib import Path

import pytest

import nightscore
from nightscore.errors import (
    ConfigurationError,
    GateRefusedError,
    NightscoreError,
    TransientError,
    listed,
    near_miss,
    shorten,
)

PACKAGE = Path(nightscore.__file__).parent
SKIPPED = ("bigquery_server", "orchestration", "demo")  # need another environment, or Airflow, or hold none


def error_classes() -> list[type[NightscoreError]]:
    found: dict[str, type[NightscoreError]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE).with_suffix("")
        if path.stem.startswith("__") or relative.parts[0] in SKIPPED or "bigquery_server" in relative.parts:
            continue
        if "(ConfigurationError)" not in (text := path.read_text()) and "Error):" not in text:
            continue
        module = importlib.import_module(".".join(["nightscore", *relative.parts]))
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, NightscoreError):
                found[f"{kind.__module__}.{kind.__qualname__}"] = kind
    return list(found.values())


@pytest.mark.parametrize(
    ("kind", "code"), [(GateRefusedError, 1), (ConfigurationError, 2), (TransientError, 3), (NightscoreError, 2)]
)
def test_exit_codes(kind: type[NightscoreError], code: int) -> None:
    assert kind("x").exit_code == code


@pytest.mark.filterwarnings("ignore:module .sre_:DeprecationWarning")  # Great Expectations imports them
def test_every_error_of_the_package_is_on_exactly_one_branch() -> None:
    branches = (GateRefusedError, ConfigurationError, TransientError)
    classes = [kind for kind in error_classes() if kind is not NightscoreError]
    assert len(classes) >= 20
    for kind in classes:
        assert sum(issubclass(kind, branch) for branch in branches) == 1, kind


@pytest.mark.parametrize(
    ("value", "limit", "text"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        (12345, 4, "123…"),
        ("", 3, ""),
        (None, 10, "None"),
    ],
)
def test_shorten(value: object, limit: int, text: str) -> None:
    assert shorten(value, limit) == text


@pytest.mark.parametrize(
    ("values", "most", "text"),
    [
        ([], 6, ""),
        (["a"], 6, "a"),
        ([1, 2, 3], 3, "1, 2, 3"),
        ([1, 2, 3, 4], 3, "1, 2, 3 … and 1 more"),
        (range(1000), 2, "0, 1 … and 998 more"),
    ],
)
def test_listed(values: list[object], most: int, text: str) -> None:
    assert listed(values, most) == text


def test_listed_stays_bounded() -> None:
    assert len(listed(["x" * 10_000] * 10_000)) < 1_000


@pytest.mark.parametrize(
    ("name", "allowed", "sentence"),
    [
        ("limit_ball", ["age", "limit_bal"], "Did you mean `limit_bal`?"),
        ("zzz", ["b", "a"], "Allowed: a, b."),
        ("zzz", [], "There are none."),
        ("", ["a"], "Allowed: a."),
        ("zzz", [*"abcdefghijklmnopqr"], "Allowed: a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p … and 2 more."),
    ],
)  # fmt: skip
def test_near_miss(name: str, allowed: list[str], sentence: str) -> None:
    assert near_miss(name, allowed) == sentence
