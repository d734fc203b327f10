"""One night from plan to record, on the local servers."""

import datetime as dt
import json

import numpy as np
import pyarrow as pa
import pytest
from google.api_core.exceptions import NotFound
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nightscore.arguments import parse_model
from nightscore.errors import LeaseLostError
from nightscore.gates.gate import GateStoppedError
from nightscore.objects import to_json
from nightscore.pipeline import STAGES, finish, run_stage, start
from nightscore.prediction_schema import PredictionsTableError
from nightscore.predictions import SupersededError, publish
from nightscore.predictions import stage as stage_parts
from nightscore.progress import LoggedProgress
from nightscore.publications import read_publications
from nightscore.records import RunRecords
from nightscore.registry.signature import SignatureError
from nightscore.run import open_run, take_lease
from nightscore.scoring.checksum import Checksum, total
from nightscore.source import ColumnError, EmptyPartitionError, LimitError, RowRuleError
from nightscore.warehouse import StatementError, TableNotFoundError

DAY = dt.date(2026, 11, 19)


def accounts(rows=3_000, day=DAY, seed=0):
    """Accounts with three numeric features, of which `spend` is sometimes NULL, and an outcome."""
    rng = np.random.default_rng(seed)
    balance, spend, age = rng.normal(1000, 300, rows), rng.exponential(50, rows), rng.integers(18, 90, rows)
    outcome = (balance / 1000 + spend / 100 + rng.normal(0, 0.5, rows)) > 1.6
    spend[rng.random(rows) < 0.01] = np.nan
    table = pa.table(
        {
            "id": pa.array(np.arange(rows) * 7 + 1),
            "snapshot_date": pa.array([day] * rows, pa.date32()),
            "balance": balance,
            "spend": pa.array(spend, from_pandas=True),
            "age": age,
        }
    )
    return table, outcome


@pytest.fixture
def cards(bench):
    """A bench with one partition of accounts and a boosting champion."""
    table, outcome = accounts()
    bench.write("features", table)
    bench.inputs = table.select(["balance", "spend", "age"])
    bench.table = table
    bench.estimator = HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(bench.inputs.to_pandas(), outcome)
    bench.register(bench.estimator, bench.inputs)
    return bench


def test_every_row_is_published_once_with_the_models_own_score(cards):
    summary = cards.run()
    found = cards.published()
    expected = cards.estimator.predict_proba(cards.inputs.to_pandas())[:, 1]
    assert summary["status"] == "published"
    assert summary["rows_published"] == found.num_rows == 3_000
    assert found["id"].to_pylist() == cards.table["id"].to_pylist()
    assert found["score"].to_numpy().tolist() == expected.tolist()  # bit for bit
    assert set(found["snapshot_date"].to_pylist()) == {DAY}
    assert set(found["model_version"].to_pylist()) == {f"{cards.name}/1"}
    assert set(found["run_id"].to_pylist()) == {summary["run_id"]}
    assert set(found["scored_at"].to_pylist()) == {dt.datetime.fromisoformat(summary["planned_at"])}


@pytest.mark.thorough
def test_linear_models_agree_within_rounding(cards):
    rows = cards.inputs.to_pandas().fillna(0)
    outcome = rows.balance > 1000
    table = cards.table.set_column(3, "spend", pa.array(rows.spend))
    cards.write("features", table)
    linear = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, outcome)
    cards.register(linear, table.select(["balance", "spend", "age"]))
    cards.run()
    expected = linear.predict_proba(rows)[:, 1]
    np.testing.assert_allclose(cards.published()["score"].to_numpy(), expected, rtol=0, atol=1e-12)


def test_the_predictions_table_is_made_from_the_spec(cards):
    cards.run(cards.spec(description="Chance that a card account defaults.\n\nMore."))
    table = cards.services.warehouse.find_table(f"{cards.name}.predictions")
    assert table.time_partitioning.field == "snapshot_date"
    assert table.time_partitioning.type_ == "DAY"
    assert table.clustering_fields == ["id"]
    assert table.description == "Chance that a card account defaults."
    assert [(f.name, f.field_type, f.mode) for f in table.schema] == [
        ("id", "INTEGER", "REQUIRED"),
        ("snapshot_date", "DATE", "REQUIRED"),
        ("score", "FLOAT", "REQUIRED"),
        ("model_version", "STRING", "REQUIRED"),
        ("run_id", "STRING", "REQUIRED"),
        ("scored_at", "TIMESTAMP", "REQUIRED"),
    ]
    assert all(field.description for field in table.schema)


