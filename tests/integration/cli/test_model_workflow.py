"""The workflow that checks and registers models: its own scripts, run in a checkout as GitHub would run them."""

import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.linear_model import LogisticRegression
from skops import io as skops_io

ROOT = Path(__file__).resolve().parents[3]
WORKFLOW = yaml.load((ROOT / ".github" / "workflows" / "models.yml").read_text(), Loader=yaml.BaseLoader)
ROWS = pd.DataFrame({"age": np.arange(20, 60), "limit_bal": np.linspace(0, 1, 40)})


def step(job, name):
    [found] = [item for item in WORKFLOW["jobs"][job]["steps"] if item.get("name") == name]
    return found


def test_actions_are_pinned_by_commit_and_nobody_holds_a_key():
    used = [item["uses"] for job in WORKFLOW["jobs"].values() for item in job["steps"] if "uses" in item]
    assert len(used) == 5
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action) for action in used)
    assert WORKFLOW["jobs"]["register"]["permissions"] == {"contents": "read", "id-token": "write"}
    assert "id-token" not in WORKFLOW["jobs"]["check"]["permissions"], "a pull request has no identity at Google"
    assert "secrets." not in (ROOT / ".github" / "workflows" / "models.yml").read_text()


@pytest.fixture
def checkout(tmp_path, environment):
    """A repository with a README, and what GitHub says of a run in it."""

    class Checkout:
        folder = tmp_path

        def git(self, *arguments):
            identity = ("-c", "user.name=ci", "-c", "user.email=ci@example.com", "-c", "init.defaultBranch=main")
            command = ["git", *identity, *arguments]
            return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

        def commit(self):
            self.git("add", "--all")
            self.git("commit", "--message", "Change")
            return self.git("rev-parse", "HEAD")

        def run(self, job, name, **variables):
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            summary = tmp_path.parent / f"{tmp_path.name}-summary.md"
            known = {**os.environ, **environment, "PATH": path, "GITHUB_STEP_SUMMARY": str(summary), **variables}
            script = step(job, name)["run"]
            return subprocess.run(
                ["bash", "-c", script], cwd=tmp_path, env=known, capture_output=True, text=True, check=False
            )

    found = Checkout()
    found.environment = environment
    found.git("init")
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

    told = checkout.run("check", "Check", BEFORE=checkout.first)
    assert told.returncode == 0, told.stderr
    text = (checkout.folder / "checked.md").read_text()
    assert "# model.skops" in text
    assert "| task | binary |" in text
    (checkout.folder / "checked.md").unlink()

    made = checkout.run("register", "Register", BEFORE="0" * 40, GITHUB_SHA=second)
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
    assert checkout.run("register", "Register", BEFORE=second, GITHUB_SHA=unrelated).stdout == ""
    (folder / "model.skops").write_bytes(b"broken")
    third = checkout.commit()
    (checkout.folder / "models" / "README.md").write_text("not a model\n")
    (checkout.folder / "models" / "--help").mkdir()
    (checkout.folder / "models" / "--help" / "facts.yaml").write_text("{}")
    third = checkout.commit()
    refused = checkout.run("check", "Check", BEFORE=unrelated)
    assert refused.returncode == 1
    assert "is of no format that nightscore reads" in refused.stderr
    assert f"# {name} is refused" in (checkout.folder / "checked.md").read_text()
    refused = checkout.run("register", "Register", BEFORE=unrelated, GITHUB_SHA=third)
    assert refused.returncode == 2
