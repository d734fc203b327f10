"""Evidence: what a night counts of challengers beside its champion, what all nights say, and what outcomes say."""

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score, roc_curve

from nightscore.cli.evidence import print_evidence
from nightscore.cli.report import print_run
from nightscore.ledger import record as ledger_record
from nightscore.monitoring.evidence import gather, shared_nights
from nightscore.monitoring.evidence_table import write_accumulated
from nightscore.monitoring.night import evidence
from nightscore.monitoring.outcomes import OutcomesError
from nightscore.monitoring.policy import judge
from nightscore.registry.store import Version
from nightscore.run import open_run
from nightscore.source import ColumnError
from nightscore.spec import ModelReference
from nightscore.warehouse import WarehouseError

DAY = dt.date(2026, 11, 19)
NIGHTS = [DAY - dt.timedelta(days=back) for back in (2, 1, 0)]
ROWS = 1500
THRESHOLD = 0.5
INPUTS = ["balance", "spend", "age"]


def accounts(day):
    """Accounts on one night, and what became of them."""
    people, rng = np.random.default_rng(7), np.random.default_rng(day.toordinal())
    balance = people.normal(1000, 300, ROWS) + rng.normal(0, 30, ROWS)
    spend, age = people.exponential(50, ROWS), people.integers(18, 90, ROWS)
    logit = (balance - 1000) / 200 + spend / 40 - 2 - 1.5 * (age > 60)
    outcome = people.random(ROWS) < 1 / (1 + np.exp(-logit))
    segment = people.choice(["gold", "other", None], ROWS, p=[0.5, 0.4, 0.1])
    segment[:3] = "rare"
    table = pa.table(
        {
            "id": pa.array(np.arange(ROWS) * 7 + 1),
            "branch": pa.array(["north"] * ROWS),
            "snapshot_date": pa.array([day] * ROWS, pa.date32()),
            "balance": balance,
            "spend": spend,
            "age": age,
            "Segment": pa.array(segment, pa.string()),
            "office": pa.array(np.where(np.arange(ROWS) < 500, 0, np.arange(ROWS) % 60)),
        }
    )
    return table, outcome


@pytest.fixture(scope="module")
def cards(new_bench, tmp_path_factory):
    """Three nights of a champion and its challenger, outcomes of the first two, and one challenger that fails."""
    bench = new_bench(tmp_path_factory.mktemp("evidence"))
    found = {day: accounts(day) for day in NIGHTS}
    bench.tables, bench.outcome = {day: table for day, (table, _) in found.items()}, found[DAY][1]
    bench.write("features", pa.concat_tables(bench.tables.values()))
    known = pa.concat_tables(
        bench.tables[day].select(["id", "branch", "snapshot_date"]).append_column("defaulted", pa.array(bench.outcome))
        for day in NIGHTS[:2]
    )
    # The first row stands twice, and of the second nobody knows yet.
    defaulted = known["defaulted"].to_pylist()
    defaulted[1] = None
    known = known.set_column(3, "defaulted", pa.array(defaulted))
    bench.write("outcomes", pa.concat_tables([known, known.slice(0, 1)]))
    sample = bench.tables[NIGHTS[0]]
    bench.models = {}
    for alias, estimator, columns in (
        ("champion", LogisticRegression(max_iter=2000), ["spend", "age"]),
        ("challenger", HistGradientBoostingClassifier(max_iter=20, random_state=0), INPUTS),
    ):
        rows = sample.select(columns).to_pandas()
        estimator.fit(rows, bench.outcome)
        version = bench.register(estimator, pa.Table.from_pandas(rows, preserve_index=False), alias=alias)
        bench.models[alias] = (version, estimator, columns)
    bench.asked = bench.spec(
        features={"keys": ["id", "branch"]},
        model={"name": bench.name, "challengers": ["challenger", "nobody"]},
        predictions={"table": f"{bench.name}.predictions", "threshold": THRESHOLD},
        evidence={
            "slices": ["segment", "office"],
            "outcomes": {"table": f"{bench.name}.outcomes", "column": "defaulted"},
        },
        promotion={"min_nights": 3, "max_flips": "2%", "max_auc_loss": 0.01, "confidence": "90%"},
    )
    bench.summaries = [bench.run(bench.asked, day) for day in NIGHTS]
    return bench


