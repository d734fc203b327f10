"""Promotion: the evidence of every pipeline that uses the model, judged, kept, and an alias that moves once."""

import datetime as dt
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression

from nightscore.promotion import (
    ApproversError,
    NoPipelinesError,
    PolicyError,
    PromotionRefusedError,
    ReasonError,
    carry_out,
    due_challenger,
    keep,
    promote,
    propose,
    require_no_policy,
)
from nightscore.promotion_text import proposal_as_markdown
from nightscore.registry.aliases import AliasMovedError, NoEarlierVersionError, SameVersionError
from nightscore.registry.manifest import digest
from nightscore.registry.store import DigestError
from nightscore.run import open_run
from nightscore.specs import SpecError
from nightscore.version_comparison import compare

DAY = dt.date(2026, 11, 19)
NIGHTS = [DAY - dt.timedelta(days=1), DAY]
ROWS = 600
APPROVED = {"approvers": ["alice", "bob"], "timeout": "2h"}
POLICY = {"min_nights": 2, "max_flips": "50%"}


@pytest.fixture(scope="module")
def cards(new_bench, tmp_path_factory):
    """Two nights of a champion and its challenger, and a folder of specs."""
    bench = new_bench(tmp_path_factory.mktemp("promotion"))
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"balance": rng.normal(size=ROWS), "spend": rng.normal(size=ROWS)})
    label = frame.balance + rng.normal(size=ROWS) > 0
    tables = [
        pa.table({"id": range(ROWS), "snapshot_date": pa.array([day] * ROWS, pa.date32()), **frame.to_dict("list")})
        for day in NIGHTS
    ]
    bench.write("features", pa.concat_tables(tables))
    sample = pa.Table.from_pandas(frame, preserve_index=False)
    bench.register(LogisticRegression().fit(frame, label), sample, alias="champion")
    bench.register(LogisticRegression(C=0.001).fit(frame, label), sample, alias="challenger")
    bench.pipelines = bench.folder / "pipelines"
    write(bench, POLICY)
    bench.asked = asked(bench, POLICY)
    bench.summaries = [bench.run(bench.asked, day) for day in NIGHTS]
    return bench


def text(bench, policy):
    changes = {
        "model": {"name": bench.name, "challengers": ["challenger"]},
        "predictions": {"table": f"{bench.name}.predictions", "threshold": 0.5},
        "limits": {"shards": 1},
    }
    return bench.spec_text(**changes, **({"promotion": policy} if policy else {}))


def asked(bench, policy):
    from nightscore.specs import parse_spec

    return parse_spec(bench.name, text(bench, policy), bench.folder)


