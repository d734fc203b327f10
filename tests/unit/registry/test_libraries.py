"""Library versions: what is missing or too different is refused with its fix, harmless differences are told."""

import subprocess
import sys
from pathlib import Path

import pytest

from nightscore.registry import libraries
from nightscore.registry.formats import FORMATS
from nightscore.registry.libraries import LibraryError, installed, require_installed, require_libraries


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Versions that are installed, as far as `registry.libraries` can see."""
    found: dict[str, str] = {}

    def version(name: str) -> str:
        if name not in found:
            raise libraries.PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr(libraries, "version", version)
    return found


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("onnx", "pip install 'nightscore[onnx]'"),
        ("lightgbm", "pip install 'nightscore[lightgbm]'"),
        ("xgboost", "pip install 'nightscore[xgboost]'"),
        ("sklearn-skops", "pip install scikit-learn"),
    ],
)
def test_a_missing_library_is_refused_with_the_command_that_installs_it(
    name: str, fix: str, here: dict[str, str]
) -> None:
    form = FORMATS[name]
    here.update(dict.fromkeys(form.LIBRARIES, "1.0"))
    gone = {"sklearn-skops": "scikit-learn"}.get(name, name)
    del here[gone]
    with pytest.raises(LibraryError) as caught:
        require_installed("model.bin", form.LIBRARIES, form.EXTRA)
    assert str(caught.value) == f"model.bin needs {gone}, which is not installed here. Install it: {fix}"


def test_another_distribution_of_the_same_module_will_do(here: dict[str, str]) -> None:
    here.update({"xgboost-cpu": "3.2.0", "onnxruntime-gpu": "1.31.1"})
    assert installed("xgboost") == "3.2.0"
    assert require_installed("m", ("xgboost", "onnxruntime"), None) == {"xgboost": "3.2.0", "onnxruntime": "1.31.1"}


@pytest.mark.parametrize(
    ("name", "registered", "now", "fault", "fix"),
    [
        ("scikit-learn", "1.8.2", "1.9.1", "another minor version", "'scikit-learn==1.8.*'"),
        ("scikit-learn", "1.10.0", "1.9.1", "another minor version", "'scikit-learn==1.10.*'"),
        ("lightgbm", "3.3.5", "4.7.0", "another major version", "'lightgbm==3.*'"),
        ("xgboost", "3.4.0", "3.2.0", "an older one may not read the file rightly", "'xgboost>=3.4'"),
        ("onnxruntime", "1.31.1", "1.20.0", "an older one may not read the file rightly", "'onnxruntime>=1.31'"),
        ("skops", "0.16.0", "0.14.0", "an older one may not read the file rightly", "'skops>=0.16'"),
        ("numpy", "2.4.6", "3.0.0", "another major version", "'numpy==2.*'"),
        ("scikit-learn", "nightly", "1.9.1", "not a version that can be compared", "'scikit-learn==nightly.*'"),
    ],
)
def test_a_version_that_is_too_different_is_refused_with_its_fix(
    name: str, registered: str, now: str, fault: str, fix: str, here: dict[str, str]
) -> None:
    here[name] = now
    with pytest.raises(LibraryError) as caught:
        require_libraries("m/7", {name: registered}, None)
    assert str(caught.value).startswith(f"m/7 was registered with {name} {registered}, and {now} is installed here: ")
    assert fault in str(caught.value)
    assert f"Install {fix}, or register the model again with {name} {now}." in str(caught.value)


@pytest.mark.parametrize(
    ("name", "registered", "now"),
    [
        ("xgboost", "3.2.0", "3.4.1"),
        ("lightgbm", "4.6.0", "4.7.0"),
        ("scikit-learn", "1.9.0", "1.9.1"),
        ("onnxruntime", "1.31.0", "1.40.0"),
        ("onnx", "1.23.2", "1.20.0"),
        ("numpy", "2.4.6", "2.1.0"),
    ],
)
def test_a_harmless_difference_is_a_warning(name: str, registered: str, now: str, here: dict[str, str]) -> None:
    here[name] = now
    told = [f"m/7 was registered with {name} {registered}, and {now} is installed here."]
    assert require_libraries("m/7", {name: registered}, None) == told
    assert require_libraries("m/7", {name: now}, None) == []


def test_a_format_imports_its_own_libraries_only(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
import pandas as pd
from sklearn.linear_model import LogisticRegression
from skops import io
from nightscore.registry.examination import examine
rows = pd.DataFrame({"a": [0.0, 1.0, 2.0, 3.0], "b": [1.0, 0.0, 1.0, 0.0]})
io.dump(LogisticRegression().fit(rows, [0, 0, 1, 1]), "m.skops")
rows.to_parquet("s.parquet")
found = examine("m", Path("m.skops"), Path("s.parquet"))
assert found.manifest.format == "sklearn-skops"
print(sorted({"onnx", "onnxruntime", "lightgbm", "xgboost", "skl2onnx"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120
    )
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_asking_for_a_format_imports_no_library() -> None:
    program = (
        "import sys; import nightscore.registry.store; "
        "print(sorted({'onnx', 'onnxruntime', 'lightgbm', 'xgboost', 'sklearn', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"
