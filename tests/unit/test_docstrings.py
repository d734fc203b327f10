"""Every example in a docstring is executed."""

import doctest
import importlib
from pathlib import Path

import pytest

import nightscore

PACKAGE = Path(nightscore.__file__).parent
OTHER_ENVIRONMENT = PACKAGE / "local" / "bigquery_server"  # its libraries are not installed here

WITH_EXAMPLES = sorted(
    path for path in PACKAGE.rglob("*.py") if OTHER_ENVIRONMENT not in path.parents and ">>> " in path.read_text()
)


def module_name(path: Path) -> str:
    return ".".join(["nightscore", *path.relative_to(PACKAGE).with_suffix("").parts])


def test_modules_with_examples_are_found() -> None:
    assert len(WITH_EXAMPLES) >= 8
    assert {PACKAGE / "spec.py", PACKAGE / "errors.py", PACKAGE / "scoring" / "score.py"} <= set(WITH_EXAMPLES)


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=module_name)
def test_examples(path: Path) -> None:
    outcome = doctest.testmod(importlib.import_module(module_name(path)))
    assert outcome.failed == 0
    assert outcome.attempted > 0
