"""The BigQuery server's virtual environment: Python 3.13 and a frozen set of packages, apart from ours.

local-bigquery needs Python 3.13 and a newer FastAPI than Airflow allows: it cannot live in the project's environment.
"""

import fcntl
import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from nightscore.errors import ConfigurationError, TransientError, shorten

REQUIREMENTS = Path(__file__).parent / "bigquery_server" / "requirements.txt"
PYTHON = "3.13"
MARKER = "requirements.sha256"
LONGEST_OUTPUT = 1500


class PythonMissingError(ConfigurationError):
    """No tool can make the environment of the BigQuery server."""

    def __init__(self, missing: str, advice: str, output: str = "") -> None:
        detail = f"\n{shorten(output.strip(), LONGEST_OUTPUT)}" if output.strip() else ""
        super().__init__(f"The local BigQuery server needs {missing}. {advice}{detail}")


class InstallationError(TransientError):
    """The packages of the BigQuery server could not be installed."""

    def __init__(self, environment: Path, output: str) -> None:
        super().__init__(
            f"Installing {REQUIREMENTS} into {environment} failed; without it there is no local BigQuery. "
            f"Is the package index reachable?\n{shorten(output.strip(), LONGEST_OUTPUT)}"
        )


def ensure(environment: Path, progress: Callable[[str], None]) -> Path:
    """Return the environment's interpreter, creating the environment unless it already holds these requirements."""
    python = environment / "bin" / "python"
    if _is_current(environment):
        return python
    environment.parent.mkdir(parents=True, exist_ok=True)
    with environment.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several roots may share one environment
        if not _is_current(environment):
            progress(f"Creating the BigQuery server's environment in {environment} (once) …")
            _create(environment, python)
    return python


def home(environment: Path) -> Path:
    """Return the home directory of servers run from `environment`: DuckDB keeps its extensions there."""
    return environment / "home"


def _is_current(environment: Path) -> bool:
    marker = environment / MARKER
    return marker.is_file() and marker.read_text() == _digest() and (environment / "bin" / "python").exists()


def _digest() -> str:
    return hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()


def _create(environment: Path, python: Path) -> None:
    uv = _find_uv()
    made = _run([*uv, "venv", "--quiet", "--clear", "--python", _find_python(uv), str(environment)])
    if made.returncode:
        advice = f"Install it, for example with `uv python install {PYTHON}` or `pyenv install {PYTHON}`."
        raise PythonMissingError(f"Python {PYTHON}", advice, made.stderr)
    # --no-deps: the set is complete, and local-bigquery's own bound on duckdb would refuse it.
    installed = _run(
        [*uv, "pip", "install", "--quiet", "--python", str(python), "--no-deps", "--requirement", str(REQUIREMENTS)]
    )
    if installed.returncode:
        raise InstallationError(environment, installed.stderr)
    home(environment).mkdir(exist_ok=True)
    (environment / MARKER).write_text(_digest())


def _find_uv() -> list[str]:
    beside, on_path = Path(sys.executable).parent / "uv", shutil.which("uv")
    candidates = [[str(beside)]] if beside.exists() else []
    candidates += [[on_path]] if on_path else []
    candidates += [[sys.executable, "-m", "uv"]] if importlib.util.find_spec("uv") else []
    for candidate in candidates:
        if _run([*candidate, "--version"]).returncode == 0:  # a shim may be on PATH without a uv behind it
            return candidate
    raise PythonMissingError("uv", "Install it, for example with `pip install uv`.")


def _find_python(uv: Sequence[str]) -> str:
    """Return a path to Python 3.13, or the bare version for uv to download."""
    found = _run([*uv, "python", "find", PYTHON])
    if found.returncode == 0 and found.stdout.strip():
        return found.stdout.strip()
    return next(_pyenv_pythons(), PYTHON)


def _pyenv_pythons() -> Iterator[str]:
    # pyenv's shim of a version that is not selected fails, and makes `uv python find` fail instead of looking further.
    pyenv = shutil.which("pyenv")
    root = _run([pyenv, "root"]).stdout.strip() if pyenv else ""
    if root:
        for folder in sorted(Path(root, "versions").glob(f"{PYTHON}.*")):
            python = folder / "bin" / "python"
            if re.fullmatch(r"[\d.]+", folder.name) and python.exists():
                yield str(python)


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # ours, no shell
    except OSError as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))
