"""The scorer's roles hold every permission that nightscore's calls need, where they need it."""

import json
from pathlib import Path

import pytest

from terraform.conftest import ROOT
from terraform.plan import Plan

ROLES = json.loads((Path(__file__).parent / "roles.json").read_text())
NEEDED = json.loads((ROOT / "include/nightscore/schemas/permissions.json").read_text())
PLACES = {
    "project": "project",
    "features_dataset": "features",
    "predictions_dataset": "predictions",
    "staging_dataset": "staging",
    "operations_dataset": "operations",
    "bucket": "bucket",
}


def lacking(plan: Plan, where: str) -> set[str]:
    """Return the permissions that the scorer needs at a place and has not."""
    roles = {g.role for g in plan.grants if plan.identity(g.member) == "scorer" and g.on == PLACES[where]}
    if where == "features_dataset":
        roles |= {asked["role"] for asked in plan.outputs["requests"]}
    return set(NEEDED[where]) - {permission for role in roles for permission in ROLES[role]}


@pytest.mark.parametrize("where", NEEDED)
def test_the_scorer_may_do_what_it_does(plan: Plan, where: str):
    assert len(NEEDED[where]) > 0
    assert lacking(plan, where) == set()


@pytest.mark.parametrize("where", NEEDED)
def test_a_grant_that_is_gone_is_noticed(plans: dict[str, Plan], where: str):
    def take_away(plan: Plan) -> None:
        for grant in plan.grants:
            if grant.on == PLACES[where]:
                plan.one(grant.address).values.update(members=["group:nobody@example.com"], member=None)

    assert lacking(plans["dev"].changed(take_away), where) == set(NEEDED[where])


def test_what_others_must_grant_is_asked_for_exactly(plan: Plan):
    asked = {item["dataset"]: item for item in plan.outputs["requests"]}

    assert set(asked) == {
        f"{it['project']}.{name}" for name, it in plan.variables["features"].items() if it.get("project")
    }
    assert all(plan.identity(item["member"]) == "scorer" for item in asked.values())


def test_every_feature_dataset_is_readable(plan: Plan):
    granted = {
        item.values["dataset_id"]
        for item in plan.resources("google_bigquery_dataset_iam_member", "google_bigquery_dataset_iam_binding")
        if item.values["role"] == "roles/bigquery.dataViewer"
        and any(plan.identity(m) == "scorer" for m in item.values.get("members") or [item.values.get("member")])
    }

    asked = {item["dataset"].split(".")[1] for item in plan.outputs["requests"]}
    assert granted | asked == set(plan.variables["features"])
