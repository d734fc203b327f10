"""The policies over the plans of all environments, and that each of them can fail."""

from collections.abc import Callable
from typing import Any

import pytest

from terraform.plan import Plan
from terraform.policies import POLICIES, Policy

Change = Callable[[Plan], None]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.__name__)
def test_holds(plan: Plan, policy: Policy):
    assert list(policy(plan)) == []


def test_a_plan_is_of_everything(plan: Plan):
    kinds = {item.type for item in plan.resources()}

    assert len(plan.resources()) > 100
    assert {"google_composer_environment", "google_bigquery_table", "google_monitoring_alert_policy"} <= kinds
    assert (
        plan.identity(next(g.member for g in plan.grants if g.on == "predictions" and "Editor" in g.role)) == "scorer"
    )


def binding(on: str, role: str, member: str) -> Change:
    """Plan another member of a role."""

    def change(plan: Plan) -> None:
        found = [g.address for g in plan.grants if g.on == on]
        values = plan.one(found[0]).values
        values["role"], values["members"] = role, [member]
        values.pop("member", None)

    return change


def project(role: str, member: str) -> Change:
    return lambda plan: plan.add("google_project_iam_member", role=role, member=member)


def sets(kind: str, *path: Any, to: Any, within: str = "") -> Change:
    """Plan another value at a path of the first resource of a type."""

    def change(plan: Plan) -> None:
        values: Any = next(item.values for item in plan.resources(kind) if within in item.address)
        for step in path[:-1]:
            values = values[step]
        values[path[-1]] = to

    return change


def forgets_key(kind: str, *path: str) -> Change:
    """Configure a type without its key."""

    def change(plan: Plan) -> None:
        modules = [plan.content["configuration"]["root_module"]]
        modules += [call["module"] for call in modules[0]["module_calls"].values()]
        for item in (item for module in modules for item in module["resources"] if item["type"] == kind):
            inner = item["expressions"]
            for step in path[:-1]:
                inner = inner[step][0] if isinstance(inner[step], list) else inner[step]
            inner.pop(path[-1])

    return change


SCORER = "serviceAccount:nightscore-prod-scorer@example-scoring-prod.iam.gserviceaccount.com"
READER = SCORER.replace("-scorer@", "-reader@")

