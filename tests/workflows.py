"""The workflows of .github as data, and their own scripts run as GitHub would run them."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.yml"))


def load(text: str) -> dict[str, Any]:
    """Return a workflow, `on` as a text and not as YAML's true."""
    return yaml.load(text, Loader=yaml.BaseLoader)


def step(workflow: str, job: str, name: str) -> dict[str, Any]:
    """Return the one step of this name."""
    steps = load((FOLDER / f"{workflow}.yml").read_text())["jobs"][job]["steps"]
    [found] = [item for item in steps if item.get("name") == name]
    return found


class Checkout:
    """A repository, in which steps run."""

    def __init__(self, folder: Path, environment: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.environment = dict(environment or {})
        self.summary = folder.parent / f"{folder.name}-summary.md"
        self.output = folder.parent / f"{folder.name}-output.txt"
        self.git("init")

    def git(self, *arguments: str, **environment: str) -> str:
        """Run git; return what it prints."""
        identity = ("-c", "user.name=ci", "-c", "user.email=ci@example.com", "-c", "init.defaultBranch=main")
        done = subprocess.run(
            ["git", *identity, *arguments],
            cwd=self.folder,
            env={**os.environ, **environment},
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def commit(self, date: str = "2026-11-30T22:55:01+0000") -> str:
        """Commit everything; return the commit."""
        self.git("add", "--all")
        self.git("commit", "--allow-empty", "--message", "Change", GIT_COMMITTER_DATE=date)
        return self.git("rev-parse", "HEAD")

    def run(self, workflow: str, job: str, name: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a step's script by bash as GitHub does; every variable that the step reads must be given."""
        found = step(workflow, job, name)
        missing = set(found.get("env", {})) - set(variables) - set(self.environment)
        assert not missing, f"the step also reads {missing}"
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        known = {
            **os.environ,
            "PATH": path,
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "GITHUB_OUTPUT": str(self.output),
            **self.environment,
            **variables,
        }
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-c", found["run"]],
            cwd=self.folder,
            env=known,
            capture_output=True,
            text=True,
            check=False,
        )
