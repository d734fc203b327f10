"""`nightscore run`, `runs` and `pipelines`: output, JSON, exit codes."""

import datetime as dt
import json
import logging

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.linear_model import LogisticRegression

DAY = "2026-11-19"


@pytest.fixture
def cards(bench, nightscore, monkeypatch):
    """A pipeline of 400 accounts, in a folder of specs that the command reads."""
    frame = pd.DataFrame({"balance": np.linspace(0, 1, 400)})
    table = pa.table({"id": range(400), "balance": frame.balance.to_numpy()})
    table = table.append_column("snapshot_date", pa.array([dt.date(2026, 11, 19)] * 400, pa.date32()))
    bench.write("features", table)
    bench.register(LogisticRegression().fit(frame, frame.balance > 0.5), table.select(["balance"]))
    folder = bench.folder / "pipelines"
    monkeypatch.setenv("NIGHTSCORE_PIPELINES_DIR", str(folder))

    def add(text, name=bench.name):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "pipeline.yaml").write_text(text)

    bench.add_pipeline = add
    add(bench.spec_text())
    return bench


def test_a_run_prints_its_stages_and_what_was_published(cards, nightscore):
    done = nightscore("run", cards.name, "--partition", DAY)
    assert done.returncode == 0
    stages = [line.split("  ")[0].strip() for line in done.stderr.splitlines()]
    assert stages == ["plan", "freeze", "feature gate", "score", "prediction gate", "publish", "record"]
    assert "400 frozen, 0 rejected, 400 scored, 400 published, 0 replaced" in done.stdout
    assert f"{cards.name}/1 ({cards.name}@champion)" in done.stdout
    assert "score distribution" in done.stdout