def write(bench, policy, name=None):
    folder = bench.pipelines / (name or bench.name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pipeline.yaml").write_text(text(bench, policy))
    return folder / "pipeline.yaml"


@pytest.fixture
def desk(cards):
    """The cards; afterwards the champion is the first version again, and no pipeline but one is left."""
    yield cards
    write(cards, POLICY)
    for path in cards.pipelines.glob("zzz_other*/pipeline.yaml"):
        path.unlink()
        path.parent.rmdir()
    registry = cards.services.registry
    if registry.alias(cards.name, "champion").version != 1:
        first = registry.load_manifest(cards.name, 1, manifest(cards, 1).digest)
        registry.move_alias(registry.alias(cards.name, "champion"), first, "the next test")


def manifest(bench, number):
    from nightscore.spec import ModelReference

    return bench.services.registry.resolve(ModelReference(name=bench.name, version=number))


def proposed(bench, version="challenger"):
    return propose(bench.services, bench.pipelines, bench.name, "champion", version)


def test_a_policy_that_is_met_promotes_and_the_history_holds_the_evidence(desk):
    moved, proposal = promote(desk.services, desk.pipelines, desk.name, "champion", "challenger", "fewer bad debts")
    assert (moved.version, moved.digest) == (2, manifest(desk, 2).digest)
    assert [(item.rule, item.passed) for item in proposal.judged[0].findings] == [
        ("min_nights", True),
        ("max_flips", True),
    ]
    entry = moved.last
    assert (entry["from"], entry["to"], entry["kind"], entry["forced"]) == (1, 2, "promote", False)
    assert entry["reason"] == "fewer bad debts"
    [kept] = entry["evidence"]
    assert (kept["pipeline"], kept["nights"]) == (desk.name, 2)
    bucket = desk.services.bucket
    stored = bucket.read(f"registry/models/{desk.name}/evidence/{kept['evidence']}.json")
    assert digest(stored.data) == kept["evidence"]
    assert stored.json()["accumulated"]["figures"]["rows"] == 2 * ROWS
    decision = bucket.read(f"registry/models/{desk.name}/proposals/{entry['proposal']}.json")
    assert digest(decision.data) == entry["proposal"]
    assert decision.json()["judged"][0]["evidence"] == kept["evidence"]
    table = f"{desk.services.warehouse.config.operations_dataset}.evidence"
    [row] = desk.sql(
        f"SELECT value FROM {table} WHERE pipeline = '{desk.name}' AND scope = 'accumulated' AND metric = 'nights'"
    )
    assert row["value"] == 2

    back = desk.services.registry.roll_back(desk.name, "champion", "complaints")
    assert (back.version, back.last["kind"], back.last["from"]) == (1, "rollback", 2)
    with pytest.raises(NoEarlierVersionError, match="points to 1 and has replaced no version"):
        desk.services.registry.roll_back(desk.name, "champion", "again")


def test_a_policy_that_is_not_met_refuses_and_moves_nothing(desk):
    write(desk, {**POLICY, "min_nights": 14, "max_flips": "0.1%"})
    before = desk.services.registry.alias(desk.name, "champion")
    with pytest.raises(PromotionRefusedError) as caught:
        promote(desk.services, desk.pipelines, desk.name, "champion", "2", "impatience")
    words = str(caught.value)
    assert words.startswith(f"{desk.name}/2 may not become {desk.name}@champion yet:\n")
    assert f"{desk.name}: min_nights: 2 nights; wanted: at least 14: NOT met" in words
    assert "max_flips: " in words
    assert caught.value.exit_code == 1
    assert desk.services.registry.alias(desk.name, "champion") == before

    moved, _ = promote(desk.services, desk.pipelines, desk.name, "champion", "2", "the old one is wrong", force=True)
    assert (moved.version, moved.last["forced"]) == (2, True)


def test_a_promotion_needs_a_reason(desk):
    with pytest.raises(ReasonError, match="A promotion needs a reason"):
        promote(desk.services, desk.pipelines, desk.name, "champion", "2", "  ")


def test_of_two_promotions_of_one_proposal_one_wins_and_the_other_is_told(desk):
    registry = desk.services.registry
    kept = [keep(desk.services, proposed(desk), by=by) for by in ("alice", "bob")]
    assert kept[0] != kept[1]
    carry_out(registry, desk.name, kept[0], "alice was first", by="alice")
    with pytest.raises(AliasMovedError, match=rf"was moved to {desk.name}/2 by alice at .* nothing was changed"):
        carry_out(registry, desk.name, kept[1], "bob was second", by="bob")
    assert registry.alias(desk.name, "champion").last["by"] == "alice"


def test_a_proposal_that_was_changed_is_not_carried_out(desk):
    registry = desk.services.registry
    kept = keep(desk.services, proposed(desk))
    path = f"registry/models/{desk.name}/proposals/{kept}.json"
    changed = {**json.loads(registry.bucket.read(path).data), "passed": False}
    registry.bucket._bucket.blob(path).upload_from_string(json.dumps(changed))
    with pytest.raises(DigestError, match=kept[:16]):
        carry_out(registry, desk.name, kept, "forged")


def test_every_pipeline_that_publishes_the_alias_is_asked(desk):
    write(desk, {**POLICY, **APPROVED})
    write(desk, {"min_nights": 1, "approvers": ["bob", "carol"], "timeout": "1h"}, name="zzz_other")
    found = proposed(desk)
    assert [item.pipeline for item in found.judged] == [desk.name, "zzz_other"]
    assert not found.passed, "the other pipeline has not scored a night"
    assert found.approvers == ("bob",)
    assert found.timeout == dt.timedelta(hours=1)
    write(desk, {"min_nights": 1, "approvers": ["carol"]}, name="zzz_other")
    with pytest.raises(ApproversError, match="named by every pipeline that uses it"):
        _ = proposed(desk).approvers
    write(desk, None, name="zzz_other")
    found = proposed(desk)
    assert [item.pipeline for item in found.judged] == [desk.name]
    assert found.approvers == ("alice", "bob")
    assert found.timeout == dt.timedelta(hours=2)


def test_a_command_line_cannot_answer_for_approvers(desk):
    write(desk, {**POLICY, **APPROVED})
    with pytest.raises(ApproversError, match=r"promotion\.approvers: alice, bob must approve"):
        promote(desk.services, desk.pipelines, desk.name, "champion", "2", "I am in a hurry")
    moved, _ = promote(desk.services, desk.pipelines, desk.name, "champion", "2", "alice is away", force=True)
    assert (moved.version, moved.last["forced"]) == (2, True)


def test_a_policy_that_cannot_be_judged_stops_all_but_force(desk):
    (write(desk, POLICY, name="zzz_other")).write_text("features: {}")
    with pytest.raises(SpecError):
        promote(desk.services, desk.pipelines, desk.name, "champion", "2", "x")
    outcomes = {"table": f"{desk.name}.gone", "column": "bad"}
    path = write(desk, {**POLICY, "max_auc_loss": 0.01})
    path.write_text(path.read_text() + f"evidence: {{outcomes: {json.dumps(outcomes)}}}\n")
    moved, proposal = promote(desk.services, desk.pipelines, desk.name, "champion", "2", "x", force=True)
    assert (moved.version, moved.last["forced"]) == (2, True)
    [finding] = proposal.judged[0].findings
    assert (finding.rule, finding.passed) == ("evidence", False)
    assert finding.found.startswith("not gathered: ")
    with pytest.raises(NoPipelinesError, match="Set NIGHTSCORE_PIPELINES_DIR"):
        promote(desk.services, desk.pipelines / "gone", desk.name, "champion", "1", "x")


def test_an_alias_that_a_policy_stands_before_is_not_moved_by_a_registration(desk):
    registry = desk.services.registry
    require_no_policy(registry, desk.pipelines, desk.name, "challenger")
    require_no_policy(registry, desk.pipelines, "a_new_model", "champion")
    with pytest.raises(PolicyError, match=f"is what the pipeline {desk.name} publishes, whose spec has a promotion"):
        require_no_policy(registry, desk.pipelines, desk.name, "champion")
    write(desk, None)
    require_no_policy(registry, desk.pipelines, desk.name, "champion")


def test_a_promotion_whose_answer_was_lost_is_not_made_twice(desk):
    registry = desk.services.registry
    kept = keep(desk.services, proposed(desk))
    first = carry_out(registry, desk.name, kept, "once", by="alice")
    assert carry_out(registry, desk.name, kept, "once", by="alice") == first
    with pytest.raises(SameVersionError, match=f"{desk.name}@champion points to {desk.name}/2 already"):
        promote(desk.services, desk.pipelines, desk.name, "champion", "2", "again")


def test_what_an_approver_reads_holds_rules_figures_and_digests(desk):
    found = proposed(desk)
    body = proposal_as_markdown(found, "abc", "fewer | bad\ndebts")
    assert f"**{desk.name}/2** shall become **{desk.name}@champion**, which is {desk.name}/1 now." in body
    assert "* why: fewer \\| bad debts" in body
    assert "| min_nights | met | at least 2 | 2 nights |" in body
    assert f"* 2 nights, {NIGHTS[0]} to {NIGHTS[1]}, {2 * ROWS:,} rows" in body
    assert f"`{found.version.digest}`" in body
    assert f"`{found.judged[0].digest}`" in body
    assert "* outcomes: the spec names no evidence.outcomes" in body


def test_a_challenger_is_due_once_it_has_scored_enough_nights_and_only_once(desk):
    record = open_run(desk.services, desk.name, desk.summaries[-1]["run_id"]).records.read("evidence")
    challenger = f"{desk.name}/2"
    assert due_challenger(desk.services, desk.pipelines, asked(desk, {"min_nights": 3}), record) is None
    assert due_challenger(desk.services, desk.pipelines, asked(desk, None), record) is None
    name = f"registry/models/{desk.name}/proposals/"
    for path in list(desk.services.bucket.iter_names(name)):
        desk.services.bucket._bucket.blob(path).delete()
    assert due_challenger(desk.services, desk.pipelines, asked(desk, {"min_nights": 2}), record) == challenger
    write(desk, {"min_nights": 2, "max_flips": "0%"})
    assert due_challenger(desk.services, desk.pipelines, asked(desk, {"min_nights": 2}), record) is None, "not yet"
    keep(desk.services, proposed(desk))
    write(desk, POLICY)
    assert due_challenger(desk.services, desk.pipelines, asked(desk, {"min_nights": 2}), record) == challenger
    keep(desk.services, proposed(desk))
    assert due_challenger(desk.services, desk.pipelines, asked(desk, {"min_nights": 2}), record) is None


def test_two_versions_are_compared_by_what_they_are_and_how_they_scored(desk):
    from nightscore.arguments import parse_model

    references = [parse_model(f"{desk.name}@{which}") for which in ("champion", "challenger")]
    found = compare(desk.services, desk.pipelines, *references)
    titles = [part.title for part in found.parts]
    assert titles == ["versions", f"{desk.name}: {desk.name}/2 beside {desk.name}/1"]
    rows = {row[0]: row[1] for row in found.parts[1].rows}
    assert (rows["nights"], rows["rows"]) == ("2", f"{2 * ROWS:,}")
    assert found.content["sample_psi"] > 0.1
    assert found.content["evidence"][0]["challenger"] == f"{desk.name}/2"
