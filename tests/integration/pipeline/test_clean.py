"""Cleaning up: what dead attempts left goes, what a rollback or a replay needs stays."""

import datetime as dt

import pyarrow as pa
import pytest
from sklearn.linear_model import LinearRegression

from nightscore.clean import TooYoungError, iter_leftovers, remove
from nightscore.objects import to_json
from nightscore.records import RunRecords
from nightscore.replay import replay
from nightscore.rollback import roll_back
from nightscore.run import open_run

DAY = dt.timedelta(days=1)


@pytest.fixture
def night(bench):
    """A bench with two published runs and, in the first one, what two dead attempts left."""
    table = pa.table({"id": range(20), "snapshot_date": [bench.day] * 20, "x": [float(i) for i in range(20)]})
    bench.write("features", table)
    rows = table.select(["x"])
    bench.register(LinearRegression().fit(rows.to_pandas(), rows.to_pandas().x), rows)
    bench.runs = [bench.run(), bench.run()]
    prefix = RunRecords(bench.services.bucket, bench.name, bench.runs[0]["run_id"]).prefix
    bench.dead = [f"{prefix}shards/part-00000-dead0000.parquet", f"{prefix}replays/0/part-00000-dead0000.parquet"]
    for name in bench.dead:
        assert bench.services.bucket.create_new(name, b"PAR1")
    return bench


def leftovers(night, after, older_than=DAY):
    now = dt.datetime.now(dt.UTC) + after
    return list(iter_leftovers(night.services.bucket, now, older_than, night.name))


def test_only_what_no_receipt_names_goes_and_only_when_it_is_old(night):
    assert leftovers(night, dt.timedelta(hours=23)) == []
    found = leftovers(night, 2 * DAY)
    assert sorted(item.object.name for item in found) == sorted(night.dead)
    assert {item.why for item in found} == {"no receipt names it: its attempt died, or another one was first"}
    assert all(remove(night.services.bucket, item) for item in found)
    assert leftovers(night, 2 * DAY) == []
    assert not remove(night.services.bucket, found[0])


@pytest.mark.thorough
def test_after_cleaning_a_rollback_and_a_replay_still_work(night):
    for item in leftovers(night, 20 * DAY):
        remove(night.services.bucket, item)
    first = open_run(night.services, night.name, night.runs[0]["run_id"])
    night.services.warehouse.client.delete_table(first.staging_table)  # the parts must do
    assert roll_back(night.services, night.name, night.day)["run_id"] == night.runs[0]["run_id"]
    assert replay(first)["verdict"] == "equal"


def test_the_parts_of_an_expired_run_go_and_its_records_stay(night):
    bucket, run_id = night.services.bucket, night.runs[1]["run_id"]
    path = f"runs/{night.name}/{run_id}/plan.json"
    stored = bucket.read(path)
    bucket.swap(path, to_json({**stored.json(), "expires": "2026-01-02T03:04:00Z"}), stored.generation)
    found = leftovers(night, dt.timedelta())
    assert {item.run_id for item in found} == {run_id}
    assert {item.why for item in found} == {"its run was kept until 2026-01-02"}
    assert len(found) == 2
    before = set(bucket.iter_names(f"runs/{night.name}/{run_id}/"))
    for item in found:
        remove(bucket, item)
    assert set(bucket.iter_names(f"runs/{night.name}/{run_id}/")) == before - {item.object.name for item in found}


def test_a_part_of_an_hour_may_belong_to_an_attempt_at_work(night):
    with pytest.raises(TooYoungError, match=r"must be older than 1 h .* 0.5 h is too short"):
        leftovers(night, DAY, dt.timedelta(minutes=30))
