"""Checks that ask no server, and the permissions that doctor tests."""

import re
from importlib import metadata
from pathlib import Path

import pytest

from nightscore.doctor.deployment import Deployment
from nightscore.doctor.examination import FAMILIES, NAMES
from nightscore.doctor.finding import Examined, exit_code, fault, not_checked, ok, unreachable, warning
from nightscore.doctor.permission_checks import ON_TABLES, ROLES, permissions
from nightscore.doctor.setting_checks import check_settings
from nightscore.doctor.version_checks import check_versions
from nightscore.operations import operations_tables
from nightscore.settings import VARIABLES

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "include" / "nightscore"
GROUPS = ("project", "features_dataset", "predictions_dataset", "staging_dataset", "operations_dataset", "bucket")


def place(folder: Path, **environment: str) -> Deployment:
    return Deployment(environment, folder, folder / "dags" / "pipelines")


def test_every_variable_that_is_read_is_known() -> None:
    text = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    named = set(re.findall(r"NIGHTSCORE_[A-Z]+(?:_[A-Z]+)*", text))
    assert len(named) > 8
    assert named <= set(VARIABLES)


def test_a_misspelt_variable(tmp_path: Path) -> None:
    found = list(check_settings(place(tmp_path, NIGHTSCORE_BUKET="b", NIGHTSCORE_QQQQ="1", NIGHTSCORE_PROJECT="p1")))
    assert [(item.check, item.status, item.fix) for item in found] == [
        ("NIGHTSCORE_BUKET", "warning", "Did you mean NIGHTSCORE_BUCKET? Rename it."),
        ("NIGHTSCORE_QQQQ", "warning", "Remove it."),
        ("variables", "fault", "Set NIGHTSCORE_BUCKET where this process gets its environment from."),
    ]


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    signers = {"NIGHTSCORE_TRUSTED_SIGNERS": str(tmp_path / "signers")}
    found = check_settings(place(tmp_path, NIGHTSCORE_PROJECT="my-project", NIGHTSCORE_BUCKET="bucket", **signers))
    assert [(item.check, item.status, item.found) for item in found if item.status != "ok"] == [
        (
            "pipelines' folder",
            "warning",
            f"There is no folder {tmp_path}/dags/pipelines, so this process knows no pipelines.",
        ),
        ("trusted signers", "fault", f"NIGHTSCORE_TRUSTED_SIGNERS names {tmp_path}/signers, which is no folder."),
    ]


def test_versions_out_of_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [item.status for item in check_versions(place(tmp_path))] == ["ok", "ok"]
    installed = metadata.version

    def version(name: str) -> str:
        return {"celery": "5.7.0", "pandas": "2.3.0"}.get(name) or installed(name)

    monkeypatch.setattr("nightscore.doctor.version_checks.metadata.version", version)
    found = [item for item in check_versions(place(tmp_path)) if item.status != "ok"]
    assert [(item.check, item.found, item.fix) for item in found] == [
        ("celery", "celery 5.7.0 is installed; <5.7 is needed.", "pip install 'celery<5.7'"),
        ("pandas", "pandas 2.3.0 is installed; >=3 is needed.", "pip install 'pandas>=3'"),
    ]


def test_permissions_are_known_to_roles() -> None:
    for group in GROUPS:
        names = permissions(group)
        assert names
        assert all(re.fullmatch(r"[a-z]+(\.[a-zA-Z]+){2}", name) and why for name, why in names.items())
    assert set(permissions("project")) <= set(ROLES)
    every = {name for group in GROUPS for name in permissions(group)}
    assert every >= ON_TABLES


def test_operations_tables_are_the_schemas_of_tables() -> None:
    assert operations_tables() == ("checks", "evidence", "fences", "publications", "quarantine", "runs")


def test_exit_codes() -> None:
    bad, lost = fault("a", "", ""), unreachable("a", "", "")
    cases = (([ok("a", "")], 0), ([not_checked("a", "")], 0), ([warning("a", "", "")], 0), ([bad], 2), ([bad, lost], 3))
    for findings, code in cases:
        assert exit_code([Examined("f", finding, 0.0) for finding in findings], strict=False) == code
    assert exit_code([Examined("f", warning("a", "", ""), 0.0)], strict=True) == 2


def test_families_are_named_once() -> None:
    assert len(set(NAMES)) == len(FAMILIES)