@pytest.fixture(scope="module")
def gathered(cards):
    return gather(cards.services, cards.asked, *both(cards))


def both(bench):
    """Return the first two versions of a bench's model."""
    return [bench.services.registry.resolve(ModelReference(name=bench.name, version=number)) for number in (1, 2)]


def scores(cards, alias, days=NIGHTS):
    _, estimator, columns = cards.models[alias]
    return np.concatenate([estimator.predict_proba(cards.tables[d].select(columns).to_pandas())[:, 1] for d in days])


def test_a_night_counts_what_numpy_counts_on_the_same_rows(cards):
    run = open_run(cards.services, cards.name, cards.summaries[-1]["run_id"])
    assert run.plan.columns["Segment"] == "STRING", "spelt as the table spells it"
    record = run.records.read("evidence")
    assert (record["champion"], record["task"], record["threshold"]) == (f"{cards.name}/1", "binary", THRESHOLD)
    assert (record["error"], record["queries"]) == (None, 1)
    a, b = (scores(cards, alias, [DAY]) for alias in ("champion", "challenger"))
    [(label, found)] = record["challengers"].items()
    assert label == f"{cards.name}/2"
    figures = found["figures"]
    assert figures["rows"] == ROWS
    assert figures["correlation"] == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-12)
    assert figures["mean_absolute_difference"] == pytest.approx(np.abs(a - b).mean(), abs=1e-12)
    assert figures["largest_difference"] == pytest.approx(np.abs(a - b).max(), abs=1e-12)
    into, out = (a < THRESHOLD) & (b >= THRESHOLD), (a >= THRESHOLD) & (b < THRESHOLD)
    assert found["counts"] == {
        "rows": ROWS,
        "flagged_by_champion": int((a >= THRESHOLD).sum()),
        "flagged_by_challenger": int((b >= THRESHOLD).sum()),
        "swapped_in": int(into.sum()),
        "swapped_out": int(out.sum()),
    }
    assert min(into.sum(), out.sum()) > 10, "the models decide otherwise, both ways"
    for side, values in (("champion", a), ("challenger", b)):
        places = np.floor(np.log(values / (1 - values)) / 0.1).astype(int) + 160
        assert found["bins"][side] == np.bincount(places, minlength=320).tolist()
    segment = np.array(cards.tables[DAY]["Segment"].to_pylist(), object)
    named = {"gold": segment == "gold", "other": segment == "other", "(NULL)": segment == None}  # noqa: E711
    named["(other)"] = segment == "rare"  # of three rows, so it has no name
    assert {value: counts["rows"] for value, counts in found["slices"]["Segment"].items()} == {
        value: int(rows.sum()) for value, rows in named.items()
    }
    assert found["slices"]["Segment"]["(NULL)"]["swapped_in"] == int((into & named["(NULL)"]).sum())
    office = found["slices"]["office"]
    assert (len(office), office["0"]["rows"]) == (51, 500 + int((np.arange(500, ROWS) % 60 == 0).sum()))
    assert sum(counts["rows"] for counts in office.values()) == ROWS
    assert sum(counts["swapped_out"] for counts in office.values()) == int(out.sum())


def test_a_challenger_that_takes_no_part_is_named_with_the_reason(cards):
    record = open_run(cards.services, cards.name, cards.summaries[0]["run_id"]).records.read("evidence")
    assert list(record["left_out"]) == [f"{cards.name}@nobody"]
    assert "no alias 'nobody'" in record["left_out"][f"{cards.name}@nobody"]


def test_the_summary_holds_the_main_figures(cards):
    found = cards.summaries[-1]["evidence"]
    assert list(found) == [f"{cards.name}/2"]
    assert set(found[f"{cards.name}/2"]) == {"rows", "correlation", "psi", "flips", "flip_share"}
    assert found[f"{cards.name}/2"]["rows"] == ROWS


