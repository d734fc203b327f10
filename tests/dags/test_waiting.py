"""The DAG of a pipeline that waits for data, or runs after a table, and the trigger that looks for it."""

import asyncio
import datetime as dt
from types import SimpleNamespace

import pytest
from airflow.sdk import Asset, PartitionedAssetTimetable
from airflow.serialization.serde import deserialize, serialize

from nightscore.errors import ConfigurationError, GateRefusedError
from nightscore.orchestration.factory import RETRIES, iter_dags, make_dag
from nightscore.orchestration.tasks import PartitionError, fail_for_event, scoring_date
from nightscore.orchestration.waiting import DataTrigger, TriggererError, WaitForData
from nightscore.specs import parse_spec
from nightscore.waiting import DataMissingError

SPEC = """
schedule: {after: features.cards, timezone: Europe/Amsterdam}
features:
  table: features.cards
  partition: snapshot_date
  keys: [account_id]
  wait: {timeout: 3h, until: [rows >= 5, ops.loads_done has row]}
model: {name: credit_default}
predictions: {table: predictions.cards}
"""
BEGAN = "2026-11-20T01:00:00+00:00"


def add(folder, name, text):
    (folder / name).mkdir()
    (folder / name / "pipeline.yaml").write_text(text.replace("predictions.cards", f"predictions.{name}"))


def test_the_wait_comes_before_everything_else():
    dag = make_dag(parse_spec("cards", SPEC))
    first, second = [task.task_id for task in dag.topological_sort()][:2]
    assert (first, second) == ("wait", "plan")
    assert isinstance(dag.get_task("wait"), WaitForData)
    assert dag.get_task("plan").upstream_task_ids == {"wait"}
    assert "`rows >= 5`, `ops.loads_done has row`" in dag.doc_md


def test_without_a_wait_there_is_no_such_task():
    text = SPEC.replace("wait: {timeout: 3h, until: [rows >= 5, ops.loads_done has row]}", "")
    dag = make_dag(parse_spec("cards", text))
    assert "wait" not in dag.task_ids
    assert "`wait` is red" not in dag.doc_md


def test_after_a_table_its_assets_partition_is_the_runs():
    timetable = make_dag(parse_spec("cards", SPEC)).timetable
    assert isinstance(timetable, PartitionedAssetTimetable)
    assert timetable.asset_condition == Asset(name="features.cards", group="nightscore")


def test_one_dag_fails_for_all_events_without_a_partition(tmp_path):
    for name in ("cards", "loans"):
        add(tmp_path, name, SPEC)
    add(tmp_path, "nightly", SPEC.replace("{after: features.cards, timezone: Europe/Amsterdam}", "0 2 * * *"))
    *dags, last = iter_dags(tmp_path)
    assert [dag.dag_id for dag in dags] == ["score_cards", "score_loans", "score_nightly"]
    assert last.dag_id == "events_without_partition"
    assert [asset.name for asset in last.timetable.asset_condition.objects] == ["features.cards"]
    assert last.is_paused_upon_creation is False
    assert "* `features.cards`: cards, loans" in last.doc_md
    with pytest.raises(PartitionError, match=r"An event of features\.cards .* so no run of cards, loans began\."):
        last.get_task("name_the_partition").python_callable(*last.get_task("name_the_partition").op_args)


def test_where_nothing_runs_after_a_table_there_is_no_such_dag(tmp_path):
    add(tmp_path, "nightly", SPEC.replace("{after: features.cards, timezone: Europe/Amsterdam}", "0 2 * * *"))
    assert [dag.dag_id for dag in iter_dags(tmp_path)] == ["score_nightly"]


def test_an_event_that_tells_its_day_is_told_with_it():
    """That of a rollback, which can have no partition key."""
    after = {"features.cards": ["cards"], "features.loans": ["loans"]}
    events = {Asset(name="features.loans"): [SimpleNamespace(extra={"partition": "2026-11-19"})]}
    with pytest.raises(PartitionError) as caught:
        fail_for_event(after, events)
    assert str(caught.value) == (
        "An event of features.loans came without a partition key, so no run of loans began. It is about 2026-11-19: "
        "trigger the pipelines for that, if they are to run again. The DAG that updates an asset names the partition: "
        'it has partitioned runs, or its task says `outlet_events[asset].add_partitions("2026-11-19")`.'
    )


def test_a_key_that_is_no_date_is_told_to_its_producer():
    with pytest.raises(PartitionError) as caught:
        scoring_date("eu", None, "score_cards", "asset__1")
    assert str(caught.value) == (
        "score_cards: the run asset__1 has no scoring date: 'eu' is not a scoring date; write it like 2026-11-19. The "
        "DAG that updates an asset names the partition: it has partitioned runs, or its task says "
        '`outlet_events[asset].add_partitions("2026-11-19")`.'
    )


def test_a_wait_that_is_over_is_not_repeated():
    assert issubclass(DataMissingError, GateRefusedError)
    assert issubclass(TriggererError, ConfigurationError)
    for error in (DataMissingError, TriggererError):
        assert RETRIES.evaluate(error.__new__(error), try_number=1, max_tries=3).action.value == "fail"


def test_another_triggerer_goes_on_where_the_first_stopped():
    """What Airflow keeps of a trigger makes the same one again, with the time when the wait began."""
    spec = parse_spec("cards", SPEC)
    trigger = DataTrigger(spec.model_dump(mode="json"), "2026-11-19", BEGAN)
    path, arguments = trigger.serialize()
    assert path == "nightscore.orchestration.waiting.DataTrigger"
    again = DataTrigger(**deserialize(serialize(arguments)))
    assert again.serialize() == (path, arguments)


def test_a_triggerer_that_cannot_look_says_why(monkeypatch, tmp_path):
    from nightscore.settings import settings

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NIGHTSCORE_PROJECT", raising=False)
    settings.cache_clear()
    trigger = DataTrigger(parse_spec("cards", SPEC).model_dump(mode="json"), "2026-11-19", BEGAN)

    async def first():
        return await anext(trigger.run())

    event = asyncio.run(first())
    assert event.payload["began"] == dt.datetime.fromisoformat(BEGAN).isoformat()
    assert "NIGHTSCORE_PROJECT" in event.payload["fault"]
    settings.cache_clear()
