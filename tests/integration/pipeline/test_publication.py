"""Publishing exactly once: checksums, fences, rollbacks, and what happens when somebody else writes to the table."""

import datetime as dt

import pyarrow as pa
import pytest
from sklearn.linear_model import LinearRegression

from nightscore.arguments import parse_model
from nightscore.contents import Contents, read_contents
from nightscore.errors import LeaseLostError
from nightscore.gates.gate import GateStoppedError
from nightscore.lease import Holder, LeaseHeldError, acquire
from nightscore.objects import to_json
from nightscore.pipeline import STAGES, run_stage, start
from nightscore.predictions import SupersededError, columns_of, ensure_table, publish, republish
from nightscore.publications import read_publications
from nightscore.records import RunRecords
from nightscore.replacement import begin_publication, clear_partition, replace_partition
from nightscore.rollback import RollbackError, roll_back
from nightscore.run import open_run
from nightscore.scoring.checksum import Checksum
from nightscore.warehouse import WarehouseError

DAY = dt.date(2026, 11, 19)


@pytest.fixture
def values(bench):
    """A bench with a regression that doubles x, and a challenger that trebles it."""
    table = pa.table({"id": range(50), "snapshot_date": [DAY] * 50, "x": [float(i) for i in range(50)]})
    bench.table, bench.inputs = table, table.select(["x"])
    bench.write("features", table)
    for factor, alias in ((2.0, "champion"), (3.0, "challenger")):
        rows = bench.inputs.to_pandas()
        bench.register(LinearRegression().fit(rows, rows.x * factor), bench.inputs, alias=alias)
    bench.treble = parse_model(f"{bench.name}@challenger")
    return bench


def live(bench):
    """Return the run ids and the sum of what is published."""
    [row] = bench.sql("SELECT ARRAY_AGG(DISTINCT run_id) AS runs, SUM(prediction) AS total FROM {dataset}.predictions")
    return row["runs"], round(row["total"], 6)


def test_the_checksum_is_the_same_scored_staged_and_published(values):
    summary = values.run()
    records = RunRecords(values.services.bucket, values.name, summary["run_id"])
    parts = [Checksum.parse(receipt["checksum"]) for receipt in records.receipts()]
    assert len(parts) == 2
    run = open_run(values.services, values.name, summary["run_id"])
    for table in (run.staging_table, run.spec.predictions.table):
        [held] = read_contents(run, table, "regression").held
        assert str(held.checksum) == str(parts[0] + parts[1]) == summary["checksum"]
        assert (held.run_id, held.model_version, held.checksum.rows) == (run.plan.run_id, f"{values.name}/1", 50)
    [publication] = read_publications(values.services.bucket, values.name, DAY)
    assert publication["checksum"] == summary["checksum"]


def test_a_changed_score_in_the_staging_table_stops_the_run(values):
    values.run()
    before = live(values)
    run = start(values.spec(), DAY, values.services)
    for stage in STAGES[:3]:
        run_stage(run, stage)
    original = run.warehouse.load

    def tampering(*args, **kwargs):
        loaded = original(*args, **kwargs)
        values.sql(f"UPDATE `{run.staging_table}` SET prediction = prediction + 0.5 WHERE id = 7")
        return loaded

    run.warehouse.load = tampering
    try:
        with pytest.raises(GateStoppedError, match="the staged rows are not those that were scored: 50 rows"):
            run_stage(run, STAGES[3])
    finally:
        run.warehouse.load = original
    assert live(values) == before


def test_a_foreign_row_after_publishing_puts_the_earlier_partition_back(values):
    first = values.run()
    values.sql("ALTER TABLE {dataset}.predictions ADD COLUMN note STRING")
    values.sql("UPDATE {dataset}.predictions SET note = 'kept' WHERE id = 3")
    before = values.published()
    with intruder(values), pytest.raises(GateStoppedError) as refusal:
        values.run(model=values.treble)
    message = str(refusal.value)
    assert "50 rows were published and taken back again" in message
    assert "Something else writes to the table. The earlier partition was put back" in message
    assert values.published().equals(before)  # a column that is not ours as well
    assert [item["run_id"] for item in read_publications(values.services.bucket, values.name, DAY)] == [first["run_id"]]
    [row] = values.sql(
        "SELECT status, stopped_at, rows_published FROM nightscore_operations.runs "
        f"WHERE pipeline = '{values.name}' AND status = 'refused'"
    )
    assert row == {"status": "refused", "stopped_at": "publish", "rows_published": None}
    assert values.run(model=values.treble)["status"] == "published"