def test_the_operations_table_holds_a_row_for_every_figure_once(cards):
    run = open_run(cards.services, cards.name, cards.summaries[-1]["run_id"])
    ledger_record(run)  # once more
    rows = cards.services.warehouse.query(
        f"SELECT * FROM `{cards.services.warehouse.config.operations_dataset}.evidence` WHERE run_id = @run AND "
        "pipeline = @pipeline",
        {"run": run.plan.run_id, "pipeline": cards.name},
        doing="looking at the evidence",
    ).rows
    record = run.records.read("evidence")["challengers"][f"{cards.name}/2"]
    assert {row["scope"] for row in rows} == {"night"}
    assert {(row["champion"], row["challenger"]) for row in rows} == {(f"{cards.name}/1", f"{cards.name}/2")}
    whole = {row["metric"]: row["value"] for row in rows if row["slice"] is None}
    assert whole["swapped_in"] == record["counts"]["swapped_in"]
    assert whole["correlation"] == record["figures"]["correlation"]
    sliced = [row for row in rows if row["slice"] == "Segment" and row["slice_value"] == "gold"]
    assert {row["metric"]: row["value"] for row in sliced} == record["slices"]["Segment"]["gold"]
    assert len(rows) == len({(row["metric"], row["slice"], row["slice_value"]) for row in rows})


def test_all_nights_together_are_what_numpy_finds_on_all_their_rows(cards, gathered):
    a, b = (scores(cards, alias) for alias in ("champion", "challenger"))
    figures = gathered["accumulated"]["figures"]
    assert [night["partition"] for night in gathered["nights"]] == [day.isoformat() for day in NIGHTS]
    assert figures["rows"] == 3 * ROWS
    assert figures["correlation"] == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-12)
    assert figures["flips"] == int(((a >= THRESHOLD) != (b >= THRESHOLD)).sum())
    assert gathered["accumulated"]["slices"]["Segment"]["gold"]["rows"] == 3 * sum(
        value == "gold" for value in cards.tables[DAY]["Segment"].to_pylist()
    )
    assert gathered["left_out"] == []


def test_outcomes_are_judged_as_scikit_learn_judges_them(cards, gathered):
    found = gathered["outcomes"]
    assert [night["outcomes"]["rows"] for night in gathered["nights"]] == [ROWS - 1, ROWS, 0]
    second = gathered["nights"][1]["outcomes"]["challenger"]
    one = scores(cards, "challenger", [NIGHTS[1]])
    assert second["auc"] == pytest.approx(roc_auc_score(cards.outcome, one), abs=2e-3)
    assert second["brier"] == pytest.approx(brier_score_loss(cards.outcome, one), abs=1e-12)
    known = np.delete(np.tile(cards.outcome, 2), 1)
    assert (found["rows"], found["positives"]) == (2 * ROWS - 1, int(known.sum()))
    for alias in ("champion", "challenger"):
        score = np.delete(scores(cards, alias, NIGHTS[:2]), 1)
        auc = roc_auc_score(known, score)
        assert found[alias]["auc"]["value"] == pytest.approx(auc, abs=1e-3)
        assert found[alias]["gini"]["value"] == pytest.approx(2 * auc - 1, abs=2e-3)
        assert found[alias]["brier"]["value"] == pytest.approx(brier_score_loss(known, score), abs=1e-12)
        wrong, right, _ = roc_curve(known, score, drop_intermediate=False)
        assert found[alias]["ks"]["value"] == pytest.approx((right - wrong).max(), abs=0.01)
        assert found[alias]["auc"]["low"] < found[alias]["auc"]["value"] < found[alias]["auc"]["high"]
        deciles = found[alias]["calibration"]
        assert sum(item["rows"] for item in deciles) == len(known)
        mean = sum(item["predicted"] * item["rows"] for item in deciles) / len(known)
        assert mean == pytest.approx(score.mean(), abs=1e-12)
        assert sum(item["observed"] * item["rows"] for item in deciles) == pytest.approx(known.sum())
    difference = found["difference"]["auc"]
    assert difference["value"] == pytest.approx(found["challenger"]["auc"]["value"] - found["champion"]["auc"]["value"])
    assert 0 < difference["low"] < difference["least"] < difference["value"] < difference["high"]
    a, b = (np.delete(scores(cards, alias, NIGHTS[:2]), 1) for alias in ("champion", "challenger"))
    into = (a < THRESHOLD) & (b >= THRESHOLD)
    assert found["swapped_in"]["rows"] == int(into.sum())
    assert found["swapped_in"]["rate"] == pytest.approx(known[into].mean())


