"""Replaying runs: the same bits from trees, rounding from sums, and one account for an auditor."""

import numpy as np
import pyarrow as pa
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression

from nightscore.replay import ReplayError, parse_key, replay, replay_row
from nightscore.run import open_run

ROWS = 400


@pytest.fixture
def cards(bench):
    """A bench with accounts, of which one is rejected, and a way to run a model on them."""
    rng = np.random.default_rng(3)
    table = pa.table(
        {
            "id": range(1, ROWS + 1),
            "branch": [("north", "south")[i % 2] for i in range(ROWS)],
            "snapshot_date": [bench.day] * ROWS,
            "balance": rng.normal(1000, 300, ROWS),
            "age": pa.array(rng.integers(18, 90, ROWS)).cast(pa.float64()),
        }
    )
    bench.write("features", table)
    bench.table, bench.inputs = table, table.select(["balance", "age"])
    bench.outcome = table["balance"].to_numpy() + 5 * table["age"].to_numpy()
    bench.features = {"keys": ["id", "branch"], "reject": {"first": "id = 1"}}

    def go(estimator):
        bench.register(estimator, bench.inputs)
        spec = bench.spec(features=bench.features, checks={"max_rejected": "1%"})
        return open_run(bench.services, bench.name, bench.run(spec)["run_id"])

    bench.go = go
    return bench


def test_trees_give_the_same_bits_again(cards):
    rows = cards.inputs.to_pandas()
    run = cards.go(HistGradientBoostingClassifier(max_iter=10, random_state=0).fit(rows, cards.outcome > 1200))
    found = replay(run)
    assert (found["verdict"], found["limit"]) == ("equal", 0.0)
    assert (found["compared"], found["differing"], found["beyond"], found["largest"]) == (ROWS - 1, 0, 0, 0.0)
    assert (found["missing"], found["added"]) == (0, 0)
    assert found["checksum"] == found["recorded"]
    assert cards.sql(f"SELECT COUNT(*) AS n FROM {{dataset}}.predictions WHERE run_id = '{run.plan.run_id}'") == [
        {"n": ROWS - 1}
    ]


def test_a_replay_leaves_nothing_but_its_record(cards):
    run = cards.go(LinearRegression().fit(cards.inputs.to_pandas(), cards.outcome))
    before = {table.table_id for table in run.warehouse.client.list_tables("nightscore_staging")}
    replay(run)
    after = {table.table_id for table in run.warehouse.client.list_tables("nightscore_staging")}
    assert {name for name in after - before if name.startswith(cards.name)} == set()
    left = [name.rsplit("/", 1)[-1] for name in run.bucket.iter_names(f"{run.records.prefix}replays/")]
    assert len(left) == 1
    assert left[0].endswith(".json")


def test_sums_may_differ_by_rounding_and_by_no_more(cards):
    run = cards.go(LinearRegression().fit(cards.inputs.to_pandas(), cards.outcome))
    found = replay(run)
    assert (found["verdict"], found["limit"], found["compared"]) == ("equal", 1e-12, ROWS - 1)
    assert found["largest"] <= 1e-12
    cards.sql(f"UPDATE `{run.staging_table}` SET prediction = prediction * 1.000001 WHERE id = 7")
    cards.sql(f"DELETE FROM `{run.staging_table}` WHERE id = 8")
    found = replay(run)
    assert (found["verdict"], found["beyond"], found["added"], found["missing"]) == ("different", 1, 1, 0)
    assert found["largest"] == pytest.approx(1e-6, rel=1e-3)


@pytest.mark.thorough
def test_classes_are_compared_one_by_one(cards):
    labels = np.array(["low", "middle", "high"])[np.digitize(cards.outcome, [1100, 1400])]
    run = cards.go(LogisticRegression(max_iter=2000).fit(cards.inputs.to_pandas(), labels))
    found = replay(run)
    assert (found["verdict"], found["compared"], found["added"], found["missing"]) == ("equal", ROWS - 1, 0, 0)
    row = replay_row(run, {"id": "5", "branch": "north"})
    assert row["verdict"] == "equal"
    assert {item["label"] for item in row["new"]["probabilities"]} == {"low", "middle", "high"}
    assert row["old"]["prediction"] == row["new"]["prediction"]


def test_one_account_with_its_values_and_both_scores(cards):
    rows = cards.inputs.to_pandas()
    model = HistGradientBoostingClassifier(max_iter=10, random_state=0).fit(rows, cards.outcome > 1200)
    run = cards.go(model)
    cards.write("features", cards.table.slice(0, 3))  # whatever became of the source
    found = replay_row(run, parse_key(run, ["ID=42", "branch=south"]))
    expected = float(model.predict_proba(rows.iloc[41:42])[0, 1])
    assert found["key"] == {"id": 42, "branch": "south"}
    assert found["values"] == {"balance": rows.balance[41], "age": rows.age[41]}
    assert found["old"] == found["new"] == {"score": expected}
    assert (found["difference"], found["verdict"]) == (0.0, "equal")


def test_a_rejected_account_names_its_rule(cards):
    run = cards.go(LinearRegression().fit(cards.inputs.to_pandas(), cards.outcome))
    found = replay_row(run, {"id": "1", "branch": "north"})
    assert (found["verdict"], found["rejected_by"], found["new"]) == ("rejected", ["first"], None)


def test_what_cannot_be_replayed_says_why(cards):
    run = cards.go(LinearRegression().fit(cards.inputs.to_pandas(), cards.outcome))
    for words, message in (
        (["id=5"], "named by all of its keys; give branch as well"),
        (["idd=5", "branch=x"], "has no key 'idd'. Did you mean `id`"),
        (["id=5", "id=6", "branch=x"], "The key id is given twice"),
        (["id"], "'id' is not a key; write it like id=4711"),
    ):
        with pytest.raises(ReplayError, match=message):
            parse_key(run, words)
    with pytest.raises(ReplayError, match=r"froze no row\(s\) with id=5, branch=south"):
        replay_row(run, {"id": "5", "branch": "south"})
    with pytest.raises(ReplayError, match=r"id=abc, branch=south cannot be looked for \(id is INT64"):
        replay_row(run, {"id": "abc", "branch": "south"})
    run.warehouse.client.delete_table(run.snapshot_table)
    with pytest.raises(ReplayError, match=r"were kept until .* UTC; there is no table .*__frozen any more"):
        replay(run)
