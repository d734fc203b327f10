"""Hostile files of every format are refused before any of their code runs, and without harm to who looks at them.

They are loaded in a process of their own, which has to end by itself: one that is killed by a signal has read beyond
its memory, and one that hangs walks in a circle.
"""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

import hostile_files
from nightscore.registry.format import ArtifactError, UntrustedTypesError
from nightscore.registry.formats import FORMATS

pytestmark = pytest.mark.filterwarnings("ignore")

PROGRAM = Path(hostile_files.__file__)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def files(folder: Path) -> dict[str, tuple[bytes, str]]:
    return hostile_files.every_file(folder)


@pytest.fixture(scope="module")
def endings(folder: Path, files: dict[str, tuple[bytes, str]]) -> dict[str, str]:
    """How the loading of each ended, in one process that had a module with a canary to import."""
    (folder / "files").mkdir()
    (folder / "canary_module.py").write_text(f"open({str(folder / 'canary')!r}, 'w').close()\nclass Canary: pass\n")
    for name, (data, _) in files.items():
        (folder / "files" / name).write_bytes(data)
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder / "files")],
        capture_output=True, text=True, timeout=240, check=False, cwd=folder, env={"PYTHONPATH": str(folder)},
    )  # fmt: skip
    found = dict(json.loads(line) for line in done.stdout.splitlines())
    left = [name for name in sorted(files) if name not in found]
    assert done.returncode == 0, f"ended with {done.returncode} at {left[:1]}: {done.stderr[-2000:]}"
    return found


def test_every_hostile_file_is_refused(endings: dict[str, str], files: dict[str, tuple[bytes, str]]) -> None:
    assert len(files) > 100
    assert endings.keys() == files.keys()
    wrong = {
        name: told
        for name, told in endings.items()
        if not told.startswith(("ArtifactError: ", "UntrustedTypesError: "))
        or files[name][1] not in told
        or name not in told
    }
    assert wrong == {}


def test_every_refusal_is_bounded(endings: dict[str, str]) -> None:
    assert {name: told for name, told in endings.items() if len(told) > 900} == {}


def test_nothing_of_them_was_run(endings: dict[str, str], folder: Path) -> None:
    assert len(endings) > 100
    assert {path.name for path in folder.iterdir()} <= {"files", "canary_module.py", "__pycache__"}


def test_the_canary_would_have_sung(tmp_path: Path) -> None:
    data, _ = hostile_files.pickles(tmp_path)["pickle.skops"]
    (tmp_path / "file").write_bytes(data)
    subprocess.run([sys.executable, str(PROGRAM), "--sing", str(tmp_path / "file")], check=True, timeout=60)
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize(("said", "given"), list(itertools.permutations(FORMATS, 2)))
def test_a_file_of_another_format_than_its_manifest_says_is_refused(said: str, given: str) -> None:
    from model_files import LABEL, NUMBERS

    form = FORMATS[said]
    with pytest.raises((ArtifactError, UntrustedTypesError)):
        form.audit("model", form.describe("model", _good(given, NUMBERS, LABEL)))


def _good(name: str, rows: object, labels: object) -> bytes:
    if name == "lightgbm":
        import lightgbm

        return lightgbm.LGBMClassifier(n_estimators=2, verbose=-1).fit(rows, labels).booster_.model_to_string().encode()
    if name == "xgboost":
        import xgboost

        return bytes(xgboost.XGBClassifier(n_estimators=2).fit(rows, labels).get_booster().save_raw("json"))
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression().fit(rows, labels)
    if name == "onnx":
        from skl2onnx import to_onnx

        return to_onnx(fitted, rows.to_numpy(dtype="float32")[:1]).SerializeToString()
    from skops import io as skops_io

    return skops_io.dumps(fitted)
