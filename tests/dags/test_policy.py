"""Policy over every DAG of the checkout, and the shape of a pipeline's DAG."""

import copy
import datetime as dt
import itertools
import sys
from pathlib import Path

import pytest
from airflow.sdk.definitions.context import _AIRFLOW_PARSING_CONTEXT_DAG_ID
from airflow.sdk.exceptions import ParamValidationError

from nightscore.errors import ConfigurationError, GateRefusedError, TransientError
from nightscore.orchestration.factory import PARAMS, RETRIES, iter_dags, make_dag, predictions_asset
from nightscore.orchestration.tasks import NotPublishedError, PartitionError, scoring_date
from nightscore.specs import SpecError, parse_spec, pipeline_names
from nightscore.warehouse import WarehouseError

ROOT = Path(__file__).resolve().parents[2]
STAGES = ["plan", "freeze", "feature_gate", "score", "prediction_gate", "publish", "record"]

SPEC = """
description: Chance of default.
owner: risk-ml
schedule: {cron: "0 3 * * *", timezone: Europe/Amsterdam}
features: {table: features.cards, partition: snapshot_date, keys: [account_id]}
model: {name: credit_default}
predictions: {table: predictions.cards}
limits: {parallel_shards: 5}
"""


def test_every_pipeline_has_a_dag_without_import_errors(dagbag):
    names = pipeline_names(ROOT / "dags" / "pipelines")
    assert names, "no pipeline was found"
    assert dagbag.import_errors == {}
    assert {f"score_{name}" for name in names} <= set(dagbag.dag_ids)


def test_every_dag_has_an_owner_a_page_a_tag_and_bounded_retries(dagbag):
    assert dagbag.dags
    for dag in dagbag.dags.values():
        assert dag.doc_md, dag.dag_id
        assert "nightscore" in dag.tags, dag.dag_id
        assert not dag.catchup, dag.dag_id
        for task in dag.tasks:
            assert task.owner not in ("", "airflow"), (dag.dag_id, task.task_id)
            assert 0 <= task.retries <= 5, (dag.dag_id, task.task_id)


@pytest.mark.parametrize(
    ("text", "is_accepted"),
    [
        ("credit_default@champion", True),
        ("mlflow:Credit Default@7", True),
        ("vertex:4711@champion", True),
        ("Credit Default@7", False),
        ("s3:credit_default@7", False),
        ("mlflow:a/b@7", False),
    ],
)
def test_the_form_takes_models_of_other_registries(text, is_accepted):
    param = make_dag(parse_spec("cards", SPEC)).params.get_param("model")
    if is_accepted:
        assert param.resolve(text) == text
    else:
        with pytest.raises(ParamValidationError):
            param.resolve(text)


def test_a_model_with_a_long_name_has_a_dag():
    name = f"{'Credit ' * 20}Default"
    dag = make_dag(parse_spec("cards", SPEC.replace("{name: credit_default}", f'"mlflow:{name}@champion"')))
    assert f"model:{name}"[:100] in dag.tags


def test_tasks_are_the_stages_in_their_order():
    dag = make_dag(parse_spec("cards", SPEC))
    assert [task.task_id for task in dag.topological_sort()] == STAGES
    for before, after in itertools.pairwise(STAGES):
        assert after in dag.get_task(before).downstream_task_ids


def test_challengers_have_tasks_after_publish_that_cannot_hold_up_the_record():
    dag = make_dag(parse_spec("cards", SPEC.replace("credit_default}", "credit_default, challengers: [challenger]}")))
    shadow, evidence, record = (dag.get_task(name) for name in ("shadow", "evidence", "record"))
    assert "publish" in shadow.upstream_task_ids
    assert "shadow" in evidence.upstream_task_ids
    assert {"publish", "evidence"} <= record.upstream_task_ids
    assert shadow.trigger_rule == "none_failed"  # a dry run skips `publish`


def test_score_is_mapped_and_bounded():
    score = make_dag(parse_spec("cards", SPEC)).get_task("score")
    assert score.is_mapped
    assert score.max_active_tis_per_dagrun == 5


def test_record_runs_even_when_a_stage_failed():
    assert make_dag(parse_spec("cards", SPEC)).get_task("record").trigger_rule == "all_done"


def test_publish_updates_the_asset_named_like_the_table():
    spec = parse_spec("cards", SPEC)
    [asset] = make_dag(spec).get_task("publish").outlets
    assert asset == predictions_asset(spec)
    assert asset.name == "predictions.cards"


def test_without_schedule_only_triggers_start_a_run():
    text = SPEC.replace('schedule: {cron: "0 3 * * *", timezone: Europe/Amsterdam}\n', "")
    assert make_dag(parse_spec("cards", text)).schedule is None


