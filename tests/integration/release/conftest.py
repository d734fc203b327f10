"""A bucket's folder of its own for every test, and folders of DAGs to release."""

import shutil
import uuid
from pathlib import Path

import pytest

from faults.fixtures import network
from nightscore.clients import build_storage
from nightscore.objects import Bucket
from nightscore.release import Releases

__all__ = ["network"]

ROOT = Path(__file__).parents[3]
MINIMAL = (ROOT / "tests" / "unit" / "specs" / "valid" / "minimal.yaml").read_text()


@pytest.fixture
def releases(settings):
    return Releases(Bucket(build_storage(settings), settings.bucket), f"dags-{uuid.uuid4().hex[:10]}")


@pytest.fixture
def folder(tmp_path):
    """Return a folder with this checkout's DAG files and two pipelines; `owner` tells one version from another."""

    def make(owner, pipelines=("cards", "loans"), name=None):
        made = tmp_path / (name or owner)
        (made / "__pycache__").mkdir(parents=True)
        (made / "__pycache__" / "scoring.cpython-311.pyc").write_bytes(b"not released")
        for file in (ROOT / "dags").glob("*.py"):
            shutil.copy(file, made)
        for pipeline in pipelines:
            (made / "pipelines" / pipeline).mkdir(parents=True)
            (made / "pipelines" / pipeline / "pipeline.yaml").write_text(f"owner: {owner}\n{MINIMAL}")
        return made

    return make