def test_json_is_one_object_and_nothing_else(cards, nightscore):
    done = nightscore("run", cards.name, "--partition", DAY, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["status"] == "published"


def test_a_log_for_machines_is_json_on_standard_error_alone(cards, nightscore, monkeypatch):
    """Events among it, and the error that ends the command; `make` and cron keep it, and people read the other."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    check = {"expect": "expect_table_row_count_to_be_between", "min_value": 1000}
    cards.add_pipeline(cards.spec_text(checks={"features": [check]}))
    level = logging.getLogger("nightscore").level
    done = nightscore("run", cards.name, "--partition", DAY, NIGHTSCORE_LOG_FORMAT="json")
    logging.getLogger("nightscore").setLevel(level)
    assert (done.returncode, done.stdout) == (1, "")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines if "event" in line] == ["run_planned", "gate_judged", "run_ended"]
    assert lines[-1]["level"] == "error"
    assert lines[-1]["message"].startswith("GateStoppedError: ")
    [run_id] = {line["run_id"] for line in lines if "run_id" in line}
    assert run_id.startswith(DAY)
    assert {line["pipeline"] for line in lines if "pipeline" in line} == {cards.name}


def test_a_log_is_text_or_json(cards, nightscore):
    done = nightscore("run", cards.name, "--partition", DAY, NIGHTSCORE_LOG_FORMAT="xml")
    assert done.returncode == 2
    assert "The environment variable NIGHTSCORE_LOG_FORMAT is 'xml'. It is text or json." in done.stderr


def test_a_refusal_is_exit_code_1(cards, nightscore):
    check = {"expect": "expect_table_row_count_to_be_between", "min_value": 1000}
    cards.add_pipeline(cards.spec_text(checks={"features": [check]}))
    done = nightscore("run", cards.name, "--partition", DAY, "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert (found["status"], found["error"], found["exit_code"]) == ("refused", "GateStoppedError", 1)
    assert found["gate"]["stopped_by"] == ["expect_table_row_count_to_be_between: wanted min_value 1000, seen 400"]
    assert "the feature gate refused 400 rows" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--partition", "19/11/2026"], "'19/11/2026' is not a scoring date"),
        (["--partition", DAY, "--model", "a b"], "'a b' is not a model"),
        (["--partition", DAY, "--model", "nobody@champion"], "There is no model 'nobody'"),
        (["--partition", DAY, "--modle", "x"], "No such option: --modle"),
        ([], "Missing option '--partition'"),
    ],
)
def test_usage_and_configuration_are_exit_code_2(cards, nightscore, arguments, message):
    done = nightscore("run", cards.name, *arguments, "--json")
    assert done.returncode == 2
    assert message in done.stderr
    found = json.loads(done.stdout)
    assert (found["status"], found["exit_code"]) == ("error", 2)
    assert message in found["message"]


def test_an_empty_partition_is_exit_code_1(cards, nightscore):
    done = nightscore("run", cards.name, "--partition", "2026-11-20")
    assert done.returncode == 1
    assert "has no row with snapshot_date = 2026-11-20" in done.stderr


def test_an_unreachable_server_is_exit_code_3(cards, nightscore, monkeypatch):
    from google.cloud.storage import retry

    # The client's own patience is two minutes; the way to the exit code is the same.
    monkeypatch.setattr(retry.DEFAULT_RETRY, "_timeout", 1.0)
    done = nightscore("run", cards.name, "--partition", DAY, "--json", STORAGE_EMULATOR_HOST="http://127.0.0.1:9")
    assert done.returncode == 3
    assert json.loads(done.stdout)["error"] == "ObjectStoreError"


def test_runs_are_listed_with_the_live_one_and_shown_with_their_checks(cards, nightscore):
    first = json.loads(nightscore("run", cards.name, "--partition", DAY, "--json").stdout)["run_id"]
    second = json.loads(nightscore("run", cards.name, "--partition", DAY, "--json").stdout)["run_id"]
    listed = nightscore("runs", "list", cards.name)
    assert listed.returncode == 0
    lines = {line.split()[1]: line.split()[2:4] for line in listed.stdout.splitlines() if cards.name in line}
    assert lines[second] == ["published", "live"]
    assert lines[first][0] == "published"
    assert lines[first][1] != "live"

    shown = nightscore("runs", "show", second)
    assert shown.returncode == 0
    assert "feature gate: pass" in shown.stdout
    assert "expect_column_values_to_be_unique" in shown.stdout

    records = json.loads(nightscore("runs", "show", second, "--json").stdout)
    assert records["run"]["run_id"] == second
    assert [receipt["rows"] for receipt in records["shards"]] == [receipt["rows"] for receipt in records["shards"]]
    assert sum(receipt["rows"] for receipt in records["shards"]) == 400

    wrong = second[:-1] + ("0" if second[-1] != "0" else "1")
    missing = nightscore("runs", "show", wrong)
    assert missing.returncode == 2
    assert f"There is no run {wrong!r}. Did you mean `{second}`" in missing.stderr


def test_pipelines_are_listed_broken_ones_too(cards, nightscore):
    cards.add_pipeline("features: {}", name="broken")
    listed = nightscore("pipelines", "list", "--json")
    found = {item["name"]: item for item in json.loads(listed.stdout)}
    assert found[cards.name]["predictions"] == f"{cards.name}.predictions"
    assert "broken: features.partition: is required." in found["broken"]["error"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": {"table": "{name}.feature"}}, "Did you mean `features`?"),
        ({"features": {"keys": ["idd"]}}, "features.keys: {name}.features has no column 'idd'. Did you mean `id`?"),
        (
            {"features": {"reject": {"odd": "balence > 1"}}},
            "features.reject.odd: BigQuery does not take the condition",
        ),
        ({"features": {"partition": "balance"}}, "the column 'balance' of {name}.features is FLOAT64"),
        ({"model": {"name": "{name}", "alias": "champoin"}}, "has no alias 'champoin'. Did you mean `champion`?"),
        (
            {"checks": {"features": [{"expect": "expect_column_values_to_be_nul", "column": "id"}]}},
            (
                "checks.features[0].expect: Great Expectations has no 'expect_column_values_to_be_nul'. Did you mean "
                "`expect_column_values_to_be_null`?"
            ),
        ),
        (
            {"checks": {"predictions": [{"expect": "expect_column_mean_to_be_between", "colum": "score"}]}},
            ("checks.predictions[0].expect_column_mean_to_be_between.colum: unknown argument. Did you mean `column`?"),
        ),
        (
            {"checks": {"predictions": [{"expect": "expect_column_mean_to_be_between", "column": "scor"}]}},
            "expect_column_mean_to_be_between: predictions have no column 'scor'. Did you mean `score`?",
        ),
        (
            {"checks": {"features": {"suite": "suite.json"}}},
            "checks.features[0].expect_column_to_exist.colum: unknown argument. Did you mean `column`?",
        ),
    ],
)
def test_check_names_what_does_not_fit(cards, nightscore, changes, message):
    filled = json.loads(json.dumps(changes).replace("{name}", cards.name))
    cards.add_pipeline(cards.spec_text(**filled))
    suite = {"name": "s", "expectations": [{"type": "expect_column_to_exist", "kwargs": {"colum": "id"}}]}
    (cards.folder / "pipelines" / cards.name / "suite.json").write_text(json.dumps(suite))
    done = nightscore("pipelines", "check", cards.name)
    assert done.returncode == 2
    assert message.replace("{name}", cards.name) in done.stderr
    assert f"✗ {cards.name}" in done.stdout


def test_check_is_silent_about_a_sound_pipeline(cards, nightscore):
    done = nightscore("pipelines", "check")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, f"✓ {cards.name}", "")


def test_check_warns_of_a_challenger_and_lets_the_pipeline_pass(cards, nightscore):
    cards.add_pipeline(cards.spec_text(model={"name": cards.name, "challengers": ["challengr"]}))
    done = nightscore("pipelines", "check")
    assert (done.returncode, done.stdout.strip()) == (0, f"✓ {cards.name}")
    assert f"model.challengers: {cards.name}@challengr would be left out. The model {cards.name} has no" in done.stderr
    assert nightscore("pipelines", "check", "--offline").stderr == ""


def test_check_compares_an_existing_predictions_table(cards, nightscore):
    cards.write("predictions", pa.table({"id": [1], "score": ["high"]}), partition=None)
    done = nightscore("pipelines", "check")
    assert done.returncode == 2
    assert "the column score is STRING and not FLOAT64." in done.stderr
    assert "it is not partitioned by day on snapshot_date." in done.stderr


def test_the_schema_is_json(nightscore):
    done = nightscore("pipelines", "schema")
    assert json.loads(done.stdout)["required"] == ["features", "model", "predictions"]


def test_check_refuses_two_pipelines_that_share_a_table(cards, nightscore):
    cards.add_pipeline(cards.spec_text(), name="twin")
    done = nightscore("pipelines", "check", "twin", "--offline")
    assert done.returncode == 2
    assert f"twin: predictions.table: {cards.name} publishes into {cards.name}.predictions as well." in done.stderr
