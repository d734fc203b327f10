"""`make workflows`: what it says of a workflow that is wrong in a way that each of its linters alone finds."""

import os
import shutil
import subprocess
import sys

import pytest

from workflows import FILES, ROOT

LINTERS = ROOT / ".nightscore" / "workflow-linters"
CHECKOUT = "actions/checkout@de0fac2e4500dabe0009e67214ff5f5447ce83dd  # v6.0.2"
SOUND = f"""\
name: sound
on: push
permissions:
  contents: read
concurrency:
  group: sound
jobs:
  build:
    runs-on: ubuntu-24.04
    timeout-minutes: 5
    steps:
      - uses: {CHECKOUT}
        with:
          persist-credentials: false
      - name: Say
        env:
          WHO: ${{{{ vars.WHO }}}}
        run: echo "$WHO"
"""
BROKEN = {
    "actionlint": ("vars.WHO", "var.WHO", 'undefined variable "var"'),
    "shellcheck": ('echo "$WHO"', "echo $WHO", "SC2086"),
    "zizmor": (CHECKOUT, "actions/checkout@v4", "unpinned-uses"),
}

pytestmark = pytest.mark.skipif(
    shutil.which("npm") is None and "CI" not in os.environ,
    reason="Node.js is not installed: workflows were not linted here.",
)


@pytest.fixture(scope="module")
def lint():
    make = ["make", "--silent", f"{LINTERS.relative_to(ROOT)}/.installed"]
    subprocess.run(make, cwd=ROOT, check=True, capture_output=True)

    def run(*files):
        command = [
            sys.executable,
            str(ROOT / ".github" / "scripts" / "lint_workflows.py"),
            str(LINTERS),
            *map(str, files),
        ]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def sound(tmp_path):
    """A workflow without a fault, and one with a fault for each linter."""
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    for name, (good, bad, _) in {"sound": ("", "", ""), **BROKEN}.items():
        text = SOUND.replace(good, bad)
        assert (text == SOUND) == (name == "sound")
        (folder / f"{name}.yml").write_text(text)
    return folder / "sound.yml"


def test_the_workflows_are_clean(lint, sound):
    done = lint(*FILES, sound)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_linter_finds_what_is_its_own(lint, sound):
    done = lint(*(sound.with_name(f"{linter}.yml") for linter in BROKEN))
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert [linter for linter, (_, _, wanted) in BROKEN.items() if wanted not in said] == []
    for linter in BROKEN:
        assert f"{linter}.yml" in said