def test_evidence_can_end_at_a_night(cards):
    found = gather(cards.services, cards.asked, *both(cards), until=NIGHTS[0])
    assert [night["partition"] for night in found["nights"]] == [NIGHTS[0].isoformat()]
    assert found["outcomes"]["rows"] == ROWS - 1


def test_versions_that_never_scored_beside_each_other_have_no_evidence(cards):
    found = gather(cards.services, cards.asked, *reversed(both(cards)))
    assert (found["nights"], found["task"]) == ([], None)
    assert found["outcomes"] == {"rows": 0, "reason": "there is no night on which both versions scored the same rows"}
    assert [finding.passed for finding in judge(cards.asked.promotion, found)] == [False, False, False]
    write_accumulated(cards.services, cards.asked, found)


@pytest.mark.parametrize("place", [0, 1], ids=["champion", "challenger"])
def test_a_version_that_was_registered_anew_under_its_number_inherits_no_night(cards, place):
    versions = both(cards)
    versions[place] = Version(versions[place].manifest, "0" * 64)
    assert gather(cards.services, cards.asked, *versions)["nights"] == []


def test_nights_of_the_same_versions_are_counted(cards):
    record = open_run(cards.services, cards.name, cards.summaries[-1]["run_id"]).records.read("evidence")
    assert record["digests"] == {version.label: version.digest for version in both(cards)}
    challenger = f"{cards.name}/2"
    assert shared_nights(cards.services.bucket, cards.name, record, challenger) == 3
    for digests in ({}, {**record["digests"], challenger: "0" * 64}):
        other = {**record, "digests": digests}
        assert shared_nights(cards.services.bucket, cards.name, other, challenger) == 0
    before = {key: value for key, value in record.items() if key != "digests"}
    assert shared_nights(cards.services.bucket, cards.name, before, challenger) == 0


def test_flips_are_unknown_once_the_threshold_is_another(cards):
    changed = cards.asked.model_copy(
        update={"predictions": cards.asked.predictions.model_copy(update={"threshold": 0.4})}
    )
    found = gather(cards.services, changed, *both(cards))
    assert (found["threshold"], found["other_threshold"]) == (0.4, 3)
    assert found["accumulated"]["figures"]["flip_share"] is None
    assert found["accumulated"]["slices"]["Segment"]["gold"].keys() == {"rows"}
    assert "3 of 3 nights had another threshold" in [item.found for item in judge(cards.asked.promotion, found)]


def test_the_policy_judges_what_was_gathered(cards, gathered):
    nights, flips, auc = judge(cards.asked.promotion, gathered)
    assert (nights.rule, nights.passed) == ("min_nights", True)
    assert (flips.rule, flips.passed) == ("max_flips", False)
    assert (auc.rule, auc.passed) == ("max_auc_loss", True)
    assert gathered["outcomes"]["one_sided_confidence"] == 0.9


