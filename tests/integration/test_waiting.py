"""What is seen of a partition that is waited for, on the local BigQuery, and how a wait ends."""

import datetime as dt
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from nightscore.check import check_pipeline
from nightscore.conditions import parse_condition
from nightscore.progress import LoggedProgress
from nightscore.waiting import ConditionError, DataMissingError, Watch, look_at, require_condition, wait_for_data
from nightscore.warehouse import StatementError, TableNotFoundError, WarehouseError

DAY = dt.date(2026, 11, 19)
NOW = dt.datetime.now(dt.UTC)
HOUR = dt.timedelta(hours=1)


class Heard(LoggedProgress):
    """Progress that keeps what it is told."""

    def __init__(self):
        self.lines = []

    def stage_ended(self, stage, record):
        self.lines.append((stage, record["seen"]))

    def waiting(self, seen):
        self.lines.append(seen)


@pytest.fixture(scope="module")
def night(new_bench, tmp_path_factory):
    """Seven rows of one day and three of the day before, a view of them, and a table of completion markers."""
    bench = new_bench(tmp_path_factory.mktemp("waiting"))
    days = pa.array([DAY] * 7 + [DAY - dt.timedelta(days=1)] * 3, pa.date32())
    bench.write("features", pa.table({"id": range(10), "snapshot_date": days}))
    bench.sql("CREATE VIEW {dataset}.seen AS SELECT * FROM {dataset}.features")
    bench.sql("CREATE TABLE {dataset}.loads (snapshot_date DATE, at TIMESTAMP, day STRING, state STRING)")
    bench.sql("INSERT INTO {dataset}.loads VALUES ('2026-11-19', '2026-11-19 23:30:00+00', '2026-11-19', 'failed')")
    bench.sql("CREATE TABLE {dataset}.texts AS SELECT '2026-11-19' AS snapshot_date")
    bench.sql("CREATE TABLE {dataset}.bare AS SELECT 1 AS id, DATE '2026-11-19' AS snapshot_date")
    return bench


def watch(night, until="rows >= 1", began=NOW, timeout="1h", day=DAY, schedule=None, every="1s", **features):
    wait = {"timeout": timeout, "every": every, "until": until}
    spec = night.spec(features={"wait": wait, **features}, schedule=schedule)
    return Watch(spec, day, night.services.warehouse, Heard(), began)


def look(night, text, **kwargs):
    found = look_at(parse_condition(text.format(dataset=night.name)), watch(night, **kwargs))
    return found.holds, found.seen


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rows >= 7", (True, "7 rows")),
        ("rows >= 8", (False, "7 rows")),
        ("{dataset}.loads has row", (True, "there")),
        ("{dataset}.loads has row where state = 'ok'", (False, "not there")),
        ("{dataset}.loads has row where state = 'failed' -- really", (True, "there")),
        ("{dataset}.loads has row where DATE(at, 'Europe/Amsterdam') = @partition", (False, "not there")),
        ("{dataset}.texts has row where snapshot_date = CAST(@partition AS STRING)", (True, "there")),
    ],
)
def test_what_is_seen(night, text, expected):
    assert look(night, text) == expected


def test_pipelines_check_looks_at_every_condition(night):
    until = ["rows >= 1", "partition modified after 01:00", f"{night.name}.load has row", f"{night.name}.texts has row"]
    faults = check_pipeline(watch(night, until).spec, night.services)
    assert [fault for fault in faults if "load" in fault] == [
        f"There is no table {night.services.warehouse.full_name(night.name)}.load in BigQuery. Did you mean `loads`?"
    ]
    assert sum("features.wait.until" in fault for fault in faults) == 1


def test_other_days_are_not_seen(night):
    assert look(night, "rows >= 1", day=DAY + dt.timedelta(days=1)) == (False, "0 rows")
    assert look(night, "{dataset}.loads has row", day=DAY + dt.timedelta(days=1)) == (False, "not there")


@pytest.mark.parametrize(
    ("text", "features", "error", "message"),
    [
        ("{dataset}.load has row", {}, TableNotFoundError, "Did you mean `loads`"),
        ("{dataset}.loads has row", {"partition": "zzz"}, ConditionError, "has no column 'zzz'. Allowed: at, day"),
        ("{dataset}.texts has row", {}, ConditionError, "is STRING; DATE or DATETIME or TIMESTAMP is needed"),
        ("{dataset}.loads has row where status = 'ok'", {}, StatementError, "status"),
        ("partition modified after 01:00", {"table": "{dataset}.seen"}, ConditionError, "is a view, which has no such"),
    ],
)
def test_what_cannot_be_looked_at(night, text, features, error, message):
    named = {key: value.format(dataset=night.name) for key, value in features.items()}
    condition = text.format(dataset=night.name)
    with pytest.raises(error, match=message):
        look(night, condition, **named)
    with pytest.raises(error, match=message):
        require_condition(parse_condition(condition), watch(night, **named).spec, night.services.warehouse)