def test_running_again_replaces_the_partition_and_leaves_the_others(cards):
    other, _ = accounts(500, dt.date(2026, 11, 18), seed=1)
    cards.write("features", pa.concat_tables([cards.table, other]))
    first = cards.run()
    cards.run(day=dt.date(2026, 11, 18))
    before = cards.published("snapshot_date, id")
    again = cards.run()
    after = cards.published("snapshot_date, id")
    assert again["run_id"] != first["run_id"]
    assert (again["rows_published"], again["rows_replaced"]) == (3_000, 3_000)
    assert after.num_rows == 3_500
    kept = ["id", "snapshot_date", "score", "model_version"]
    assert after.select(kept).equals(before.select(kept))
    assert {row["n"] for row in cards.sql("SELECT COUNT(*) AS n FROM {dataset}.predictions GROUP BY run_id")} == {
        3000,
        500,
    }


def test_a_refused_night_leaves_the_earlier_partition_untouched(cards):
    checks = {"features": [{"expect": "expect_column_mean_to_be_between", "column": "balance", "min_value": 900}]}
    spec = cards.spec(checks=checks)
    cards.run(spec)
    before = cards.published()
    corrupted = cards.table.set_column(2, "balance", pa.array(np.zeros(3_000)))
    cards.write("features", corrupted)
    with pytest.raises(GateStoppedError) as refusal:
        cards.run(spec)
    message = str(refusal.value)
    assert "the feature gate refused 3,000 rows; nothing was published" in message
    assert "expect_column_mean_to_be_between on balance: wanted min_value 900, seen 0" in message
    assert cards.published().equals(before)
    [row] = cards.sql(
        "SELECT status, stopped_at, rows_published FROM nightscore_operations.runs "
        f"WHERE pipeline = '{cards.name}' AND status = 'refused'"
    )
    assert row == {"status": "refused", "stopped_at": "feature_gate", "rows_published": None}


def test_the_prediction_gate_refuses_before_publishing(cards):
    checks = {"predictions": [{"expect": "expect_column_max_to_be_between", "column": "score", "max_value": 0.1}]}
    with pytest.raises(GateStoppedError, match="prediction gate refused 3,000 rows"):
        cards.run(cards.spec(checks=checks))
    assert cards.services.warehouse.find_table(f"{cards.name}.predictions") is None


@pytest.mark.thorough
def test_a_warning_is_recorded_and_publishes(cards):
    check = {"expect": "expect_column_max_to_be_between", "column": "age", "max_value": 30, "severity": "warning"}
    summary = cards.run(cards.spec(checks={"features": [check]}))
    assert summary["status"] == "published"
    assert summary["warnings"] == ["expect_column_max_to_be_between on age: wanted max_value 30, seen 89"]


def test_repeated_and_missing_keys_are_always_refused(cards):
    ids = cards.table["id"].to_pylist()
    ids[1], ids[2] = ids[0], None
    cards.write("features", cards.table.set_column(0, "id", pa.array(ids)))
    with pytest.raises(GateStoppedError) as refusal:
        cards.run()
    failed = {check["expectation"]: check for check in refusal.value.record["checks"] if not check["passed"]}
    assert failed["expect_column_values_to_be_unique"]["failing_rows"] == 2
    assert failed["expect_column_values_to_not_be_null"]["failing_rows"] == 1


def test_an_input_that_the_model_takes_no_null_in_is_checked(cards):
    rows = cards.inputs.to_pandas().fillna(0)
    linear = LogisticRegression(max_iter=500).fit(rows, rows.balance > 1000)
    cards.register(linear, cards.inputs.set_column(1, "spend", pa.array(rows.spend)))
    nulls = cards.inputs["spend"].null_count
    with pytest.raises(GateStoppedError, match=rf"not_be_null on spend: .*\({nulls} of 3,000 rows fail\)"):
        cards.run()