@pytest.mark.parametrize(
    ("cron", "timezone", "offset", "now"),
    [
        ("0 2 * * *", "UTC", -1, "2026-11-20T10:00:00+00:00"),
        ("0 2 * * *", "UTC", -1, "2026-11-20T01:59:59+00:00"),
        ("0 2 * * *", "UTC", 0, "2026-11-20T02:00:00+00:00"),
        ("30 1 * * *", "Europe/Amsterdam", -1, "2026-11-20T00:45:00+00:00"),
        ("0 3 * * *", "Europe/Amsterdam", -1, "2026-03-29T09:00:00+00:00"),
        ("0 1 * * *", "Europe/Amsterdam", -1, "2026-03-29T23:30:00+00:00"),
        ("30 2 * * *", "America/Sao_Paulo", -1, "2026-03-29T09:00:00+00:00"),
        ("0 4 * * 1", "America/New_York", -1, "2026-11-20T10:00:00+00:00"),
        ("0 4 * * 1", "UTC", 1, "2026-11-20T10:00:00+00:00"),
    ],
)
def test_the_spec_names_the_partition_that_airflow_would(cron, timezone, offset, now):
    """`latest_partition` agrees with Airflow's own timetable."""
    import pendulum
    from airflow.timetables.base import TimeRestriction
    from airflow.timetables.trigger import CronPartitionTimetable

    moment = dt.datetime.fromisoformat(now)
    schedule = f"schedule: {{cron: '{cron}', timezone: {timezone}, offset: {offset}}}"
    text = SPEC.replace('schedule: {cron: "0 3 * * *", timezone: Europe/Amsterdam}', schedule)
    spec = parse_spec("cards", text)
    timetable = CronPartitionTimetable(cron, timezone=timezone, run_offset=offset, key_format="%Y-%m-%d")
    restriction = TimeRestriction(pendulum.instance(moment) - dt.timedelta(days=30), None, catchup=True)
    info, latest = None, None
    while (info := timetable.next_dagrun_info_v2(last_dagrun_info=info, restriction=restriction)) is not None:
        if info.run_after > pendulum.instance(moment):
            break
        latest = info
    assert str(spec.schedule.latest_partition(moment)) == latest.partition_key


def test_airflow_would_skip_a_partition_when_the_clock_skips_the_hour():
    """Why specs refuse such an hour; when Airflow names the night of 28 March right, the check can go."""
    import pendulum
    from airflow.timetables.base import TimeRestriction
    from airflow.timetables.trigger import CronPartitionTimetable

    timetable = CronPartitionTimetable("0 2 * * *", timezone="Europe/Amsterdam", run_offset=-1, key_format="%Y-%m-%d")
    info, keys = None, []
    for _ in range(4):
        restriction = TimeRestriction(pendulum.datetime(2026, 3, 28), None, catchup=True)
        info = timetable.next_dagrun_info_v2(last_dagrun_info=info, restriction=restriction)
        keys.append(info.partition_key)
    assert keys == ["2026-03-27", "2026-03-29", "2026-03-29", "2026-03-30"]
    with pytest.raises(SpecError, match="the clock skips 02:00 when summer time begins"):
        parse_spec("cards", SPEC.replace("0 3 * * *", "0 2 * * *"))


def test_a_broken_spec_becomes_a_dag_that_fails_with_its_fault(tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "pipeline.yaml").write_text(SPEC.replace("predictions:", "predicitons:"))
    (tmp_path / "sound").mkdir()
    (tmp_path / "sound" / "pipeline.yaml").write_text(SPEC)
    dags = {dag.dag_id: dag for dag in iter_dags(tmp_path)}
    assert set(dags) == {"score_broken", "score_sound"}
    assert "predicitons: unknown key. Did you mean `predictions`?" in dags["score_broken"].doc_md
    assert dags["score_broken"].schedule is not None
    with pytest.raises(ConfigurationError, match="broken: predicitons"):
        dags["score_broken"].get_task("plan").python_callable(*dags["score_broken"].get_task("plan").op_args)


@pytest.fixture
def files_read():
    """Return a function that gives the names of the pipelines whose files a call opens."""
    read, watched = [], []

    def watch(event, arguments):  # a hook cannot be removed; it ends with the test process
        if event == "open" and watched and isinstance(arguments[0], (str, Path)):
            path = Path(arguments[0])
            if watched[0] in path.parents:
                read.append(path.relative_to(watched[0]).parts[0])

    sys.addaudithook(watch)

    def found(folder, call):
        read.clear()
        watched[:] = [folder]
        try:
            call()
        finally:
            watched.clear()
        return sorted(set(read))

    return found


