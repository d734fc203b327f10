"""The runbook names nothing that does not exist: families of doctor, errors, DAGs. For commands see test_docs.py."""

import re
from pathlib import Path

import pytest

from nightscore.doctor.examination import NAMES

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "runbook.md").read_text()
ALERTS = (
    "run failed",
    "deadline missed",
    "not published in time",
    "gate stopped",
    "drift high",
    "bytes billed high",
    "budget",
)
PARTS = ("What it means.", "Who is affected.", "First three minutes.", "Likely causes.", "It is over when", "**Wake")


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_a_section_with_all_parts(alert: str) -> None:
    [section] = re.findall(rf"^## {alert}\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL)
    assert [part for part in PARTS if part not in section] == []
    assert f"[{alert}](#{alert.replace(' ', '-')})" in PAGE


def test_families_exist() -> None:
    named = set(re.findall(r"--only ([a-z]+)", PAGE))
    assert len(named) > 4
    assert named <= set(NAMES)


def test_errors_exist() -> None:
    package = "".join(path.read_text() for path in (ROOT / "include" / "nightscore").rglob("*.py"))
    named = set(re.findall(r"\b[A-Z][A-Za-z]+Error\b", PAGE))
    assert len(named) > 6
    assert {name for name in named if f"class {name}(" not in package} == set()


def test_dags_exist() -> None:
    named = set(re.findall(r"the DAG\s`([a-z_]+)`", PAGE))
    assert named == {"roll_back", "model_lifecycle"}
    assert {name for name in named if not (ROOT / "dags" / f"{name}.py").is_file()} == set()