@pytest.mark.thorough
def test_row_rules_keep_rows_out_and_put_them_into_quarantine(cards):
    rules = {"old": "age > 85  -- they are not lent to", "poor": "balance < 200"}
    spec = cards.spec(features={"reject": rules}, checks={"max_rejected": "10%"})
    summary = cards.run(spec)
    rows = cards.table.to_pandas()
    bad = rows[(rows.age > 85) | (rows.balance < 200)]
    assert summary["rows_rejected"] == len(bad) > 0
    assert summary["rows_published"] == 3_000 - len(bad)
    assert not set(cards.published()["id"].to_pylist()) & set(bad.id)
    kept = cards.sql(
        f"SELECT rules, row_key, row_values FROM nightscore_operations.quarantine WHERE pipeline = '{cards.name}'"
    )
    assert {json.loads(row["row_key"])["id"]: row["rules"] for row in kept} == {
        int(row.id): ",".join(n for n, hit in (("old", row.age > 85), ("poor", row.balance < 200)) if hit)
        for row in bad.itertuples()
    }
    assert json.loads(kept[0]["row_values"])["age"] in set(bad.age)
    cards.run(spec)  # a second run replaces the quarantined rows, too
    [again] = cards.sql(f"SELECT COUNT(*) AS n FROM nightscore_operations.quarantine WHERE pipeline = '{cards.name}'")
    assert again["n"] == len(bad)


@pytest.mark.thorough
def test_too_many_rejected_rows_stop_the_run(cards):
    old = sum(age > 60 for age in cards.table["age"].to_pylist())
    spec = cards.spec(features={"reject": {"old": "age > 60", "never": "age < 0"}}, checks={"max_rejected": "1%"})
    share = f"{old / 3_000:.2%}"
    with pytest.raises(
        GateStoppedError, match=rf"max_rejected: wanted at most 1.00%, seen {old:,} rejected rows \({share}\): old"
    ):
        cards.run(spec)


def test_a_night_of_which_every_row_is_rejected_is_refused(cards):
    spec = cards.spec(features={"reject": {"adult": "age >= 18"}}, checks={"max_rejected": "100%"})
    quantile = {
        "expect": "expect_column_quantile_values_to_be_between",
        "column": "age",
        "quantile_ranges": {"quantiles": [0.5], "value_ranges": [[18, 90]]},
    }
    spec = spec.model_copy(
        update={"checks": cards.spec(checks={"max_rejected": "100%", "features": [quantile]}).checks}
    )
    with pytest.raises(GateStoppedError, match="of 3,000 frozen rows none is left to score"):
        cards.run(spec)
    [row] = cards.sql(f"SELECT COUNT(*) AS n FROM nightscore_operations.quarantine WHERE pipeline = '{cards.name}'")
    assert row["n"] == 3_000


def test_a_query_that_gives_no_row_is_refused(cards):
    (cards.folder / "none.sql").write_text("SELECT * FROM " + f"{cards.name}.features WHERE FALSE")
    spec = cards.spec(features={"table": None, "sql": "none.sql"})
    with pytest.raises(GateStoppedError, match="of 0 frozen rows none is left to score"):
        cards.run(spec)


def test_a_dry_run_publishes_nothing(cards):
    summary = cards.run(dry_run=True)
    assert (summary["status"], summary["rows_scored"], summary["rows_published"]) == ("dry_run", 3_000, None)
    assert cards.services.warehouse.find_table(f"{cards.name}.predictions") is None


@pytest.mark.thorough
def test_another_model_can_be_asked_for(cards):
    other = HistGradientBoostingClassifier(max_iter=3, random_state=1)
    rows = cards.inputs.to_pandas()
    other.fit(rows, rows.balance > 900)
    cards.register(other, cards.inputs, alias="challenger")
    assert cards.run(model=parse_model(f"{cards.name}@challenger"))["model_version"] == f"{cards.name}/2"
    assert cards.published()["score"].to_pylist() == other.predict_proba(rows)[:, 1].tolist()
    assert cards.run(model=parse_model(f"{cards.name}@1"))["model_version"] == f"{cards.name}/1"


