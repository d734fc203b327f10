"""Checkouts with the workflows' scripts in them."""

import shutil

import pytest

from workflows import ROOT, Checkout


@pytest.fixture
def environment(settings):
    """What a job says that is pointed at the local servers."""
    found = {
        "NIGHTSCORE_PROJECT": settings.project,
        "NIGHTSCORE_BUCKET": settings.bucket,
        "NIGHTSCORE_LOCATION": settings.location,
        "NIGHTSCORE_SERVICE_ACCOUNT": "",
        "BIGQUERY_EMULATOR_HOST": settings.bigquery_host,
        "BIGQUERY_STORAGE_EMULATOR_HOST": settings.bigquery_storage_host,
        "STORAGE_EMULATOR_HOST": settings.storage_host,
    }
    return {name: value for name, value in found.items() if value is not None}


@pytest.fixture
def checkout(tmp_path):
    """A repository with what the workflows' scripts read."""
    folder = tmp_path / "checkout"
    (folder / "include" / "nightscore").mkdir(parents=True)
    shutil.copytree(ROOT / ".github", folder / ".github")
    for name in ("pyproject.toml", "README.md", "include/nightscore/__init__.py"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n### Added\n\n* More.\n")
    found = Checkout(folder, {"GITHUB_REPOSITORY": "example/nightscore"})
    found.first = found.commit()
    return found