@pytest.mark.thorough
def test_a_first_publication_that_is_wrong_leaves_an_empty_partition(values):
    with intruder(values), pytest.raises(GateStoppedError, match="was put back"):
        values.run()
    assert values.sql("SELECT COUNT(*) AS n FROM {dataset}.predictions") == [{"n": 0}]


class intruder:  # noqa: N801 - reads like a statement
    """Adds a row to the predictions table right after the publishing MERGE."""

    def __init__(self, bench):
        self.bench, self.warehouse = bench, bench.services.warehouse

    def __enter__(self):
        original, self.done = self.warehouse.query, False

        def query(sql, *args, **kwargs):
            result = original(sql, *args, **kwargs)
            if kwargs["doing"].startswith("publishing") and not self.done:
                self.done = True
                self.bench.sql(
                    "INSERT INTO {dataset}.predictions "
                    "(id, snapshot_date, prediction, model_version, run_id, scored_at) "
                    "VALUES (999, DATE '2026-11-19', 1.0, 'x/1', 'somebody', CURRENT_TIMESTAMP())"
                )
            return result

        self.warehouse.query = query

    def __exit__(self, *_):
        del self.warehouse.query
        assert self.done


def test_a_run_that_woke_up_too_late_cannot_publish_over_its_successor(values):
    """It had passed its last look at the lease when it was suspended: only the fence in BigQuery can stop it."""
    zombie = start(values.spec(), DAY, values.services, holder=Holder("zombie", "a run that fell asleep"))
    for stage in STAGES[:4]:
        run_stage(zombie, stage)
    gate = zombie.records.read("prediction_gate")
    columns = [column.name for column in zombie.warehouse.columns(zombie.staging_table)]
    token = begin_publication(zombie)  # here it is suspended: it has seen the partition empty
    successor = values.run(model=values.treble, take_over=True)
    with pytest.raises(LeaseLostError, match="taken over by a run that publishes already"):
        replace_partition(zombie, zombie.staging_table, columns, token)
    with pytest.raises(LeaseLostError, match="taken over by a run that publishes already"):
        clear_partition(zombie, f"{values.name}.predictions", token)
    with pytest.raises(LeaseLostError):
        republish(
            zombie,
            "regression",
            Checksum.parse(gate["checksum"]),
            Contents(),
            token,
            kind="publish",
            reason=None,
        )
    assert live(values) == ([successor["run_id"]], 3675.0)


def test_a_statement_that_still_runs_is_waited_for(values):
    """Two MERGEs that only insert do not conflict on BigQuery, so one must have ended before the other looks."""
    run = start(values.spec(), DAY, values.services)
    for stage in STAGES[:4]:
        run_stage(run, stage)
    waited = []
    run.warehouse.await_jobs = lambda key, doing: waited.append(key)
    try:
        first, second = begin_publication(run), begin_publication(run)
    finally:
        del run.warehouse.await_jobs
    assert waited == [f"{run.plan.job_key('publish')}_{first}"]
    columns = [column.name for column in run.warehouse.columns(run.staging_table)]
    ensure_table(run, columns_of(run.plan, "regression"))
    job = replace_partition(run, run.staging_table, columns, second)
    assert job.job_id == f"{run.plan.job_key('publish')}_{second}_0"
    run.warehouse.await_jobs(f"{run.plan.job_key('publish')}_{second}", doing="testing")  # it has ended
    run.warehouse.await_jobs(f"{run.plan.job_key('publish')}_{first}", doing="testing")  # it never was


def test_a_run_that_lost_its_lease_does_not_begin_another_stage(values):
    slow = start(values.spec(), DAY, values.services, holder=Holder("slow", "a slow run"))
    run_stage(slow, STAGES[0])
    values.run(model=values.treble, take_over=True)
    with pytest.raises(LeaseLostError, match="2026-11-19 was taken over by "):
        run_stage(slow, STAGES[1])


