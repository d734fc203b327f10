"""What people do with runs afterwards: `rollback`, `replay`, `clean`, and `run` while another run is at work."""

import datetime as dt
import json
import threading

import pandas as pd
import pyarrow as pa
import pytest
from sklearn.linear_model import LinearRegression

from nightscore.arguments import parse_model
from nightscore.lease import Holder, acquire
from nightscore.records import RunRecords

DAY = "2026-11-19"
NIGHT = dt.date(2026, 11, 19)


@pytest.fixture
def cards(bench, nightscore, monkeypatch):
    """A pipeline of 40 accounts, of which one is rejected, published by the champion and then by the challenger."""
    frame = pd.DataFrame({"balance": [float(i) for i in range(40)]})
    table = pa.table({"id": range(40), "balance": frame.balance.to_numpy(), "snapshot_date": [NIGHT] * 40})
    bench.write("features", table)
    inputs = table.select(["balance"])
    bench.register(LinearRegression().fit(frame, frame.balance * 2), inputs)
    bench.register(LinearRegression().fit(frame, frame.balance * 3), inputs, alias="challenger")
    folder = bench.folder / "pipelines" / bench.name
    folder.mkdir(parents=True)
    text = bench.spec_text(features={"reject": {"newest": "id = 39"}}, checks={"max_rejected": "5%"})
    (folder / "pipeline.yaml").write_text(text)
    monkeypatch.setenv("NIGHTSCORE_PIPELINES_DIR", str(folder.parent))
    bench.parsed = bench.spec(features={"reject": {"newest": "id = 39"}}, checks={"max_rejected": "5%"})
    return bench


@pytest.fixture
def twice(cards):
    """Both publications."""
    challenger = parse_model(f"{cards.name}@challenger")
    cards.first = cards.run(cards.parsed)["run_id"]
    cards.second = cards.run(cards.parsed, model=challenger)["run_id"]
    return cards


def test_a_rollback_is_told_and_listed(twice, nightscore):
    done = nightscore("rollback", twice.name, "--partition", DAY, "--reason", "too high")
    assert done.returncode == 0
    assert f"{twice.name} {DAY}: rolled back to {twice.first} (model {twice.name}/1), 39 rows in" in done.stdout
    assert f"replaced 39 rows of {twice.second}." in done.stdout
    listed = nightscore("runs", "list", twice.name)
    lines = {line.split()[1]: line for line in listed.stdout.splitlines() if twice.name in line}
    assert "live (rolled back)" in lines[twice.first]
    assert "live" not in lines[twice.second]
    again = nightscore("rollback", twice.name, "--partition", DAY, "--to", twice.second, "--json")
    assert json.loads(again.stdout)["replaced_run"] == twice.first
    refused = nightscore("rollback", twice.name, "--partition", DAY, "--to", twice.second)
    assert refused.returncode == 2
    assert f"the run {twice.second} is what is published for {DAY} already" in refused.stderr


def test_a_replay_of_all_rows_and_of_one(twice, nightscore):
    done = nightscore("replay", twice.first)
    assert done.returncode == 0
    assert f"run {twice.first}, model {twice.name}/1: equal" in done.stdout
    assert "39 rows compared" in done.stdout
    one = nightscore("replay", twice.first, "--key", "id=7")
    assert one.returncode == 0
    assert "id=7: equal" in one.stdout
    assert "balance  7.0" in one.stdout
    rejected = nightscore("replay", twice.first, "--key", "id=39")
    assert "Not scored: rejected by newest." in rejected.stdout
    twice.sql(
        "UPDATE nightscore_staging."
        f"`{twice.name}__{twice.first.replace('-', '')}__staged` SET prediction = 99.0 WHERE id = 7"
    )
    found = nightscore("replay", twice.first, "--key", "id=7", "--json")
    assert found.returncode == 1
    content = json.loads(found.stdout)
    assert (content["verdict"], content["old"]["prediction"]) == ("different", 99.0)
    assert nightscore("replay", twice.first).returncode == 1


def test_cleaning_lists_first_and_then_deletes(twice, nightscore):
    bucket = twice.services.bucket
    name = f"{RunRecords(bucket, twice.name, twice.first).prefix}shards/part-00000-dead0000.parquet"
    bucket.create_new(name, b"PAR1")
    young = nightscore("clean", twice.name, "--dry-run")
    assert "0 object(s), 0 bytes would be deleted." in young.stdout
    refused = nightscore("clean", twice.name, "--older-than", "0.5")
    assert refused.returncode == 2
    assert bucket.read(name) is not None


def test_a_run_beside_another_is_refused_or_waits(cards, nightscore):
    span = dt.timedelta(minutes=1)
    lease = acquire(cards.services.bucket, cards.name, NIGHT, Holder("other", "the other run"), span)
    refused = nightscore("run", cards.name, "--partition", DAY, "--json")
    assert refused.returncode == 3
    found = json.loads(refused.stdout)
    assert found["error"] == "LeaseHeldError"
    assert f"{cards.name}: {DAY} is being worked on by the other run" in found["message"]
    threading.Timer(1.0, lease.release).start()
    waited = nightscore("run", cards.name, "--partition", DAY, "--wait", "30")
    assert waited.returncode == 0
    assert "waiting for the other run" in waited.stderr
    acquire(cards.services.bucket, cards.name, NIGHT, Holder("other", "the other run"), span)
    assert nightscore("run", cards.name, "--partition", DAY, "--take-over").returncode == 0