def test_people_can_read_it(cards, gathered, capsys):
    console = Console(width=160, highlight=False)
    print_evidence(console, gathered, judge(cards.asked.promotion, gathered))
    text = capsys.readouterr().out
    figures = gathered["accumulated"]["figures"]
    auc = gathered["outcomes"]["challenger"]["auc"]
    for shown in (
        f"{cards.name}: {cards.name}/2 beside {cards.name}/1",
        f"{figures['flips']:,} flips ({figures['flip_share']:.2%})",
        "swap set by Segment",
        "… and 43 smaller values",
        f"{auc['value']:.4f} [{auc['low']:.4f}, {auc['high']:.4f}]",
        "only the challenger flags",
    ):
        assert shown in text, shown
    [flips] = [line.split() for line in text.splitlines() if line.startswith("max_flips")]
    assert flips[:4] == ["max_flips", "NO", "at", "most"]
    print_run(console, cards.summaries[-1])
    assert f"challenger {cards.name}/2: correlation 0." in capsys.readouterr().out


def test_accumulated_evidence_is_written_once(cards, gathered):
    for _ in range(2):
        write_accumulated(cards.services, cards.asked, gathered)
    rows = cards.services.warehouse.query(
        f"SELECT * FROM `{cards.services.warehouse.config.operations_dataset}.evidence` WHERE scope = 'accumulated' "
        "AND pipeline = @pipeline",
        {"pipeline": cards.name},
        doing="looking at the evidence",
    ).rows
    nights = cards.services.warehouse.query(
        f"SELECT * FROM `{cards.services.warehouse.config.operations_dataset}.evidence` WHERE scope = 'outcomes' AND "
        "pipeline = @pipeline AND metric = 'challenger_auc' ORDER BY partition_date",
        {"pipeline": cards.name},
        doing="looking at the evidence",
    ).rows
    assert [(row["partition_date"], row["run_id"], row["rows"], row["value"]) for row in nights] == [
        (day, night["run_id"], night["outcomes"]["rows"], night["outcomes"]["challenger"]["auc"])
        for day, night in zip(NIGHTS[:2], gathered["nights"], strict=False)
    ]
    whole = {row["metric"]: row for row in rows if row["slice"] is None}
    assert whole["nights"]["value"] == 3
    auc = gathered["outcomes"]["difference"]["auc"]
    assert {name: whole["difference_auc"][name] for name in ("value", "low", "high")} == {
        name: auc[name] for name in ("value", "low", "high")
    }
    assert (whole["difference_auc"]["run_id"], whole["difference_auc"]["partition_date"]) == (None, DAY)
    assert len(rows) == len({(row["metric"], row["slice"], row["slice_value"]) for row in rows})


def test_outcomes_that_are_text_need_their_positive_value(cards):
    cards.sql(
        "CREATE OR REPLACE TABLE {dataset}.words AS SELECT id, branch, TIMESTAMP(snapshot_date) AS day, "
        "IF(defaulted, 'bad', 'good') AS state FROM {dataset}.outcomes WHERE defaulted IS NOT NULL"
    )

    def asked(**outcomes):
        wanted = {"table": f"{cards.name}.words", "column": "state", "partition": "day", **outcomes}
        found = cards.asked.model_dump(mode="json") | {"evidence": {"slices": [], "outcomes": wanted}}
        return type(cards.asked).model_validate(found)

    found = gather(cards.services, asked(positive="bad"), *both(cards))["outcomes"]
    assert (found["rows"], found["positives"]) == (2 * ROWS - 1, int(np.delete(np.tile(cards.outcome, 2), 1).sum()))
    with pytest.raises(OutcomesError, match="say which of its values means the positive class"):
        gather(cards.services, asked(), *both(cards))
    with pytest.raises(OutcomesError, match=r"evidence\.outcomes\.column: .* no column 'stat'\. Did you mean `state`"):
        gather(cards.services, asked(column="stat", positive="bad"), *both(cards))


def test_what_a_retry_would_only_repeat_is_recorded_and_a_server_that_fails_is_not(cards, monkeypatch):
    run = open_run(cards.services, cards.name, cards.summaries[0]["run_id"])
    cut = run.spec.model_copy(update={"evidence": run.spec.evidence.model_copy(update={"slices": ("gone",)})})
    broken = type(run)(run.plan.model_copy(update={"spec": cut}), run.services)
    found = evidence(broken)
    assert found["challengers"] == {}
    assert found["error"].startswith("BigQuery refused to go on while comparing the challengers")
    assert found["left_out"][f"{cards.name}/2"].startswith("It could not be compared: BigQuery refused")

    def fails(*_, **__):
        raise WarehouseError("comparing", "backendError")

    monkeypatch.setattr(type(cards.services.warehouse), "query", fails)
    with pytest.raises(WarehouseError):
        evidence(run)