@pytest.mark.thorough
def test_a_second_run_of_a_partition_is_refused_and_one_of_another_is_not(values):
    acquire(values.services.bucket, values.name, DAY, Holder("other", "the other run"), dt.timedelta(minutes=1))
    with pytest.raises(LeaseHeldError, match="is being worked on by the other run"):
        values.run()
    other = values.table.set_column(1, "snapshot_date", pa.array([dt.date(2026, 11, 18)] * 50))
    values.write("features", pa.concat_tables([values.table, other]))
    assert values.run(day=dt.date(2026, 11, 18))["status"] == "published"


def test_a_plan_that_fails_gives_the_lease_back(values):
    with pytest.raises(Exception, match="There is no table"):
        values.run(values.spec(features={"table": f"{values.name}.nothing"}))
    acquire(values.services.bucket, values.name, DAY, Holder("next", "the next"), dt.timedelta(minutes=1)).require()


@pytest.mark.thorough
def test_a_resumed_run_records_what_it_found(values):
    broken = start(values.spec(), DAY, values.services)
    for stage in STAGES[:3]:
        run_stage(broken, stage)
    broken.require_lease().release()
    summary = values.run()
    assert summary["run_id"] == broken.plan.run_id
    [resumed] = summary["resumed"]
    assert (resumed["stages"], resumed["shards"]) == (["freeze", "feature_gate", "score"], 2)
    assert resumed["by"].startswith("root on") or " on " in resumed["by"]


def test_rolling_back_publishes_the_earlier_run_without_scoring(values):
    first, second = values.run(), values.run(model=values.treble)
    assert live(values) == ([second["run_id"]], 3675.0)
    found = roll_back(values.services, values.name, DAY, reason="the challenger was wrong")
    assert live(values) == ([first["run_id"]], 2450.0)
    assert (found["run_id"], found["rows"], found["replaced_rows"]) == (first["run_id"], 50, 50)
    assert (found["replaced_run"], found["reason"]) == (second["run_id"], "the challenger was wrong")
    kinds = [
        (item["kind"], item["run_id"], item["reason"])
        for item in read_publications(values.services.bucket, values.name, DAY)
    ]
    assert kinds == [
        ("publish", first["run_id"], None),
        ("publish", second["run_id"], None),
        ("rollback", first["run_id"], "the challenger was wrong"),
    ]
    rows = values.sql(
        "SELECT kind, run_id, `rows`, checksum, reason FROM nightscore_operations.publications "
        f"WHERE pipeline = '{values.name}' ORDER BY token"
    )
    assert [(row["kind"], row["run_id"], row["rows"]) for row in rows] == [
        ("publish", first["run_id"], 50),
        ("publish", second["run_id"], 50),
        ("rollback", first["run_id"], 50),
    ]
    roll_back(values.services, values.name, DAY, to=second["run_id"][:12])
    assert live(values) == ([second["run_id"]], 3675.0)


@pytest.mark.thorough
def test_a_rolled_back_partition_is_not_overwritten_by_a_run_planned_before(values):
    first, second = values.run(), values.run(model=values.treble)
    waiting = start(values.spec(keep="20d"), DAY, values.services)
    for stage in STAGES[:4]:
        run_stage(waiting, stage)
    waiting.require_lease().release()
    roll_back(values.services, values.name, DAY)
    again = start(values.spec(keep="20d"), DAY, values.services)
    assert again.plan.run_id != waiting.plan.run_id  # not even taken up
    with pytest.raises(SupersededError, match="were rolled back to by"):
        publish(open_run(values.services, values.name, waiting.plan.run_id, lease=again.require_lease()))
    assert live(values)[0] == [first["run_id"]] != [second["run_id"]]


def test_a_rollback_that_broke_off_is_completed_and_not_undone(values, monkeypatch):
    first, second = values.run(), values.run(model=values.treble)
    monkeypatch.setattr("nightscore.rollback.record_publications", fails)
    roll_back(values.services, values.name, DAY)
    assert live(values) == ([first["run_id"]], 2450.0)
    monkeypatch.undo()
    again = roll_back(values.services, values.name, DAY)  # by the same process, as by a task that is tried again
    assert (again["run_id"], live(values)[0]) == (first["run_id"], [first["run_id"]])
    other = Holder("other", "somebody else")
    with pytest.raises(RollbackError, match=f"was rolled back to {first['run_id']} already, at 20"):
        roll_back(values.services, values.name, DAY, holder=other)
    assert roll_back(values.services, values.name, DAY, holder=other, to=second["run_id"])["rows"] == 50