def test_when_a_partition_was_modified(night):
    """At the time of the run's day, in the zone of the schedule."""
    there = night.services.warehouse.require_table(f"{night.name}.features").modified
    minute = dt.timedelta(minutes=1)
    before, after = ((there + shift).strftime("%H:%M") for shift in (-2 * minute, 2 * minute))
    for table in ("features", "bare"):
        named = f"{night.name}.{table}"
        assert look(night, f"partition modified after {before}", began=there, table=named)[0]
    late = min(there + HOUR, there.replace(hour=23, minute=59, second=59))  # of the same day
    holds, seen = look(night, f"partition modified after {after}", began=late)
    assert not holds
    assert seen == f"modified on {there:%Y-%m-%d at %H:%M:%S} (UTC), awaited from {there:%Y-%m-%d} at {after}"
    local = {"after": f"{night.name}.upstream", "timezone": "Asia/Kolkata"}
    holds, seen = look(night, f"partition modified after {after}", began=late, schedule=local)
    # There, the same minutes of the day begin five and a half hours earlier.
    assert "(Asia/Kolkata)" in seen
    assert look(night, "partition modified after 00:00", began=there, day=DAY + dt.timedelta(days=9)) == (
        False,
        f"{night.name}.features has no partition 2026-11-28 yet",
    )


def test_a_backfill_looks_at_the_day_of_its_own_run(night):
    holds, seen = look(night, "partition modified after 01:00", schedule="0 2 * * *", began=NOW + 400 * 24 * HOUR)
    assert holds
    assert seen.endswith("awaited from 2026-11-20 at 01:00")


def test_a_wait_ends_when_every_condition_holds(night):
    until = ["rows >= 7", f"{night.name}.loads has row where state = 'ok'"]
    seen = watch(night, until)
    assert seen.look() == 1.0
    assert seen.look() == 1.0
    marker = f"{until[1]}: not there"
    assert seen.progress.lines == [f"rows >= 7: 7 rows; {marker}"], "it is told once"
    night.sql("UPDATE {dataset}.loads SET state = 'ok' WHERE TRUE")
    try:
        assert seen.look() is None
        heard = Heard()
        wait_for_data(seen.spec, DAY, night.services.warehouse, heard)
        assert heard.lines == [("wait", f"rows >= 7: 7 rows; {until[1]}: there")]
    finally:
        night.sql("UPDATE {dataset}.loads SET state = 'failed' WHERE TRUE")


def test_a_wait_is_over_at_its_time_whoever_goes_on_with_it(night):
    late = watch(night, "rows >= 8", began=dt.datetime.now(dt.UTC) - HOUR)
    with pytest.raises(DataMissingError) as caught:
        late.look()
    assert str(caught.value) == (
        f"{night.name}: the data of 2026-11-19 did not come in time: the run waited for 1 h 0 min, and "
        "features.wait.timeout is 1h. Last seen: rows >= 8: 7 rows. Nothing was published. Start the partition again "
        "when it is there."
    )
    nearly = watch(night, "rows >= 8", began=dt.datetime.now(dt.UTC) - HOUR + dt.timedelta(seconds=20), every="1m")
    assert 15 < nearly.look() < 20, "the last look is at the end"
    there = watch(night, "rows >= 7", began=dt.datetime.now(dt.UTC) - HOUR)
    assert there.look() is None, "what is there at the last look counts"


def test_a_server_that_fails_ends_no_wait(night, monkeypatch):
    seen = watch(night, "rows >= 7")
    with monkeypatch.context() as broken:

        def fail(_):
            raise WarehouseError("looking", "503")

        broken.setattr(seen.warehouse, "columns", fail)
        assert seen.look() == 1.0
        assert seen.progress.lines == ["rows >= 7: BigQuery failed while looking: 503"]
        seen.began -= HOUR
        with pytest.raises(DataMissingError, match=r"Last seen: rows >= 7: BigQuery failed while looking: 503\."):
            seen.look()
    assert seen.look() is None


def test_the_command_waits_and_is_interrupted(night, local_servers, tmp_path):
    """It says what it sees; Ctrl-C ends it; at the end of the time its code is that of a gate."""
    pipelines = tmp_path / "pipelines" / night.name
    pipelines.mkdir(parents=True)
    environment = os.environ | local_servers.environment() | {"NIGHTSCORE_PIPELINES_DIR": str(pipelines.parent)}
    command = [str(Path(sys.executable).parent / "nightscore"), "run", night.name, "--partition", str(DAY)]

    def began(timeout):
        wait = {"timeout": timeout, "every": "1s", "until": "rows >= 8"}
        (pipelines / "pipeline.yaml").write_text(night.spec_text(features={"wait": wait}))
        return subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True)

    with began("1h") as process:
        assert process.stderr.readline() == "wait for data    rows >= 8: 7 rows\n"
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert (process.returncode, "Traceback" in rest) == (130, False)
    started = time.monotonic()
    with began("2s") as process:
        lines = process.stderr.read()
    assert process.returncode == 1
    assert time.monotonic() - started > 2
    assert "DataMissingError" in lines
    assert "Last seen: rows >= 8: 7 rows." in lines
