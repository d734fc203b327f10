"""`nightscore models` as people run it: a process, its two streams and its exit code."""

import json
import os
import pickle
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from skops import io as skops_io

NIGHTSCORE = Path(sys.executable).parent / "nightscore"
ROWS = pd.DataFrame({"age": np.arange(20, 60), "limit_bal": np.linspace(0, 1, 40)})
FITTED = LogisticRegression().fit(ROWS, (ROWS["age"] > 40).astype(int))

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Path:
    """A model, a sample and a pickle in a folder."""
    skops_io.dump(FITTED, tmp_path / "model.skops")
    ROWS.to_parquet(tmp_path / "sample.parquet")
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"a": 1}))
    return tmp_path


@pytest.fixture
def name() -> str:
    return f"m{uuid.uuid4().hex[:12]}"


def register(nightscore: Run, name: str, *more: str, file: str = "model.skops") -> subprocess.CompletedProcess[str]:
    return nightscore("models", "register", name, file, "--sample", "sample.parquet", *more)


def only_object(text: str) -> dict[str, Any]:
    """Parse a stream that holds one JSON object and nothing else."""
    found = json.loads(text)
    assert isinstance(found, dict)
    return found


def test_a_model_is_registered_listed_and_shown(nightscore: Run, name: str) -> None:
    made = register(nightscore, name, "--alias", "champion", "--metric", "auc=0.75", "--description", "The first.")
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout.replace("\n", " ").startswith(
        f"Registered {name}/1, now {name}@champion: LogisticRegression, binary, 2 inputs, digest "
    )
    assert register(nightscore, name).returncode == 0

    listed = nightscore("models", "list")
    assert listed.returncode == 0
    [line] = [line for line in listed.stdout.splitlines() if name in line]
    assert line.split() == [name, "1,", "2", "champion", "→", "1"]

    shown = nightscore("models", "show", name)
    assert shown.returncode == 0
    lines = [line.split() for line in shown.stdout.splitlines()]
    assert lines[0] == [f"{name}/1"]
    assert ["auc", "0.75"] in lines
    assert ["classes", "0,", "1"] in lines
    assert ["description", "The", "first."] in lines
    assert ["age", "int64", "no"] in [line[:3] for line in lines]
    assert nightscore("models", "show", f"{name}@2").stdout.split()[0] == f"{name}/2"


def test_without_a_champion_the_newest_version_is_shown(nightscore: Run, name: str) -> None:
    register(nightscore, name)
    register(nightscore, name)
    shown = nightscore("models", "show", name, "--json")
    assert only_object(shown.stdout)["version"] == 2


def test_json_is_one_object_on_standard_output(nightscore: Run, name: str) -> None:
    made = only_object(register(nightscore, name, "--alias", "champion", "--json").stdout)
    assert (made["name"], made["version"], made["alias"], made["task"]) == (name, 1, "champion", "binary")
    shown = only_object(nightscore("models", "show", f"{name}@champion", "--json").stdout)
    assert {**shown, "alias": "champion"} == made
    listed = json.loads(nightscore("models", "list", "--json").stdout)
    assert {"name": name, "versions": [1], "aliases": {"champion": 1}} in listed


REFUSED: dict[str, tuple[tuple[str, ...], str, str]] = {
    "pickle": (
        ("models", "register", "{name}", "model.pkl", "--sample", "sample.parquet"),
        "ArtifactError",
        "model.pkl looks like a pickle",
    ),
    "metric": (
        ("models", "register", "{name}", "model.skops", "--sample", "sample.parquet", "--metric", "auc"),
        "ArgumentError",
        "--metric: 'auc' is not NAME=NUMBER.",
    ),
    "sample": (
        ("models", "register", "{name}", "model.skops", "--sample", "gone.parquet"),
        "SampleError",
        "There is no sample file gone.parquet.",
    ),
    "unknown": (("models", "show", "{name}"), "ModelNotFoundError", "There is no model '{name}' in gs://"),
    "reference": (("models", "show", "{name}@"), "ArgumentError", "'{name}@' is not a model"),
    "name": (
        ("models", "register", "Credit", "model.skops", "--sample", "sample.parquet"),
        "ArgumentError",
        "'Credit' is not a model's name",
    ),
    "alias": (
        ("models", "register", "{name}", "model.skops", "--sample", "sample.parquet", "--alias", "a/b"),
        "ArgumentError",
        "'a/b' is not an alias",
    ),
    "not_finite": (
        ("models", "register", "{name}", "model.skops", "--sample", "sample.parquet", "--metric", "auc=nan"),
        "ArgumentError",
        "--metric: 'auc=nan' is not NAME=NUMBER.",
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_is_refused_says_so_and_exits_with_2(
    nightscore: Run, name: str, case: tuple[tuple[str, ...], str, str]
) -> None:
    arguments, kind, words = case
    command = [argument.format(name=name) for argument in arguments]
    plain = nightscore(*command)
    assert plain.returncode == 2, plain.stderr
    assert plain.stdout == ""
    assert plain.stderr.startswith(f"{kind}: ")
    assert words.format(name=name) in " ".join(plain.stderr.split())
    assert "Traceback" not in plain.stderr

    as_json = nightscore(*command, "--json")
    assert as_json.returncode == 2
    found = only_object(as_json.stdout)
    assert (found["status"], found["error"], found["exit_code"]) == ("error", kind, 2)
    assert words.format(name=name) in found["message"]
    assert words.format(name=name) in " ".join(as_json.stderr.split())
    assert name not in [item["name"] for item in json.loads(nightscore("models", "list", "--json").stdout)]


def test_a_bucket_that_is_not_there(nightscore: Run) -> None:
    done = nightscore("models", "list", "--json", NIGHTSCORE_BUCKET="no-such-bucket")
    assert done.returncode == 2
    assert only_object(done.stdout)["error"] == "ObjectAccessError"
    assert "bucket does not exist" in " ".join(done.stderr.split())


def test_without_settings_it_says_which_to_set(nightscore: Run) -> None:
    done = nightscore("models", "list", NIGHTSCORE_BUCKET="")
    assert done.returncode == 2
    assert done.stderr.startswith("SettingError: The environment variable NIGHTSCORE_BUCKET is not set.")


def test_the_installed_command_is_the_same(environment: dict[str, str], folder: Path, name: str) -> None:
    def run(file: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [NIGHTSCORE, "models", "register", name, file, "--sample", "sample.parquet", "--json"],
            cwd=folder,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    refused = run("model.pkl")
    assert refused.returncode == 2
    assert only_object(refused.stdout)["error"] == "ArtifactError"
    assert refused.stderr.startswith("ArtifactError: model.pkl looks like a pickle.")
    made = run("model.skops")
    assert (made.returncode, made.stderr) == (0, "")
    assert only_object(made.stdout)["version"] == 1


def test_an_unknown_option_is_a_usage_error(nightscore: Run) -> None:
    done = nightscore("models", "list", "--jsn")
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such option" in done.stderr