@pytest.fixture
def five_pipelines(tmp_path):
    """Five pipelines, one of them broken, two of them after a table."""
    for name in ("first", "second", "third"):
        (tmp_path / name).mkdir()
        text = SPEC.replace("predictions.cards", f"predictions.{name}")
        (tmp_path / name / "pipeline.yaml").write_text(text)
    for name in ("after", "broken"):
        (tmp_path / name).mkdir()
        text = SPEC.replace('{cron: "0 3 * * *", timezone: Europe/Amsterdam}', "{after: features.loads}")
        (tmp_path / name / "pipeline.yaml").write_text(text.replace("predictions.cards", f"predictions.{name}"))
    (tmp_path / "broken" / "pipeline.yaml").write_text("owner: 2026-13-45\n")
    return tmp_path


@pytest.mark.parametrize(
    ("wanted", "dags", "read"),
    [
        ("score_second", ["score_second"], ["second"]),
        ("score_broken", ["score_broken"], ["broken"]),
        ("score_after", ["score_after"], ["after"]),
        ("score_gone", [], []),
        ("score_../first", [], []),
        ("roll_back", [], []),
        ("events_without_partition", ["events_without_partition"], ["after", "broken", "first", "second", "third"]),
    ],
)
def test_a_tasks_process_reads_its_own_pipeline_alone(wanted, dags, read, five_pipelines, files_read, monkeypatch):
    monkeypatch.setenv(_AIRFLOW_PARSING_CONTEXT_DAG_ID, wanted)
    made = []
    opened = files_read(five_pipelines, lambda: made.extend(dag.dag_id for dag in iter_dags(five_pipelines)))
    assert made == dags
    assert opened == read


def test_the_dag_processor_reads_all_of_them_once(five_pipelines, files_read):
    made = []
    opened = files_read(five_pipelines, lambda: made.extend(dag.dag_id for dag in iter_dags(five_pipelines)))
    assert opened == ["after", "broken", "first", "second", "third"]
    assert made == [*(f"score_{name}" for name in opened), "events_without_partition"]


def test_tasks_carry_no_copies_of_the_form():
    """Each would be checked against its schemas again and again; a run is given the DAG's params all the same."""
    from airflow.sdk.definitions.param import process_params

    dag = make_dag(parse_spec("cards", SPEC))
    assert all(not task.params for task in dag.tasks)
    given = {"dry_run": True, "model": "credit_default@7"}
    seen = process_params(dag, dag.get_task("plan"), given, suppress_exception=False)
    assert (seen["dry_run"], seen["model"], seen["take_over"]) == (True, "credit_default@7", False)
    with pytest.raises(ParamValidationError):
        process_params(dag, dag.get_task("plan"), {"dry_run": "perhaps"}, suppress_exception=False)
    other = make_dag(parse_spec("loans", SPEC))  # params keep what a run was given
    assert process_params(other, other.get_task("plan"), {}, suppress_exception=False)["model"] is None


def test_the_form_is_sound_and_the_server_sees_all_of_it():
    """DAGs share it and do not check it one by one."""
    from airflow.sdk.definitions.param import ParamsDict
    from airflow.serialization.serialized_objects import DagSerialization

    assert ParamsDict(copy.deepcopy(PARAMS)).validate()["dry_run"] is False
    kept = DagSerialization.from_dict(DagSerialization.to_dict(make_dag(parse_spec("cards", SPEC))))
    assert list(kept.params) == list(PARAMS)
    assert kept.params.get_param("partition").schema["format"] == "date"


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (GateRefusedError("x"), "fail"),
        (ConfigurationError("x"), "fail"),
        (NotPublishedError("x"), "fail"),
        (TransientError("x"), "retry"),
        (WarehouseError("x", "y"), "retry"),
        (RuntimeError("x"), "default"),
    ],
)
def test_retry_policy_tells_transient_from_deterministic(error, action):
    assert RETRIES.evaluate(error, try_number=1, max_tries=3).action.value == action


@pytest.mark.parametrize(
    ("key", "given", "expected"),
    [
        ("2026-11-19", None, "2026-11-19"),
        (None, "2026-11-19", "2026-11-19"),
        ("2026-11-19", "2026-11-19", "2026-11-19"),
    ],
)
def test_scoring_date(key, given, expected):
    assert scoring_date(key, given, "score_x", "manual").isoformat() == expected


@pytest.mark.parametrize(
    ("key", "given", "message"),
    [
        (None, None, "score_x: the run manual has no partition"),
        ("2026-11-19", "2026-11-18", "has the partition key 2026-11-19 and the scoring date 2026-11-18"),
    ],
)
def test_scoring_date_refuses(key, given, message):
    with pytest.raises(PartitionError, match=message):
        scoring_date(key, given, "score_x", "manual")
