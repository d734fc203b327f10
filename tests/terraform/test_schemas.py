"""Terraform plans the datasets, tables and rules that nightscore itself would create and knows."""

import importlib.util
import json
from typing import Any

import pytest

from nightscore.settings import Settings
from nightscore.spec import Spec
from nightscore.specs import iter_specs
from terraform.conftest import ROOT
from terraform.plan import Plan, Resource

_spec = importlib.util.spec_from_file_location("terraform_tables", ROOT / "terraform/tables.py")
assert _spec
assert _spec.loader
tables = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tables)

FILES = sorted((ROOT / "terraform/pipelines").glob("*.json"))
SPECS = [spec for spec in iter_specs(ROOT / "dags/pipelines") if isinstance(spec, Spec)]
OPERATIONS = ("checks", "evidence", "fences", "publications", "quarantine", "runs")


def planned(item: Resource) -> dict[str, Any]:
    """Return a planned table in the words of `tables.wanted`."""
    values = item.values
    return {
        "dataset": values["dataset_id"],
        "name": values["table_id"],
        "description": values["description"],
        "partition": values["time_partitioning"][0]["field"],
        "clustering": values["clustering"],
        "schema": json.loads(values["schema"]),
    }


def test_operations_tables_are_those_that_nightscore_creates(plan: Plan):
    found = {
        t["name"]: t
        for t in map(planned, plan.resources("google_bigquery_table"))
        if t["dataset"] == "nightscore_operations"
    }

    assert set(found) == set(OPERATIONS)
    assert found == {name: tables.operations_table(name) for name in OPERATIONS}


def test_all_schemas_are_tables():
    others = {"events", "lifecycle", "permissions"}

    assert {path.stem for path in (ROOT / "include/nightscore/schemas").glob("*.json")} == {*OPERATIONS, *others}


def test_predictions_tables_are_those_that_nightscore_creates(plan: Plan):
    found = {
        t.pop("name"): t for t in map(planned, plan.resources("google_bigquery_table")) if t["dataset"] == "predictions"
    }
    wanted: dict[str, Any] = {}
    for path in FILES:
        known = json.loads(path.read_text())
        wanted |= tables.content(path.stem, known["task"], known["keys"])["tables"]

    assert len(wanted) >= 2
    assert found == wanted


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_files_are_as_they_would_be_written(path):
    known = json.loads(path.read_text())

    assert known == tables.content(path.stem, known["task"], known["keys"]), "Run `python terraform/tables.py`."
    assert {table["dataset"] for table in known["tables"].values()} == {"predictions"}


def test_every_pipeline_has_a_file():
    assert [spec.name for spec in SPECS] == [path.stem for path in FILES]
    assert SPECS


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_tables_of_every_task_can_be_written(task: str):
    [spec] = SPECS

    found = tables.predictions_tables(spec, task, {"account_id": "INT64", "product": "STRING"})

    assert list(found) == ["credit_default", "credit_default_shadow"]
    assert [column["name"] for column in found["credit_default"]["schema"]][:3] == [
        "account_id",
        "product",
        "snapshot_date",
    ]
    assert all("project" not in table for table in found.values())


def test_a_column_that_differs_is_noticed(plans: dict[str, Plan]):
    [runs] = [item for item in plans["prod"].resources("google_bigquery_table") if item.values["table_id"] == "runs"]
    schema = json.loads(runs.values["schema"])
    schema[0]["type"] = "INT64"

    assert planned(runs) == tables.operations_table("runs")
    assert planned(
        Resource(runs.address, runs.type, runs.values | {"schema": json.dumps(schema)})
    ) != tables.operations_table("runs")


def test_datasets_are_those_of_the_settings(plan: Plan):
    default = Settings(project="project", bucket="bucket")
    found = {item.values["dataset_id"]: item.values for item in plan.resources("google_bigquery_dataset")}

    assert {default.staging_dataset, default.operations_dataset, "predictions"} <= set(found)
    assert all(values["location"] == plan.outputs["settings"]["NIGHTSCORE_LOCATION"] for values in found.values())


def test_staging_lives_as_long_as_runs_are_kept(plan: Plan):
    [staging] = [
        it.values for it in plan.resources("google_bigquery_dataset") if it.values["dataset_id"] == "nightscore_staging"
    ]
    days = staging["default_table_expiration_ms"] / 86_400_000

    assert days >= max(spec.keep.days for spec in SPECS)


def test_the_bucket_has_the_rules_that_nightscore_writes_for(plan: Plan):
    rules = json.loads((ROOT / "include/nightscore/schemas/lifecycle.json").read_text())["rule"]
    words = {
        "age": "age",
        "daysSinceCustomTime": "days_since_custom_time",
        "daysSinceNoncurrentTime": "days_since_noncurrent_time",
        "matchesPrefix": "matches_prefix",
        "matchesSuffix": "matches_suffix",
    }
    [bucket] = [it.values for it in plan.resources("google_storage_bucket") if it.address.startswith("module.bucket.")]
    found = [
        {
            "action": {"type": rule["action"][0]["type"]},
            "condition": {
                theirs: rule["condition"][0][ours] for theirs, ours in words.items() if rule["condition"][0].get(ours)
            },
        }
        for rule in bucket["lifecycle_rule"]
    ]

    assert found == rules
    assert {key for rule in rules for key in rule["condition"]} <= set(words)
