"""Challengers: who takes part, what they score beside the champion, and that nothing they do fails its night."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nightscore.arguments import parse_model
from nightscore.check import check_challengers, check_pipeline
from nightscore.errors import ConfigurationError, LeaseLostError
from nightscore.objects import to_json
from nightscore.pipeline import STAGES, finish, run_stage, start
from nightscore.predictions import publish
from nightscore.replacement import begin_publication
from nightscore.shadow import shadow
from nightscore.warehouse import StatementError, Warehouse

DAY = dt.date(2026, 11, 19)
ROWS = 2_000


def accounts(day=DAY, seed=0):
    """Accounts with four features, of which `spend` is sometimes NULL, and an outcome."""
    rng = np.random.default_rng(seed)
    balance, spend, tenure = rng.normal(1000, 300, ROWS), rng.exponential(50, ROWS), rng.exponential(5, ROWS)
    outcome = (balance / 1000 + spend / 100 + rng.normal(0, 0.5, ROWS)) > 1.6
    spend[rng.random(ROWS) < 0.01] = np.nan
    table = pa.table(
        {
            "id": pa.array(np.arange(ROWS) * 7 + 1),
            "snapshot_date": pa.array([day] * ROWS, pa.date32()),
            "balance": balance,
            "spend": pa.array(spend, from_pandas=True),
            "age": rng.integers(18, 90, ROWS),
            "tenure": tenure,
        }
    )
    return table, outcome


@pytest.fixture
def cards(bench):
    """A bench with a champion on three features; `challenge` registers another model."""
    bench.table, bench.outcome = accounts()
    bench.write("features", bench.table)
    bench.models = {}
    challenge(bench, boosting(), ["balance", "spend", "age"], "champion")
    return bench


def boosting(seed=0):
    return HistGradientBoostingClassifier(max_iter=10, random_state=seed)


def linear():
    """A model that takes no NULL."""
    return make_pipeline(StandardScaler(), LogisticRegression())


def challenge(bench, estimator, columns, alias="challenger", outcome=None):
    """Fit, register and remember a model."""
    known = bench.table.select(columns).to_pandas()
    whole = known.notna().all(axis=1)
    estimator.fit(known[whole], (bench.outcome if outcome is None else outcome)[whole])
    version = bench.register(estimator, pa.Table.from_pandas(known[whole], preserve_index=False), alias=alias)
    bench.models[version.label] = (estimator, columns)
    return version


def spec_with(bench, *challengers, **changes):
    return bench.spec(model={"name": bench.name, "challengers": list(challengers)}, **changes)


def night(bench, spec, day=DAY, stages=(*STAGES, shadow), **kwargs):
    """Run a pipeline up to the last of these stages; return its context, with the lease given back."""
    run = start(spec, day, bench.services, **kwargs)
    try:
        for stage in dict.fromkeys(stages):
            run_stage(run, stage)
        if shadow in stages:
            finish(run)
    finally:
        run.require_lease().release()
    return run


def expected(bench, label, table=None):
    estimator, columns = bench.models[label]
    return estimator.predict_proba((table or bench.table).select(columns).to_pandas())[:, 1]


def shadowed(bench, label):
    return bench.published(table=f"predictions_shadow WHERE model_version = '{label}'")


def versions(bench):
    rows = bench.sql("SELECT model_version, COUNT(*) AS n FROM {dataset}.predictions_shadow GROUP BY model_version")
    return {row["model_version"]: row["n"] for row in rows}


def test_challengers_score_the_same_rows_into_a_table_of_their_own(cards):
    second = challenge(cards, boosting(1), ["age", "tenure", "balance"])
    third = challenge(cards, RandomForestClassifier(10, random_state=0), ["balance", "age"], "candidate")
    run = night(cards, spec_with(cards, "challenger", 3))
    assert [pinned.label for pinned in run.plan.challengers] == [second.label, third.label]
    assert [pinned.requested for pinned in run.plan.challengers] == [f"{cards.name}@challenger", f"{cards.name}@3"]
    assert run.plan.left_out == {}
    record = run.records.read("shadow")
    assert record["published"] is True
    assert record["table"].endswith(f"{cards.name}.predictions_shadow")
    assert record["rows"] == {second.label: ROWS, third.label: ROWS}
    assert record["left_out"] == {}
    for version in (second, third):
        found = shadowed(cards, version.label)
        assert found["id"].to_pylist() == cards.table["id"].to_pylist()
        assert found["score"].to_numpy().tolist() == expected(cards, version.label).tolist()
        assert set(found["run_id"].to_pylist()) == {run.plan.run_id}
        assert set(found["snapshot_date"].to_pylist()) == {DAY}
    champion = cards.published()
    assert set(champion["model_version"].to_pylist()) == {f"{cards.name}/1"}
    assert champion["score"].to_numpy().tolist() == expected(cards, f"{cards.name}/1").tolist()


@pytest.mark.thorough
def test_the_shadow_table_is_made_like_the_predictions_table(cards):
    challenge(cards, boosting(1), ["balance"])
    night(cards, spec_with(cards, "challenger"))
    found, own = (cards.services.warehouse.find_table(f"{cards.name}.predictions{end}") for end in ("_shadow", ""))
    assert found.time_partitioning.field == own.time_partitioning.field == "snapshot_date"
    assert found.clustering_fields == own.clustering_fields == ["id"]
    assert [(f.name, f.field_type, f.mode) for f in found.schema] == [
        (f.name, f.field_type, f.mode) for f in own.schema
    ]
    assert found.description == f"What challengers would have published into {cards.name}.predictions."


@pytest.mark.thorough
def test_the_frozen_columns_are_what_champion_and_challengers_read(cards):
    challenge(cards, boosting(1), ["tenure", "balance"])
    plain, run = night(cards, cards.spec(), stages=()), night(cards, spec_with(cards, "challenger"), stages=())
    assert set(plain.plan.columns) == {"id", "snapshot_date", "balance", "spend", "age"}
    assert run.plan.columns == {**plain.plan.columns, "tenure": "FLOAT64"}


def test_a_night_without_challengers_makes_no_table(cards):
    run = night(cards, cards.spec())
    assert run.records.read("shadow")["published"] is False
    assert run.plan.challengers == ()
    assert cards.services.warehouse.find_table(f"{cards.name}.predictions_shadow") is None


@pytest.mark.thorough
def test_running_again_replaces_the_partition_and_leaves_the_others(cards):
    challenger = challenge(cards, boosting(1), ["balance", "spend"])
    other, _ = accounts(dt.date(2026, 11, 18), seed=1)
    cards.write("features", pa.concat_tables([cards.table, other]))
    spec = spec_with(cards, "challenger")
    night(cards, spec)
    night(cards, spec, dt.date(2026, 11, 18))
    replacement = challenge(cards, boosting(2), ["balance", "age"])
    night(cards, spec)
    assert versions(cards) == {challenger.label: ROWS, replacement.label: ROWS}
    [row] = cards.sql(
        "SELECT COUNT(*) AS n, MIN(model_version) AS first, MAX(model_version) AS last "
        f"FROM {{dataset}}.predictions_shadow WHERE snapshot_date = '{DAY}'"
    )
    assert row == {"n": ROWS, "first": replacement.label, "last": replacement.label}


def test_a_challenger_that_fails_is_reported_and_the_others_go_in(cards):
    good = challenge(cards, boosting(1), ["balance", "age"])
    bad = challenge(cards, linear(), ["balance", "spend"], "linear")
    run = night(cards, spec_with(cards, "challenger", "linear"))
    assert run.records.read("feature_gate")["verdict"] == "pass", "the gate asks what the champion takes"
    record = run.records.read("shadow")
    assert record["rows"] == {good.label: ROWS}
    assert list(record["left_out"]) == [bad.label]
    start, why = record["left_out"][bad.label].split(": ", 1)
    assert start == "It failed in 2 of 2 shards, first in shard 0"
    assert why.startswith("It raised ValueError: ")
    evidence = run.records.read("evidence")
    assert (list(evidence["challengers"]), evidence["left_out"]) == ([good.label], record["left_out"])
    assert versions(cards) == {good.label: ROWS}
    assert run.records.read("publish")["rows"] == cards.published().num_rows == ROWS
    assert run.records.read("run")["status"] == "published"


@pytest.mark.thorough
def test_rows_of_an_earlier_run_do_not_stay_beside_a_new_champion(cards):
    challenge(cards, boosting(1), ["balance", "age"])
    spec = spec_with(cards, "challenger")
    night(cards, spec)
    assert sum(versions(cards).values()) == ROWS
    bad = challenge(cards, linear(), ["balance", "spend"])
    run = night(cards, spec)
    assert run.records.read("shadow")["rows"] == {}
    assert list(run.records.read("shadow")["left_out"]) == [bad.label]
    assert versions(cards) == {}


@pytest.mark.thorough
def test_a_challenger_that_never_scored_makes_no_table(cards):
    challenge(cards, linear(), ["balance", "spend"])
    run = night(cards, spec_with(cards, "challenger"))
    assert run.records.read("shadow")["rows"] == {}
    assert cards.services.warehouse.find_table(f"{cards.name}.predictions_shadow") is None


@pytest.mark.thorough
def test_a_dry_run_publishes_no_challenger(cards):
    challenger = challenge(cards, boosting(1), ["balance", "age"])
    run = night(cards, spec_with(cards, "challenger"), dry_run=True)
    record = run.records.read("shadow")
    assert (record["published"], record["reason"]) == (False, "dry run")
    assert record["rows"] == {challenger.label: ROWS}
    assert run.records.read("evidence")["challengers"] == {}
    assert cards.services.warehouse.find_table(f"{cards.name}.predictions_shadow") is None


@pytest.mark.thorough
def test_the_champion_comes_first(cards):
    challenge(cards, boosting(1), ["balance", "age"])
    run = start(spec_with(cards, "challenger"), DAY, cards.services)
    for stage in STAGES[: STAGES.index(publish)]:
        run_stage(run, stage)
    with pytest.raises(ConfigurationError, match="was not published yet"):
        run_stage(run, shadow)
    run.require_lease().release()


@pytest.mark.thorough
def test_a_process_that_crashed_after_the_statement_finds_its_rows(cards):
    challenger = challenge(cards, boosting(1), ["balance", "age"])
    run = start(spec_with(cards, "challenger"), DAY, cards.services)
    for stage in STAGES[: STAGES.index(publish) + 1]:
        run_stage(run, stage)
    first = shadow(run)
    jobs = [job.job_id for job in cards.services.warehouse.client.list_jobs(max_results=100)]
    assert shadow(run) == first
    later = [job.job_id for job in cards.services.warehouse.client.list_jobs(max_results=100)]
    assert not any("_shadow_" in job for job in set(later) - set(jobs)), "nothing was loaded or merged again"
    assert versions(cards) == {challenger.label: ROWS}
    run.require_lease().release()


@pytest.mark.thorough
def test_staged_rows_that_were_lost_are_staged_again(cards):
    challenger = challenge(cards, boosting(1), ["balance", "age"])
    run = start(spec_with(cards, "challenger"), DAY, cards.services)
    for stage in STAGES[: STAGES.index(publish) + 1]:
        run_stage(run, stage)
    first = shadow(run)
    cards.sql(f"DELETE FROM {run.shadow_staging_table} WHERE id < 70")
    cards.sql("DELETE FROM {dataset}.predictions_shadow WHERE id < 700")
    assert shadow(run) == first
    assert versions(cards) == {challenger.label: ROWS}
    run.require_lease().release()


@pytest.mark.thorough
def test_parts_that_are_gone_are_reported(cards):
    challenger = challenge(cards, boosting(1), ["balance", "age"])
    run = start(spec_with(cards, "challenger"), DAY, cards.services)
    for stage in STAGES[: STAGES.index(publish) + 1]:
        run_stage(run, stage)
    bucket = cards.services.bucket
    receipt = next(iter(run.records.receipts()))
    path = receipt["challengers"][challenger.label]["part"].removeprefix(bucket.uri(""))
    bucket._bucket.blob(path).delete()
    record = run_stage(run, shadow)
    assert (record["published"], record["reason"], record["rows"]) == (False, "refused", {})
    assert list(record["left_out"]) == [challenger.label]
    assert finish(run)["status"] == "published"
    run.require_lease().release()


@pytest.mark.thorough
def test_a_receipt_that_does_not_account_for_every_row_leaves_its_challenger_out(cards):
    challenger = challenge(cards, boosting(1), ["balance", "age"])
    run = start(spec_with(cards, "challenger"), DAY, cards.services)
    for stage in STAGES[: STAGES.index(publish) + 1]:
        run_stage(run, stage)
    bucket, name = cards.services.bucket, f"{run.records.prefix}shards/part-00001.json"
    stored = bucket.read(name)
    lost = int(stored.json()["rows"])
    assert bucket.swap(name, to_json({**stored.json(), "challengers": {}}), stored.generation)
    assert run_stage(run, shadow)["left_out"] == {challenger.label: f"It scored {ROWS - lost:,} of {ROWS:,} rows."}
    run.require_lease().release()


@pytest.mark.thorough
def test_a_shadow_table_that_cannot_hold_the_scores_is_reported(cards):
    challenger = challenge(cards, boosting(1), ["balance", "age"])
    cards.sql("CREATE TABLE {dataset}.predictions_shadow (id STRING, snapshot_date DATE) PARTITION BY snapshot_date")
    run = night(cards, spec_with(cards, "challenger"))
    record = run.records.read("shadow")
    assert record["published"] is False
    assert f"{cards.name}.predictions_shadow exists and cannot hold" in record["left_out"][challenger.label]
    assert run.records.read("run")["status"] == "published"
    [warning, *_] = check_challengers(spec_with(cards, "challenger"), cards.services)
    assert warning == (
        f"{cards.name}: model.challengers: all would be left out. {cards.name}.predictions_shadow: "
        "the column id is STRING and not INT64."
    )


@pytest.mark.thorough
def test_rows_of_another_hand_are_told_from_ours(cards, monkeypatch):
    challenge(cards, boosting(1), ["balance", "age"])
    run = start(spec_with(cards, "challenger"), DAY, cards.services)
    for stage in STAGES[: STAGES.index(publish) + 1]:
        run_stage(run, stage)
    monkeypatch.setattr("nightscore.shadow.replace_partition", lambda *_, **__: None)
    record = run_stage(run, shadow)
    assert (record["published"], record["rows"]) == (False, {})
    [why] = record["left_out"].values()
    assert "predictions_shadow holds no row for 2026-11-19" in why
    assert finish(run)["status"] == "published", "nothing that a challenger does fails the run"
    run.require_lease().release()


@pytest.mark.thorough
def test_a_run_that_is_not_the_published_one_any_more_leaves_the_table_alone(cards):
    first = challenge(cards, boosting(1), ["balance", "age"])
    spec = spec_with(cards, "challenger")
    slow = night(cards, spec, stages=STAGES[: STAGES.index(publish) + 1])
    challenge(cards, boosting(2), ["balance", "age"])
    later = night(cards, spec)
    before = shadowed(cards, f"{cards.name}/3")
    found = shadow(slow)
    assert found["rows"] == {}
    assert found["left_out"] == {
        first.label: f"{cards.name}.predictions holds the predictions of {later.plan.run_id} by now."
    }
    assert shadowed(cards, f"{cards.name}/3").equals(before)
    assert versions(cards) == {f"{cards.name}/3": ROWS}


@pytest.mark.parametrize("columns", [["balance", "age"], ["balance", "spend"]], ids=["replacing", "clearing"])
def test_a_run_that_was_overtaken_at_the_last_moment_changes_nothing(cards, monkeypatch, columns):
    earlier = challenge(cards, boosting(1), ["balance", "age"])
    spec = spec_with(cards, "challenger")
    night(cards, spec)
    challenge(cards, linear(), columns)  # with `spend`, which may be NULL, it fails, and the partition is to be emptied
    run = start(spec, DAY, cards.services)
    for stage in STAGES[: STAGES.index(publish) + 1]:
        run_stage(run, stage)
    monkeypatch.setattr("nightscore.shadow.begin_publication", lambda run: begin_publication(run) - 1)
    with pytest.raises(LeaseLostError):
        run_stage(run, shadow)
    assert versions(cards) == {earlier.label: ROWS}
    assert run.records.read("shadow") is None
    run.require_lease().release()


def planned(cards, *challengers, **kwargs):
    """Plan a run and return its plan."""
    return night(cards, spec_with(cards, *challengers), stages=(), **kwargs).plan


def test_an_alias_that_does_not_exist_is_left_out_with_its_near_miss(cards):
    challenge(cards, boosting(1), ["balance"])
    plan = planned(cards, "challengr", "challenger")
    assert [pinned.version for pinned in plan.challengers] == [2]
    assert plan.left_out == {
        f"{cards.name}@challengr": f"The model {cards.name} has no alias 'challengr'. Did you mean `challenger`?"
    }


@pytest.mark.thorough
def test_the_champion_itself_is_no_challenger(cards):
    version = challenge(cards, boosting(1), ["balance"])
    registry = cards.services.registry
    registry.move_alias(registry.alias(cards.name, "champion"), version, "promoted")
    plan = planned(cards, "challenger", 1)
    assert [pinned.version for pinned in plan.challengers] == [1]
    assert plan.left_out == {
        f"{cards.name}@challenger": f"It is {cards.name}/2, which the run publishes: there is nothing to compare."
    }


@pytest.mark.thorough
def test_a_version_scores_once(cards):
    challenge(cards, boosting(1), ["balance"])
    plan = planned(cards, "challenger", 2)
    assert [pinned.requested for pinned in plan.challengers] == [f"{cards.name}@challenger"]
    assert plan.left_out == {f"{cards.name}@2": f"It is {cards.name}/2, as {cards.name}@challenger is."}


@pytest.mark.thorough
def test_another_task_or_other_classes_cannot_be_compared(cards):
    amount = cards.table["balance"].to_numpy()
    regression = challenge(cards, LinearRegression(), ["age", "balance"], "amount", amount)
    words = challenge(cards, boosting(), ["age"], "words", np.where(cards.outcome, "yes", "no"))
    plan = planned(cards, "amount", "words")
    assert plan.challengers == ()
    assert plan.left_out == {
        f"{cards.name}@amount": f"{regression.label} is a regression model, and {cards.name}/1, which the run "
        "publishes, binary.",
        f"{cards.name}@words": f"{words.label} predicts the classes no, yes, and {cards.name}/1, which the run "
        "publishes, False, True.",
    }


@pytest.mark.thorough
def test_columns_that_cannot_feed_a_challenger_leave_it_out(cards):
    version = challenge(cards, boosting(1), ["balance", "tenure"])
    cards.write("features", cards.table.rename_columns(["id", "snapshot_date", "balance", "spend", "age", "tenures"]))
    plan = planned(cards, "challenger")
    assert plan.challengers == ()
    assert plan.left_out == {
        f"{cards.name}@challenger": f"{version.label} cannot read the columns of {cards.name}.features: "
        "tenure: missing. Did you mean `tenures`?"
    }
    assert "tenures" not in plan.columns


@pytest.mark.thorough
def test_columns_that_are_closed_to_us_cost_only_the_challenger_that_reads_them_its_night(cards, monkeypatch):
    odd = challenge(cards, boosting(1), ["balance", "tenure"], "odd")
    challenge(cards, boosting(2), ["balance", "age"])
    ask = Warehouse.estimate

    def refused(warehouse, sql, parameters=None, *, doing):
        """Answer as BigQuery does for a column with a policy tag, which the local server does not have."""
        if "`tenure`" in sql:
            raise StatementError(doing, "Access Denied: User does not have permission to access policy tag")
        return ask(warehouse, sql, parameters, doing=doing)

    monkeypatch.setattr(Warehouse, "estimate", refused)
    plan = planned(cards, "odd", "challenger")
    assert [pinned.requested for pinned in plan.challengers] == [f"{cards.name}@challenger"]
    assert plan.left_out == {
        f"{cards.name}@odd": f"The columns that {odd.label} reads besides cannot be frozen: BigQuery refused to go on "
        f"while planning to freeze {cards.name}.features for {cards.name}: Access Denied: User does not have "
        "permission to access policy tag"
    }
    assert set(plan.columns) == {"id", "snapshot_date", "balance", "spend", "age"}
    challenge(cards, boosting(3), ["balance", "tenure"], "champion")
    with pytest.raises(StatementError, match="Access Denied"):
        planned(cards, "challenger")


@pytest.mark.thorough
def test_another_champion_for_one_run_keeps_the_challengers_but_itself(cards):
    challenge(cards, boosting(1), ["balance"])
    challenge(cards, boosting(2), ["age"], "candidate")
    plan = planned(cards, "challenger", "candidate", model=parse_model(f"{cards.name}@challenger"))
    assert (plan.model.version, [pinned.version for pinned in plan.challengers]) == (2, [3])
    assert list(plan.left_out) == [f"{cards.name}@challenger"]


@pytest.mark.thorough
def test_a_plan_without_challengers_is_the_same_plan_as_ever(cards):
    plain = night(cards, cards.spec(), stages=()).plan
    assert planned(cards, "nobody").run_id != plain.run_id, "the spec is another one"
    assert night(cards, spec_with(cards), stages=()).plan.run_id == plain.run_id


@pytest.mark.thorough
def test_another_challenger_is_another_plan(cards):
    challenge(cards, boosting(1), ["balance"])
    first = planned(cards, "challenger")
    assert planned(cards, "challenger").run_id == first.run_id
    challenge(cards, boosting(2), ["balance"])
    assert planned(cards, "challenger").run_id != first.run_id


@pytest.mark.thorough
def test_a_check_warns_of_who_would_be_left_out(cards):
    challenge(cards, boosting(1), ["balance", "tenure"])
    spec = spec_with(cards, "challenger", "nobody")
    assert check_pipeline(spec, cards.services) == []
    [warning] = check_challengers(spec, cards.services)
    assert warning == (
        f"{cards.name}: model.challengers: {cards.name}@nobody would be left out. "
        f"The model {cards.name} has no alias 'nobody'. Allowed: challenger, champion."
    )
    cards.write("features", cards.table.drop_columns(["tenure"]))
    assert [line.split(" would be left out. ")[0] for line in check_challengers(spec, cards.services)] == [
        f"{cards.name}: model.challengers: {cards.name}@nobody",
        f"{cards.name}: model.challengers: {cards.name}@challenger",
    ]


@pytest.mark.thorough
def test_a_check_of_a_pipeline_that_does_not_fit_leaves_its_challengers_aside(cards):
    spec = cards.spec(model={"name": "no_such_model", "challengers": ["challenger"]})
    assert check_challengers(spec, cards.services) == []
    assert len(check_pipeline(spec, cards.services)) == 1
