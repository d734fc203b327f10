"""`nightscore evidence` as people run it, before there is any night to show."""

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.linear_model import LogisticRegression
from skops import io as skops_io


@pytest.fixture
def pipeline(nightscore: Callable[..., Any], tmp_path: Path) -> str:
    """A pipeline with a champion and a challenger that never ran."""
    rows = pd.DataFrame({"age": np.arange(20, 60)})
    rows.to_parquet(tmp_path / "sample.parquet")
    skops_io.dump(LogisticRegression().fit(rows, rows["age"] > 40), tmp_path / "model.skops")
    name = f"p{uuid.uuid4().hex[:10]}"
    for alias in ("champion", "challenger"):
        made = nightscore("models", "register", name, "model.skops", "--sample", "sample.parquet", "--alias", alias)
        assert made.returncode == 0
    spec = {
        "features": {"table": f"{name}.features", "partition": "day", "keys": ["id"]},
        "model": {"name": name, "challengers": ["challenger"]},
        "predictions": {"table": f"{name}.predictions"},
        "promotion": {"min_nights": 2},
    }
    folder = tmp_path / "dags" / "pipelines" / name
    folder.mkdir(parents=True)
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(spec))
    return name


def test_without_a_night_it_says_so_and_the_policy_does_not_pass(nightscore, pipeline):
    done = nightscore("evidence", pipeline)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == (
        f"{pipeline}: {pipeline}/2 beside {pipeline}/1: there is no night on which both scored the same rows."
    )
    [rule] = [line.split() for line in lines if line.startswith("min_nights")]
    assert rule == ["min_nights", "NO", "at", "least", "2", "0", "nights"]
    found = json.loads(nightscore("evidence", pipeline, "--challenger", "1", "--champion", "2", "--json").stdout)
    assert (found["champion"], found["challenger"], found["nights"]) == (f"{pipeline}/2", f"{pipeline}/1", [])
    assert found["findings"] == [{"rule": "min_nights", "passed": False, "found": "0 nights", "wanted": "at least 2"}]


def test_a_version_that_does_not_exist_is_told_with_what_there_is(nightscore, pipeline):
    done = nightscore("evidence", pipeline, "--challenger", "challengr")
    assert done.returncode == 2
    assert "has no alias 'challengr'. Did you mean `challenger`?" in done.stderr


def test_a_pipeline_without_challengers_must_be_told_which(nightscore, pipeline, tmp_path):
    path = tmp_path / "dags" / "pipelines" / pipeline / "pipeline.yaml"
    spec = yaml.safe_load(path.read_text())
    del spec["model"]["challengers"]
    path.write_text(yaml.safe_dump(spec))
    done = nightscore("evidence", pipeline)
    assert done.returncode == 2
    assert "model.challengers names none. Say which with --challenger." in done.stderr