def test_a_slice_must_be_a_column_that_can_be_counted_by(cards):
    def planned(name):
        found = cards.asked.model_copy(update={"evidence": cards.asked.evidence.model_copy(update={"slices": (name,)})})
        return cards.run(found, DAY)

    with pytest.raises(ColumnError, match=r"evidence\.slices: .* no column 'segmen'\. Did you mean `Segment`"):
        planned("segmen")
    with pytest.raises(ColumnError, match="is FLOAT64; STRING or BOOL or INT64 or DATE is needed"):
        planned("balance")


def test_amounts_are_compared_by_the_champions_deciles(new_bench, tmp_path):
    bench = new_bench(tmp_path)
    table, _ = accounts(DAY)
    bench.write("features", table)
    amount = 1e6 + table["balance"].to_numpy()
    predicted = []
    for alias, columns in (("champion", ["balance", "age"]), ("challenger", ["balance"])):
        rows = table.select(columns).to_pandas()
        rows["balance"] = np.round(rows["balance"], -2)
        estimator = LinearRegression().fit(rows, amount)
        bench.register(estimator, pa.Table.from_pandas(rows, preserve_index=False), alias=alias)
        predicted.append(estimator.predict(table.select(columns).to_pandas()))
    summary = bench.run(bench.spec(model={"name": bench.name, "challengers": ["challenger"]}))
    a, b = predicted
    record = open_run(bench.services, bench.name, summary["run_id"]).records.read("evidence")
    [found] = record["challengers"].values()
    assert record["queries"] == 2
    assert found["figures"]["correlation"] == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-9)
    assert found["figures"]["root_mean_square_difference"] == pytest.approx(np.sqrt(((a - b) ** 2).mean()), rel=1e-9)
    assert found["figures"]["flips"] is None
    assert sum(found["bins"]["challenger"]) == ROWS
    assert all(abs(count - ROWS / 10) < ROWS / 50 for count in found["bins"]["champion"])
    everything = gather(bench.services, bench.spec(), *both(bench))
    assert everything["accumulated"]["figures"] == found["figures"]
    assert everything["outcomes"]["reason"] == "the spec names no evidence.outcomes"


@pytest.mark.thorough
def test_classes_are_compared_by_their_labels(new_bench, tmp_path):
    bench = new_bench(tmp_path)
    table, _ = accounts(DAY)
    bench.write("features", table)
    labels = np.digitize(table["balance"].to_numpy() + 200 * (table["age"].to_numpy() > 60), [800, 1200]).astype(str)
    predicted = []
    for alias, columns in (("champion", ["balance", "age"]), ("challenger", ["balance"])):
        rows = table.select(columns).to_pandas()
        estimator = HistGradientBoostingClassifier(max_iter=5, random_state=0).fit(rows, labels)
        bench.register(estimator, pa.Table.from_pandas(rows, preserve_index=False), alias=alias)
        predicted.append(estimator.predict(rows))
    spec = bench.spec(model={"name": bench.name, "challengers": ["challenger"]}, evidence={"slices": ["Segment"]})
    summary = bench.run(spec)
    a, b = predicted
    [found] = open_run(bench.services, bench.name, summary["run_id"]).records.read("evidence")["challengers"].values()
    changed = int((a != b).sum())
    assert changed > 0
    assert found["counts"] == {"rows": ROWS, "changed": changed}
    assert found["figures"]["flip_share"] == changed / ROWS
    assert found["bins"]["champion"] == {label: int((a == label).sum()) for label in sorted(set(a))}
    assert sum(counts["changed"] for counts in found["slices"]["Segment"].values()) == changed
    assert "correlation" not in found["figures"]
