"""The workflow that checks and registers models: its own scripts, run in a checkout as GitHub would run them."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from skops import io as skops_io

from workflows import FOLDER, Checkout, load

ROWS = pd.DataFrame({"age": np.arange(20, 60), "limit_bal": np.linspace(0, 1, 40)})


def test_only_a_merge_has_an_identity_at_google():
    jobs = load((FOLDER / "models.yml").read_text())["jobs"]
    assert jobs["register"]["permissions"] == {"contents": "read", "id-token": "write"}
    assert "id-token" not in jobs["check"]["permissions"]


@pytest.fixture
def checkout(tmp_path, environment):
    """A repository with a README."""
    found = Checkout(tmp_path, environment)
    (tmp_path / "README.md").write_text("models\n")
    found.first = found.commit()
    return found


def test_a_pull_request_is_told_and_a_merge_is_registered_as_challenger(checkout):
    name = f"m{uuid.uuid4().hex[:12]}"
    folder = checkout.folder / "models" / name
    folder.mkdir(parents=True)
    skops_io.dump(LogisticRegression().fit(ROWS, ROWS["age"] > 40), folder / "model.skops")
    ROWS.to_parquet(folder / "sample.parquet")
    (folder / "facts.yaml").write_text("owner: risk-ml\nmetrics: {auc: 0.75}\n")
    second = checkout.commit()

    told = checkout.run("models", "check", "Check", BEFORE=checkout.first)
    assert told.returncode == 0, told.stderr
    text = (checkout.folder / "checked.md").read_text()
    assert "# model.skops" in text
    assert "| task | binary |" in text
    (checkout.folder / "checked.md").unlink()

    made = checkout.run("models", "register", "Register", BEFORE="0" * 40, GITHUB_SHA=second)
    assert made.returncode == 0, made.stderr
    shown = subprocess.run(
        [Path(sys.executable).parent / "nightscore", "models", "show", f"{name}@challenger", "--json"],
        env={**os.environ, **checkout.environment},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(shown.stdout)
    assert (found["version"], found["owner"], found["git_revision"]) == (1, "risk-ml", second)

    (checkout.folder / "README.md").write_text("more\n")
    unrelated = checkout.commit()
    assert checkout.run("models", "register", "Register", BEFORE=second, GITHUB_SHA=unrelated).stdout == ""
    (folder / "model.skops").write_bytes(b"broken")
    third = checkout.commit()
    (checkout.folder / "models" / "README.md").write_text("not a model\n")
    (checkout.folder / "models" / "--help").mkdir()
    (checkout.folder / "models" / "--help" / "facts.yaml").write_text("{}")
    third = checkout.commit()
    refused = checkout.run("models", "check", "Check", BEFORE=unrelated)
    assert refused.returncode == 1
    assert "is of no format that nightscore reads" in refused.stderr
    assert f"# {name} is refused" in (checkout.folder / "checked.md").read_text()
    refused = checkout.run("models", "register", "Register", BEFORE=unrelated, GITHUB_SHA=third)
    assert refused.returncode == 2