@pytest.mark.parametrize(
    "done",  # without challengers, the last two stages are left out
    [pytest.param(done, marks=[] if done in (1, 3) else pytest.mark.thorough) for done in range(len(STAGES) - 1)],
)
def test_a_run_that_broke_off_is_taken_up_where_it_stopped(cards, done):
    """After each stage: the same plan again runs only what is missing."""
    broken = start(cards.spec(), DAY, cards.services)
    for stage in STAGES[:done]:
        run_stage(broken, stage)
    watched = Watched()
    summary = cards.run(progress=watched)
    assert summary["run_id"] == broken.plan.run_id
    assert watched.reused == ["plan", *(stage.__name__ for stage in STAGES[:done])]
    assert cards.published().num_rows == 3_000


def test_a_run_whose_shard_is_missing_scores_only_that_shard(cards):
    from nightscore.pipeline import score
    from nightscore.scoring.shard import score_shard
    from nightscore.snapshot import freeze

    broken = start(cards.spec(), DAY, cards.services)
    run_stage(broken, freeze)
    first = score_shard(broken, 0)
    assert score(broken)["reused_shards"] == 1
    assert next(broken.records.receipts()) == first
    assert sum(receipt["rows"] for receipt in broken.records.receipts()) == 3_000


@pytest.mark.thorough
def test_new_data_is_a_new_run_even_if_the_last_one_broke_off(cards):
    broken = start(cards.spec(), DAY, cards.services)
    run_stage(broken, STAGES[0])
    cards.write("features", cards.table.slice(0, 100))
    summary = cards.run()
    assert summary["run_id"] != broken.plan.run_id
    assert summary["rows_published"] == 100


def test_the_frozen_rows_do_not_change_with_the_source(cards):
    run = start(cards.spec(), DAY, cards.services)
    run_stage(run, STAGES[0])
    cards.write("features", cards.table.slice(0, 10))
    for stage in STAGES[1:]:
        run_stage(run, stage)
    assert finish(run)["rows_published"] == 3_000


@pytest.mark.thorough
def test_the_snapshot_and_the_staging_table_expire(cards):
    summary = cards.run(cards.spec(keep="7d"))
    prefix = f"{cards.name}__{summary['run_id'].replace('-', '')}"
    staging = cards.services.warehouse.config.staging_dataset
    planned = dt.datetime.fromisoformat(summary["planned_at"])
    for suffix in ("frozen", "accepted", "staged"):
        table = cards.services.warehouse.find_table(f"{staging}.{prefix}__{suffix}")
        assert abs(table.expires - planned - dt.timedelta(days=7)) < dt.timedelta(seconds=2), suffix


def test_records_and_operations_tables_agree(cards):
    summary = cards.run(reason="a test")
    records = RunRecords(cards.services.bucket, cards.name, summary["run_id"])
    assert records.read("run") == summary
    assert summary["rows_frozen"] == summary["rows_scored"] == sum(r["rows"] for r in records.receipts()) == 3_000
    assert sum(summary["figures"]["histogram"]) == 3_000
    [row] = cards.sql(f"SELECT * FROM nightscore_operations.runs WHERE run_id = '{summary['run_id']}'")
    for name in ("pipeline", "status", "model_version", "rows_frozen", "rows_published", "reason", "records"):
        assert row[name] == summary[name], name
    assert row["partition_date"] == DAY
    checks = cards.sql(
        f"SELECT gate, expectation, passed FROM nightscore_operations.checks WHERE pipeline = '{cards.name}'"
    )
    recorded = [c for gate in ("feature_gate", "prediction_gate") for c in records.read(gate)["checks"]]
    assert len(checks) == len(recorded) > 0
    assert all(check["passed"] for check in checks)


def test_an_empty_partition_names_the_latest_ones(cards):
    with pytest.raises(
        EmptyPartitionError, match=r"no row with snapshot_date = 2026-11-20. The latest partitions are 2026-11-19"
    ):
        cards.run(day=dt.date(2026, 11, 20))