# What somebody could do to the configuration: the policy that must notice, what is done, and words of what it says.
BREACHES: list[tuple[str, Change, str]] = [
    (
        "only_allowed_roles",
        binding("predictions", "roles/bigquery.dataEditor", READER),
        "reader holds roles/bigquery.dataEditor",
    ),
    (
        "only_allowed_roles",
        project("roles/bigquery.dataViewer", SCORER),
        "scorer holds roles/bigquery.dataViewer on project",
    ),
    ("only_allowed_roles", binding("deployer", "roles/iam.serviceAccountTokenCreator", READER), "reader holds"),
    ("all_allowed_roles_are_used", lambda plan: plan.remove("google_project_iam_member"), "has no use for it"),
    ("members_are_known", project("roles/bigquery.dataViewer", "user:ada@example.com"), "nobody knows who it is"),
    (
        "members_are_known",
        binding("staging", "roles/bigquery.dataViewer", "group:collections@example.com"),
        "on staging",
    ),
    ("members_are_known", binding("key", "roles/cloudkms.cryptoKeyDecrypter", "group:a@example.com"), "on key"),
    (
        "members_are_known",
        binding(
            "deployer",
            "roles/iam.workloadIdentityUser",
            "principal://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/nightscore-prod-github/subject/repo:other/nightscore:environment:prod",
        ),
        "acts as deployer",
    ),
    ("nobody_public", binding("bucket", "roles/storage.objectViewer", "allUsers"), "allUsers holds"),
    (
        "nobody_public",
        binding("predictions", "roles/bigquery.dataViewer", "allAuthenticatedUsers"),
        "allAuthenticatedUsers holds",
    ),
    ("nobody_public", sets("google_bigquery_dataset", "access", to=[]), "every viewer of the project reads it"),
    (
        "nobody_public",
        sets("google_bigquery_dataset", "access", 0, "special_group", to="projectReaders"),
        "projectReaders",
    ),
    (
        "nobody_public",
        sets("google_storage_bucket", "public_access_prevention", to="inherited"),
        "could be made public",
    ),
    ("nobody_public", sets("google_storage_bucket", "uniform_bucket_level_access", to=False), "could be made public"),
    ("no_basic_or_admin_roles", project("roles/editor", SCORER), "holds roles/editor"),
    (
        "no_basic_or_admin_roles",
        project("roles/storage.admin", "group:risk-ml@example.com"),
        "holds roles/storage.admin",
    ),
    ("no_basic_or_admin_roles", project("roles/bigquery.dataOwner", SCORER), "holds roles/bigquery.dataOwner"),
    (
        "no_keys_of_service_accounts",
        lambda plan: plan.add("google_service_account_key"),
        "google_service_account_key.added",
    ),
    ("no_keys_of_service_accounts", lambda plan: plan.add("google_secret_manager_secret_version"), "in the state"),
    (
        "ci_cannot_grant_delete_or_read",
        sets(
            "google_project_iam_custom_role",
            "permissions",
            0,
            to="resourcemanager.projects.setIamPolicy",
            within="provision",
        ),
        "grants",
    ),
    (
        "ci_cannot_grant_delete_or_read",
        sets("google_project_iam_custom_role", "permissions", 0, to="bigquery.tables.getData"),
        "reads data",
    ),
    (
        "ci_cannot_grant_delete_or_read",
        sets("google_project_iam_custom_role", "permissions", 0, to="bigquery.tables.delete", within="provision"),
        "deletes data",
    ),
    (
        "ci_cannot_grant_delete_or_read",
        sets("google_project_iam_custom_role", "permissions", 0, to="bigquery.tables.update", within="plan"),
        "plan changes something",
    ),
    (
        "ci_cannot_grant_delete_or_read",
        sets("google_project_iam_custom_role", "permissions", 0, to="storage.buckets.update", within="provision"),
        "nobody decided",
    ),
    (
        "versions_are_kept",
        sets("google_storage_bucket_iam_binding", "condition", to=[], within="scorer replaces"),
        "may delete versions",
    ),
    ("versions_are_kept", binding("bucket", "roles/storage.legacyBucketWriter", SCORER), "may delete versions"),
    (
        "versions_are_kept",
        sets("google_storage_bucket", "versioning", 0, "enabled", to=False),
        "keeps no noncurrent versions",
    ),
    ("versions_are_kept", sets("google_storage_bucket", "enable_object_retention", to=False), "can be locked"),
    (
        "versions_are_kept",
        sets("google_storage_bucket", "soft_delete_policy", 0, "retention_duration_seconds", to=0),
        "cannot be restored",
    ),
    (
        "versions_are_kept",
        sets("google_storage_bucket", "lifecycle_rule", 0, "condition", 0, "matches_prefix", to=["registry/models/"]),
        "a rule deletes below",
    ),
    (
        "versions_are_kept",
        sets("google_storage_bucket", "lifecycle_rule", 0, "condition", 0, "matches_prefix", to=[]),
        "a rule deletes below ''",
    ),
    ("everything_has_a_key_of_ours", sets("google_kms_crypto_key", "rotation_period", to=None), "not rotated"),
    (
        "everything_has_a_key_of_ours",
        lambda plan: plan.remove("google_composer_environment"),
        "no google_composer_environment",
    ),
    (
        "everything_has_a_key_of_ours",
        forgets_key("google_artifact_registry_repository", "kms_key_name"),
        "module.images",
    ),
    (
        "everything_has_a_key_of_ours",
        forgets_key("google_bigquery_dataset", "default_encryption_configuration", "kms_key_name"),
        "predictions",
    ),
    (
        "everything_has_a_key_of_ours",
        forgets_key("google_bigquery_table", "encryption_configuration", "kms_key_name"),
        "runs",
    ),
    (
        "everything_has_a_key_of_ours",
        forgets_key("google_composer_environment", "config", "encryption_config", "kms_key_name"),
        "composer",
    ),
    (
        "everything_has_a_key_of_ours",
        forgets_key("google_logging_project_bucket_config", "cmek_settings", "kms_key_name"),
        "logging",
    ),
    (
        "everything_has_a_key_of_ours",
        forgets_key(
            "google_secret_manager_secret",
            "replication",
            "user_managed",
            "replicas",
            "customer_managed_encryption",
            "kms_key_name",
        ),
        "secret",
    ),
    (
        "everything_has_a_key_of_ours",
        forgets_key("google_storage_bucket", "encryption", "default_kms_key_name"),
        "bucket",
    ),
    (
        "airflow_is_private",
        sets("google_composer_environment", "config", 0, "enable_private_environment", to=False),
        "way to the internet",
    ),
    (
        "airflow_is_private",
        sets(
            "google_composer_environment",
            "config",
            0,
            "web_server_network_access_control",
            0,
            "allowed_ip_range",
            0,
            "value",
            to="0.0.0.0/0",
        ),
        "open to 0.0.0.0/0",
    ),
    (
        "network_has_no_way_out",
        sets("google_compute_network", "delete_default_routes_on_create", to=False),
        "routes and subnets",
    ),
    ("network_has_no_way_out", sets("google_compute_firewall", "deny", to=[], within="deny_egress"), "nothing forbids"),
    (
        "network_has_no_way_out",
        sets("google_compute_firewall", "destination_ranges", to=["0.0.0.0/0"], within="allow_google"),
        "lets packets out",
    ),
    ("network_has_no_way_out", sets("google_compute_route", "dest_range", to="0.0.0.0/0"), "leads to 0.0.0.0/0"),
    ("network_has_no_way_out", lambda plan: plan.add("google_compute_router_nat"), "leads to the internet"),
    (
        "only_our_jobs_get_in",
        sets(
            "google_iam_workload_identity_pool_provider",
            "attribute_condition",
            to="assertion.repository_owner == 'example'",
        ),
        "any repository's",
    ),
    (
        "only_our_jobs_get_in",
        sets(
            "google_iam_workload_identity_pool_provider",
            "attribute_condition",
            to="assertion.sub == 'repo:example/nightscore:environment:prod'",
        ),
        "any branch's",
    ),
    (
        "only_our_jobs_get_in",
        sets(
            "google_iam_workload_identity_pool_provider",
            "attribute_condition",
            to="assertion.sub == 'repo:example/nightscore:pull_request' || true",
        ),
        "any repository's",
    ),
    (
        "only_our_jobs_get_in",
        sets(
            "google_iam_workload_identity_pool_provider",
            "attribute_condition",
            to="assertion.sub == 'repo:example/nightscore:pull_request' && assertion.repository_id == '123456789'",
        ),
        "takes the repository's name over",
    ),
    (
        "only_our_jobs_get_in",
        binding(
            "deployer",
            "roles/iam.workloadIdentityUser",
            "principalSet://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/nightscore-prod-github/*",
        ),
        "all jobs of a pool",
    ),
    ("reads_are_logged", lambda plan: plan.remove("google_project_iam_audit_config"), "DATA_READ is not logged"),
    (
        "reads_are_logged",
        sets("google_project_iam_audit_config", "audit_log_config", 0, "exempted_members", to=[SCORER]),
        "is exempt",
    ),
    (
        "reads_are_logged",
        sets("google_logging_project_sink", "filter", to="severity>=ERROR"),
        "audit logs are not kept",
    ),
    ("production_cannot_be_deleted", sets("google_bigquery_dataset", "deletion_policy", to="DELETE"), "may be deleted"),
    (
        "production_cannot_be_deleted",
        sets("google_bigquery_dataset", "delete_contents_on_destroy", to=True),
        "delete_contents_on_destroy",
    ),
    ("production_cannot_be_deleted", sets("google_storage_bucket", "force_destroy", to=True), "force_destroy"),
    ("production_cannot_be_deleted", sets("google_bigquery_table", "deletion_protection", to=False), "may be deleted"),
    ("production_cannot_be_deleted", lambda plan: plan.remove("google_resource_manager_lien"), "no lien"),
    (
        "production_keeps_evidence",
        sets("google_logging_project_bucket_config", "retention_days", to=30),
        "less than a year",
    ),
    (
        "production_keeps_evidence",
        sets("google_kms_crypto_key", "version_template", 0, "protection_level", to="SOFTWARE"),
        "hardware",
    ),
    (
        "staging_expires",
        sets("google_bigquery_dataset", "default_table_expiration_ms", to=None, within="staging"),
        "expires after None",
    ),
    (
        "staging_expires",
        sets("google_bigquery_dataset", "default_table_expiration_ms", to=3600000, within="predictions"),
        "expires after 3600000",
    ),
]


@pytest.mark.parametrize(("name", "change", "words"), BREACHES, ids=[f"{b[0]}-{i}" for i, b in enumerate(BREACHES)])
def test_notices(plans: dict[str, Plan], name: str, change: Change, words: str):
    [policy] = [policy for policy in POLICIES if policy.__name__ == name]

    found = list(policy(plans["prod"].changed(change)))

    assert any(words in sentence for sentence in found), found


def test_every_policy_can_fail():
    assert {policy.__name__ for policy in POLICIES} == {name for name, _, _ in BREACHES}
