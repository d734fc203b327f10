"""Terraform's outputs and nightscore's settings are the same list."""

import dataclasses
import re

from nightscore.settings import Settings, read_settings
from terraform.conftest import ROOT
from terraform.plan import Plan

# Settings that Terraform gives no value, and why.
NOT_GIVEN = {
    "NIGHTSCORE_LEASE_SECONDS": "has a default; the variable `settings` sets it",
    "NIGHTSCORE_PRICE_PER_TIB": "what the firm pays; the variable `settings` sets it",
    "NIGHTSCORE_CURRENCY": "what the firm pays in; the variable `settings` sets it",
    "NIGHTSCORE_TRUSTED_SIGNERS": "a folder that comes with the DAGs or the image; the variable `settings` sets it",
    "NIGHTSCORE_VERTEX_LOCATION": "for models of Vertex AI; the variable `settings` sets it",
    "NIGHTSCORE_MLFLOW_TRACKING_URI": "may hold a password, and is then a secret; else the variable `settings` sets it",
    "NIGHTSCORE_PIPELINES_DIR": "follows from where the DAGs are",
    "NIGHTSCORE_SERVICE_ACCOUNT": "where the process is not the scorer itself: managed Airflow",
    "NIGHTSCORE_HOME": "follows from where the DAGs are: managed Airflow, `orchestrator_settings`",
    "NIGHTSCORE_SIGNING_PASSWORD": "a secret, of whoever signs models",
    "NIGHTSCORE_LOG_FORMAT": "a matter of taste of whoever reads logs: docs/observability.md",
}


def known() -> set[str]:
    """Return every variable that nightscore reads, but those of local servers: its fields, and what the code names."""
    fields = {field.name for field in dataclasses.fields(Settings) if not field.name.endswith("_host")}
    files = [path.read_text() for path in (ROOT / "include/nightscore").glob("**/*.py")]
    named = {name for text in files for name in re.findall(r"\bNIGHTSCORE_[A-Z_]+[A-Z]\b", text)}
    return {f"NIGHTSCORE_{name.upper()}" for name in fields} | named


def free() -> set[str]:
    """Return the settings that the variable `settings` takes."""
    text = (ROOT / "terraform/variables.tf").read_text()
    block = text[text.index('variable "settings"') :]
    return set(re.findall(r'"(NIGHTSCORE_[A-Z_]+)"', block[: block.index("\n}\n")]))


def test_every_setting_is_given_or_says_why_not(plan: Plan):
    own = set(plan.outputs["settings"]) - set(plan.variables.get("settings", {}))

    assert own | set(NOT_GIVEN) == known()
    assert not own & set(NOT_GIVEN)


def test_managed_airflow_is_told_more(plan: Plan):
    further = set(plan.outputs["orchestrator_settings"]) - set(plan.outputs["settings"])

    assert further == {"NIGHTSCORE_SERVICE_ACCOUNT", "NIGHTSCORE_HOME"}
    [airflow] = plan.resources("google_composer_environment")
    assert airflow.values["config"][0]["software_config"][0]["env_variables"] == plan.outputs["orchestrator_settings"]


def test_what_is_set_by_hand_is_what_says_so():
    assert free() == {name for name, why in NOT_GIVEN.items() if "the variable `settings`" in why}


def test_nightscore_accepts_what_it_is_given(plan: Plan):
    for given in (plan.outputs["settings"], plan.outputs["orchestrator_settings"]):
        found = read_settings(given)

        assert found.project == plan.variables["project"]
        assert found.bucket in [item.values["name"] for item in plan.resources("google_storage_bucket")]
        assert found.events_log == "nightscore"
    assert found.service_account is not None
    assert found.service_account.startswith(f"{plan.name}-scorer@")


def test_outputs_are_what_workflows_read(plan: Plan):
    given = set(plan.content["planned_values"]["outputs"])

    assert {
        "settings", "scorer", "workload_identity_provider", "deployer", "planner", "registrar", "image_repository",
        "python_repository", "dags_bucket", "airflow_uri", "composer_environment",
    } <= given  # fmt: skip
    assert not any(it.get("sensitive") for it in plan.content["planned_values"]["outputs"].values())
