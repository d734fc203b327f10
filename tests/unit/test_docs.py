"""The documentation keeps its word: generated pages are fresh, links lead somewhere, commands that it names exist."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from nightscore.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
MAKE = re.compile(r"(?<![\w/.-])make((?: +(?:[a-z-]+|[A-Z]+=(?:\"[^\"]*\"|\S+)))+)")
NIGHTSCORE = re.compile(r"(?<![.\w])nightscore((?: +[^\s&|;]+)+)")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return FENCED.sub("", page.read_text())


def code(page: Path) -> Iterator[str]:
    """Yield what a page shows as commands: the lines of fenced blocks without a language, and spans."""
    text = page.read_text()
    for language, block in FENCED.findall(text):
        if not language:
            yield from block.splitlines()
    yield from SPAN.findall(FENCED.sub("", text))


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_fresh() -> None:
    pages = generator().pages()
    assert {path.name for path in pages} == {"spec.md", "cli.md", "pipeline.schema.json"}
    stale = [path.name for path, content in pages.items() if path.read_text() != content]
    assert not stale, "run `make docs`"


def test_pages_are_found() -> None:
    assert {ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "docs" / "quick-start.md"} <= set(PAGES)
    assert sum(len(LINK.findall(prose(page))) for page in PAGES) > 30


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_somewhere(page: Path) -> None:
    dead = []
    for link in LINK.findall(prose(page)):
        path, _, anchor = link.partition("#")
        if path.startswith(("https://", "http://")):
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert not dead


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_exist(page: Path) -> None:
    named = {
        word
        for line in code(page)
        for words in MAKE.findall(line.split("#")[0])
        for word in shlex.split(words)
        if "=" not in word
    }
    assert named <= TARGETS


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_nightscore_commands_and_their_options_exist(page: Path) -> None:
    unknown = [fault for line in code(page) for words in NIGHTSCORE.findall(line) for fault in faults(words.split())]
    assert not unknown


def test_commands_are_found() -> None:
    lines = [line for page in PAGES for line in code(page)]
    assert sum(len(MAKE.findall(line)) for line in lines) > 10
    assert sum(len(NIGHTSCORE.findall(line)) for line in lines) > 30
    assert faults(["runs", "shw"]) == ["nightscore runs shw"]
    assert faults(["run", "cards", "--dry"]) == ["nightscore run … --dry"]
    assert faults(["local", "up", "--bigquery-port", "9050"]) == []


def faults(words: list[str]) -> list[str]:
    """Return what is wrong with the words after `nightscore`: an unknown command, or an option it does not have."""
    command: Any = typer.main.get_command(app)
    path = ["nightscore"]
    while words and hasattr(command, "commands"):
        if not re.fullmatch(r"[a-z]+", words[0]):
            return []  # `nightscore …`, `nightscore --help`
        path.append(words.pop(0))
        if path[-1] not in command.commands:
            return [" ".join(path)]
        command = command.commands[path[-1]]
    known = {option for item in command.params for option in item.opts} | {"--help"}
    given = [word.strip("[]").split("=")[0] for word in words if word.strip("[").startswith("-")]
    return [f"{' '.join(path)} … {option}" for option in given if option not in known]