def test_a_missing_table_names_the_nearest(cards):
    with pytest.raises(TableNotFoundError, match="Did you mean `features`"):
        cards.run(cards.spec(features={"table": f"{cards.name}.feature"}))


def test_a_missing_column_names_the_nearest(cards):
    with pytest.raises(ColumnError, match=r"features.keys: .* has no column 'idd'. Did you mean `id`"):
        cards.run(cards.spec(features={"keys": ["idd"]}))


def test_columns_that_the_model_cannot_read_are_all_named(cards):
    table = cards.table.drop_columns(["spend"]).set_column(3, "age", pa.array(["x"] * 3_000))
    cards.write("features", table)
    with pytest.raises(SignatureError) as error:
        cards.run()
    assert "spend: missing." in str(error.value)
    assert "age: is STRING, and the model was fitted on int64, which INT64 can feed." in str(error.value)


def test_a_broken_row_rule_is_refused_before_anything_is_read(cards):
    with pytest.raises(RowRuleError, match=r"features\.reject\.nonsense: .*agee"):
        cards.run(cards.spec(features={"reject": {"nonsense": "agee > 3"}}))


def test_a_byte_limit_is_kept(cards):
    with pytest.raises(LimitError, match=r"limits\.max_bytes_billed: freezing .* would bill [0-9,]+ bytes; 1,000 are"):
        cards.run(cards.spec(limits={"max_bytes_billed": 1000}))


def test_a_predictions_table_of_other_columns_is_not_touched(cards):
    cards.write("predictions", pa.table({"id": [1], "snapshot_date": pa.array([DAY]), "score": ["high"]}))
    with pytest.raises(PredictionsTableError, match="the column score is STRING and not FLOAT64"):
        cards.run()
    assert cards.published().num_rows == 1


class Watched(LoggedProgress):
    """Remembers which stages were reused."""

    def __init__(self):
        self.reused = []

    def stage_ended(self, stage, record):
        if record.get("reused"):
            self.reused.append(stage)


def test_a_broken_off_run_that_can_no_longer_be_completed_is_left_alone(cards):
    """Its frozen rows are about to expire, or time travel no longer reaches back to its snapshot."""
    old = start(cards.spec(), DAY, cards.services)
    path = f"{old.records.prefix}plan.json"
    stored = cards.services.bucket.read(path)
    for changes in (
        {"snapshot_time": (old.plan.snapshot_time - dt.timedelta(days=3)).isoformat()},
        {"expires": (old.plan.snapshot_time + dt.timedelta(hours=1)).isoformat()},
    ):
        content = to_json({**stored.json(), **changes})
        current = cards.services.bucket.read(path)
        assert cards.services.bucket.swap(path, content, current.generation)
        assert start(cards.spec(), DAY, cards.services).plan.run_id != old.plan.run_id
    current = cards.services.bucket.read(path)
    assert cards.services.bucket.swap(path, stored.data, current.generation)
    assert start(cards.spec(), DAY, cards.services).plan.run_id == old.plan.run_id


@pytest.mark.thorough
def test_a_view_can_be_the_source(cards):
    cards.sql("CREATE VIEW {dataset}.recent AS SELECT * FROM {dataset}.features WHERE id < 701")
    summary = cards.run(cards.spec(features={"table": f"{cards.name}.recent"}))
    assert summary["rows_published"] == 100
    plan = RunRecords(cards.services.bucket, cards.name, summary["run_id"]).read("plan")
    assert plan["snapshot_time"] is None  # time travel reads tables only
    assert plan["rows"] == 100


def test_a_table_that_demands_a_filter_on_its_partitions(cards):
    cards.sql("ALTER TABLE {dataset}.features SET OPTIONS (require_partition_filter = TRUE)")
    assert cards.run()["rows_published"] == 3_000
    with pytest.raises(EmptyPartitionError, match="The latest partitions are 2026-11-19"):
        cards.run(day=dt.date(2026, 11, 20))


