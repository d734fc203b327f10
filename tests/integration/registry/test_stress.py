"""Sixteen writers of one model, half of them killed: versions are complete or absent, and no alias ever dangles."""

import itertools
import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from lightgbm import LGBMClassifier
from pyarrow import parquet
from sklearn.linear_model import LogisticRegression
from skops import io as skops_io

from nightscore.registry.verification import verify
from nightscore.run import build_services
from nightscore.spec import ModelReference

PROGRAM = Path(__file__).with_name("registering.py")
FRAME = pd.DataFrame({"age": np.linspace(18, 90, 100), "limit_bal": np.linspace(0, 1, 100) ** 2})
WRITERS, ROUNDS = 16, 4


def test_sixteen_writers_of_which_half_are_killed_leave_a_registry_that_is_whole(local_servers, settings, tmp_path):
    name = f"m{uuid.uuid4().hex[:12]}"
    skops_io.dump(LogisticRegression().fit(FRAME, FRAME.age > 40), tmp_path / "model.skops")
    booster = LGBMClassifier(n_estimators=2, verbose=-1).fit(FRAME, FRAME.age > 40).booster_
    booster.save_model(tmp_path / "model.txt")
    parquet.write_table(pa.Table.from_pandas(FRAME, preserve_index=False), tmp_path / "sample.parquet")
    done = subprocess.run(
        [sys.executable, str(PROGRAM), name, str(tmp_path), str(WRITERS), str(ROUNDS)],
        env={**os.environ, **local_servers.environment()},
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    codes = json.loads(done.stdout)
    assert set(codes[1::2]) == {0}, "who was not killed has finished"
    assert -signal.SIGKILL in codes[::2], "some were killed while they worked"

    registry = build_services(settings).registry
    told = [json.loads(line) for path in sorted(tmp_path.glob("*.log")) for line in path.read_text().splitlines()]
    registered = {item["registered"]: item["digest"] for item in told if "registered" in item}
    assert len(registered) == sum("registered" in item for item in told), "nobody was given another's number"
    for number, digest in registered.items():
        found = registry.resolve(ModelReference(name=name, version=number))
        assert found.digest == digest

    found = list(verify(registry, name))
    assert [item for item in found if item.faults] == []
    formats = {registry.resolve(ModelReference(name=name, version=n)).manifest.format for n in registered}
    assert formats == {"sklearn-skops", "lightgbm"}
    complete = [item.label for item in found if "/" in item.label and item.files]
    assert complete == [f"{name}/{number}" for number in registry.versions(name)]
    assert set(registered) <= set(registry.versions(name))
    assert {item.label for item in found if "@" in item.label} == {f"{name}@challenger", f"{name}@champion"}

    for alias in registry.iter_aliases(name):
        moves = [(entry["from"], entry["to"]) for entry in alias.history]
        assert moves[0][0] is None
        assert all(earlier[1] == later[0] for earlier, later in itertools.pairwise(moves)), "no move is lost"
        assert alias.version == moves[-1][1]
        assert len({entry["id"] for entry in alias.history}) == len(alias.history)