def fails(*_):
    raise WarehouseError("recording", "503")


def test_what_is_live_is_seen_in_the_table_and_not_in_the_log(values, monkeypatch):
    """A process that died between its MERGE and its record has published all the same."""
    first = values.run()
    monkeypatch.setattr("nightscore.predictions.write_publication", fails)
    with pytest.raises(WarehouseError):
        values.run(model=values.treble)
    monkeypatch.undo()
    assert live(values)[1] == 3675.0
    found = roll_back(values.services, values.name, DAY)
    assert found["run_id"] == first["run_id"]
    assert live(values) == ([first["run_id"]], 2450.0)


@pytest.mark.thorough
def test_a_rollback_into_a_table_that_nobody_reads_any_more_is_refused(values):
    values.run()
    moved = values.run(values.spec(predictions={"table": f"{values.name}.moved"}), model=values.treble)
    with pytest.raises(RollbackError, match=r"and what is live is in local\..*\.moved"):
        roll_back(values.services, values.name, DAY)
    assert values.sql("SELECT DISTINCT run_id FROM {dataset}.moved") == [{"run_id": moved["run_id"]}]


@pytest.mark.thorough
def test_a_run_whose_rows_are_gone_for_good_ends_and_is_followed_by_another(values):
    run = start(values.spec(), DAY, values.services)
    for stage in STAGES[:4]:
        run_stage(run, stage)
    values.services.warehouse.client.delete_table(run.staging_table)
    for receipt in run.records.receipts():
        run.bucket._bucket.blob(receipt["part"].removeprefix(f"gs://{run.bucket.name}/")).delete()
    with pytest.raises(GateStoppedError, match="the staged predictions are gone"):
        values.run()
    again = values.run()
    assert (again["status"], again["run_id"] != run.plan.run_id) == ("published", True)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("runs", "to", "message"),
    [
        (0, None, "nothing was ever published for 2026-11-19"),
        (1, None, "is the only run that was ever published for 2026-11-19"),
        (1, "2026", "is what is published for 2026-11-19 already"),
        (1, "2025-01-01-abcdef01", "no run '2025-01-01-abcdef01' was published for 2026-11-19"),
        (2, "2026", "several runs begin with '2026'"),
    ],
)
def test_a_rollback_that_cannot_be(values, runs, to, message):
    for model in (None, values.treble)[:runs]:
        values.run(model=model)
    with pytest.raises(RollbackError, match=message):
        roll_back(values.services, values.name, DAY, to=to)


@pytest.mark.thorough
def test_a_rollback_finds_lost_staged_rows_in_the_parts(values):
    first, second = values.run(), values.run(model=values.treble)
    run = open_run(values.services, values.name, first["run_id"])
    values.services.warehouse.client.delete_table(run.staging_table)
    assert roll_back(values.services, values.name, DAY)["replaced_run"] == second["run_id"]
    assert live(values) == ([first["run_id"]], 2450.0)


@pytest.mark.thorough
def test_a_rollback_to_an_expired_run_says_until_when_it_was_kept(values):
    first, second = values.run(), values.run(model=values.treble)
    bucket = values.services.bucket
    path = f"runs/{values.name}/{first['run_id']}/plan.json"
    stored = bucket.read(path)
    bucket.swap(path, to_json({**stored.json(), "expires": "2026-01-02T03:04:00Z"}), stored.generation)
    with pytest.raises(RollbackError, match="were kept until 2026-01-02 03:04 UTC and are gone"):
        roll_back(values.services, values.name, DAY)
    assert live(values) == ([second["run_id"]], 3675.0)


@pytest.mark.thorough
def test_a_rollback_whose_rows_were_changed_is_refused(values):
    first, second = values.run(), values.run(model=values.treble)
    run = open_run(values.services, values.name, first["run_id"])
    values.sql(f"DELETE FROM `{run.staging_table}` WHERE id = 5")
    for receipt in run.records.receipts():
        name = receipt["part"].removeprefix(f"gs://{run.bucket.name}/")
        run.bucket._bucket.blob(name).delete()
    with pytest.raises(RollbackError, match="are not those that it scored any more"):
        roll_back(values.services, values.name, DAY)
    assert live(values) == ([second["run_id"]], 3675.0)