def test_a_run_that_crashed_after_its_merge_finds_its_rows_live(cards):
    broken = up_to(cards, "prediction_gate")
    publish(broken)  # and the process is gone before it writes the record
    summary = cards.run()
    assert (summary["run_id"], summary["status"], summary["rows_published"]) == (broken.plan.run_id, "published", 3_000)
    assert summary["rows_replaced"] == 0
    [publication] = read_publications(cards.services.bucket, cards.name, DAY)
    assert (publication["run_id"], publication["rows"]) == (broken.plan.run_id, 3_000)
    jobs = [f"{broken.plan.job_key('publish')}_{publication['token']}_{attempt}" for attempt in (0, 1)]
    assert [job_exists(cards, job) for job in jobs] == [True, False]


def test_an_older_run_never_replaces_a_newer_one(cards):
    older = up_to(cards, "prediction_gate")
    publish(older)
    rows = cards.inputs.to_pandas()
    other = HistGradientBoostingClassifier(max_iter=3, random_state=1).fit(rows, rows.balance > 900)
    cards.register(other, cards.inputs, alias="challenger")
    newer = cards.run(model=parse_model(f"{cards.name}@challenger"))
    with pytest.raises(LeaseLostError, match="was taken over by another run"):
        publish(older)
    lease = take_lease(cards.services, cards.name, DAY, LoggedProgress())
    with pytest.raises(SupersededError, match=f"after the run {older.plan.run_id} was planned"):
        publish(open_run(cards.services, cards.name, older.plan.run_id, lease=lease))
    lease.release()
    assert set(cards.published()["run_id"].to_pylist()) == {newer["run_id"]}
    again = cards.run()  # planning it again is a run of its own, and that one may
    assert again["run_id"] not in (older.plan.run_id, newer["run_id"])
    assert set(cards.published()["model_version"].to_pylist()) == {f"{cards.name}/1"}


@pytest.mark.thorough
@pytest.mark.parametrize("after", ["score", "prediction_gate"])
def test_staged_rows_that_were_lost_are_staged_again(cards, after):
    """Whether they vanish before their gate or between it and the MERGE."""
    first = cards.run()
    cards.write("features", cards.table.append_column("more", pa.array([1] * 3_000)))
    broken = up_to(cards, after)
    if after == "score":
        scored = total([Checksum.parse(receipt["checksum"]) for receipt in broken.records.receipts()])
        stage_parts(broken, "binary", scored)
    cards.services.warehouse.client.delete_table(broken.staging_table)
    summary = cards.run()
    assert (summary["run_id"], summary["rows_published"]) == (broken.plan.run_id, 3_000)
    assert summary["run_id"] != first["run_id"]
    assert cards.published().num_rows == 3_000


def test_an_unfinished_run_on_a_view_is_not_taken_up(cards):
    """What lies behind a view may have changed, and nothing says so."""
    cards.sql("CREATE VIEW {dataset}.recent AS SELECT * FROM {dataset}.features")
    spec = cards.spec(features={"table": f"{cards.name}.recent"})
    broken = start(spec, DAY, cards.services)
    run_stage(broken, STAGES[0])
    cards.write("features", cards.table.slice(0, 100))
    summary = cards.run(spec)
    assert summary["run_id"] != broken.plan.run_id
    assert summary["rows_published"] == 100


def test_a_fault_that_was_mended_is_not_remembered_by_its_job(cards):
    def ask():
        sql = f"SELECT COUNT(*) AS n FROM {cards.name}.late"
        return cards.services.warehouse.query(sql, doing="testing", job_key=f"late_{cards.name}").rows

    with pytest.raises(StatementError, match="late"):
        ask()
    cards.write("late", pa.table({"x": [1, 2]}), partition=None)
    assert ask() == [{"n": 2}]


def up_to(cards, last):
    """Return a run whose stages up to one are done."""
    run = start(cards.spec(), DAY, cards.services)
    for found in STAGES:
        run_stage(run, found)
        if found.__name__ == last:
            return run
    raise AssertionError(last)


def job_exists(cards, job_id):
    try:
        return cards.services.warehouse.client.get_job(job_id).job_id == job_id
    except NotFound:
        return False
