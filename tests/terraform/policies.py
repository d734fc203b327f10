"""What must hold of every plan. A policy returns what is wrong, a sentence each; nothing when all is well.

They are written against the plan's JSON and not against the files, so that they hold whatever the files look like.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

from terraform.plan import Plan

Policy = Callable[[Plan], Iterator[str]]

# On what each identity may hold which role. The table of identities.tf, written down a second time by purpose: a grant
# that is new must be asked for twice.
ALLOWED = {
    "orchestrator": {
        "project": {"roles/composer.worker"},
        "dags": {"roles/storage.objectUser"},
        "python": {"roles/artifactregistry.reader"},
        "python_proxy": {"roles/artifactregistry.reader"},
        "packages": {"roles/artifactregistry.reader"},
        "scorer": {"roles/iam.serviceAccountTokenCreator"},
        "secret": {"roles/secretmanager.secretAccessor"},
        "orchestrator": {"roles/iam.serviceAccountUser"},
    },
    "scorer": {
        "project": {"roles/bigquery.jobUser", "roles/bigquery.readSessionUser", "roles/logging.logWriter"},
        "features": {"roles/bigquery.dataViewer"},
        "predictions": {"roles/bigquery.dataEditor"},
        "staging": {"roles/bigquery.dataEditor"},
        "operations": {"roles/bigquery.dataEditor"},
        "bucket": {
            "roles/storage.legacyBucketReader",
            "roles/storage.objectCreator",
            "roles/storage.objectUser",
            "roles/storage.objectViewer",
        },
        "secret": {"roles/secretmanager.secretAccessor"},
    },
    "reader": {
        "project": {"roles/bigquery.jobUser", "roles/bigquery.readSessionUser"},
        "predictions": {"roles/bigquery.dataViewer"},
    },
    "deployer": {
        "project": {"provision"},
        "dags": {"roles/storage.objectUser"},
        "images": {"roles/artifactregistry.writer"},
        "python": {"roles/artifactregistry.writer"},
        "orchestrator": {"roles/iam.serviceAccountUser"},
        "scorer": {"roles/iam.serviceAccountTokenCreator"},
    },
    "planner": {"project": {"plan"}, "dags": {"roles/storage.objectViewer"}},
    "registrar": {
        "bucket": {"roles/storage.objectCreator", "roles/storage.objectUser", "roles/storage.objectViewer"},
        "secret": {"roles/secretmanager.secretAccessor"},
    },
}

# What people may hold, by the groups that the variables name.
VERBS = ("create", "update", "delete")
PEOPLE = {
    "readers": {"predictions": {"roles/bigquery.dataViewer"}},
    "operators": {
        "project": {"roles/composer.user", "roles/logging.viewer", "roles/monitoring.viewer"},
        "operations": {"roles/bigquery.dataViewer"},
        "bucket": {"roles/storage.objectViewer"},
    },
    "responders": {"scorer": {"roles/iam.serviceAccountTokenCreator"}},
    "loaders": {"features": {"roles/bigquery.dataEditor"}},
    "image_readers": {"images": {"roles/artifactregistry.reader"}},
}

# Where each type says which key encrypts it.
KEYS = {
    "google_artifact_registry_repository": ("kms_key_name",),
    "google_bigquery_dataset": ("default_encryption_configuration", "kms_key_name"),
    "google_bigquery_table": ("encryption_configuration", "kms_key_name"),
    "google_composer_environment": ("config", "encryption_config", "kms_key_name"),
    "google_logging_project_bucket_config": ("cmek_settings", "kms_key_name"),
    "google_secret_manager_secret": (
        "replication",
        "user_managed",
        "replicas",
        "customer_managed_encryption",
        "kms_key_name",
    ),
    "google_storage_bucket": ("encryption", "default_kms_key_name"),
}

FORBIDDEN_ROLES = r"roles/(owner|editor|viewer|.*[aA]dmin|.*Owner|iam\.securityAdmin)"
CHANGES_GRANTS = r"(setIamPolicy|\.actAs|getAccessToken|signBlob|signJwt|iam\.roles\.(create|update|delete))"
READS_DATA = r"(getData|storage\.objects\.|secretmanager\.versions\.access|cryptoKeyVersions\.use)"
DELETES_DATA = (
    r"(bigquery\.(tables|datasets)|storage\.(buckets|objects)|cloudkms\..*|logging\.buckets|composer\.environments|"
    r"secretmanager\.secrets|iam\..*|artifactregistry\..*)\.(delete|destroy)"
)


def only_allowed_roles(plan: Plan) -> Iterator[str]:
    """Every identity holds the roles of the table above, and no others."""
    for grant in plan.grants:
        who = plan.identity(grant.member)
        role = _custom(plan, grant.role) or grant.role
        if who and role not in ALLOWED.get(who, {}).get(grant.on, set()):
            yield f"{who} holds {role} on {grant.on}"


def all_allowed_roles_are_used(plan: Plan) -> Iterator[str]:
    """The table above allows nothing that is not granted; but what only some environments have."""
    held = {(plan.identity(g.member), g.on, _custom(plan, g.role) or g.role) for g in plan.grants}
    for who, places in ALLOWED.items():
        for place, roles in places.items():
            if place not in ("features", "secret", "python_proxy"):
                yield from (
                    f"{who} is allowed {r} on {place}, and has no use for it"
                    for r in roles
                    if (who, place, r) not in held
                )


def _repository(github: Mapping[str, Any]) -> str:
    """Return what subjects of GitHub's tokens begin with."""
    if github.get("ids_in_subjects"):
        return f"repo:{github['owner']}@{github['owner_id']}/{github['name']}@{github['repository_id']}"
    return f"repo:{github['owner']}/{github['name']}"


def members_are_known(plan: Plan) -> Iterator[str]:
    """Whoever is no identity is a group of the variables, a job of the repository, a pod, or an agent of Google's."""
    variables, project = plan.variables, plan.variables["project"]
    people = {
        "readers": set(variables.get("readers", [])),
        "operators": set(variables.get("operators", [])),
        "responders": set(variables.get("responders", [])),
        "image_readers": set(variables.get("image_readers", [])),
        "loaders": set(chain.from_iterable(it.get("loaders", []) for it in variables["features"].values())),
    }
    github = variables["github"]
    kinds = f"environment:[a-z]+|pull_request|ref:refs/heads/{github.get('branch', 'main')}"
    pool = rf"principal://iam\.googleapis\.com/projects/\d+/locations/global/workloadIdentityPools/{plan.name}-github"
    jobs = rf"{pool}/subject/{_repository(github)}:({kinds})"
    agents = r"serviceAccount:(service-\d+@[a-z-]+|bq-\d+@bigquery-encryption)\.iam\.gserviceaccount\.com"
    logging = plan.data("data.google_logging_project_settings.this")["kms_service_account_id"]
    pods = rf"serviceAccount:{project}\.svc\.id\.goog\[[a-z0-9-]+/[a-z0-9-]+\]"
    for grant in plan.grants:
        if plan.identity(grant.member):
            continue
        groups = [group for group, members in people.items() if grant.member in members]
        if groups:
            if not any(grant.role in PEOPLE[group].get(grant.on, set()) for group in groups):
                yield f"{grant.member} holds {grant.role} on {grant.on}"
        elif grant.role == "roles/iam.workloadIdentityUser":
            if not re.fullmatch(jobs, grant.member) and not re.fullmatch(pods, grant.member):
                yield f"{grant.member} acts as {grant.on}"
        elif grant.on != "key" or not (
            re.fullmatch(agents, grant.member) or grant.member == f"serviceAccount:{logging}"
        ):
            yield f"{grant.member} holds {grant.role} on {grant.on}, and nobody knows who it is"


def nobody_public(plan: Plan) -> Iterator[str]:
    """Nothing is granted to everybody, and no bucket could be."""
    for grant in plan.grants:
        if re.search(r"allUsers|allAuthenticatedUsers|^domain:|^projectViewer|^projectEditor", grant.member):
            yield f"{grant.member} holds {grant.role} on {grant.on}"
    for item in plan.resources("google_bigquery_dataset"):
        for access in item.values["access"]:
            if access.get("special_group") != "projectOwners" or access.get("role") != "OWNER":
                yield f"{item.address} begins with access for {access}"
        if not item.values["access"]:
            yield f"{item.address} begins with BigQuery's own grants: every viewer of the project reads it"
    for item in plan.resources("google_storage_bucket"):
        if item.values["public_access_prevention"] != "enforced" or not item.values["uniform_bucket_level_access"]:
            yield f"{item.address} could be made public"


def no_basic_or_admin_roles(plan: Plan) -> Iterator[str]:
    """Nobody is granted what owns, edits or administers everything."""
    for grant in plan.grants:
        if re.fullmatch(FORBIDDEN_ROLES, grant.role):
            yield f"{grant.member} holds {grant.role} on {grant.on}"


def no_keys_of_service_accounts(plan: Plan) -> Iterator[str]:
    """Nobody can hold a key that does not exist: neither of service accounts nor of Cloud Storage's HMAC."""
    for item in plan.resources(
        "google_service_account_key", "google_storage_hmac_key", "google_secret_manager_secret_version"
    ):
        yield f"{item.address} holds a secret in the state"


# What GitHub Actions may change, and nothing else: each was decided on, and docs/security.md says what remains.
MAY_CHANGE = {
    *(
        f"monitoring.{kind}.{verb}"
        for kind in ("alertPolicies", "dashboards", "notificationChannels")
        for verb in VERBS
    ),
    *(f"logging.logMetrics.{verb}" for verb in VERBS),
    *(
        f"{kind}.{verb}"
        for kind in ("artifactregistry.repositories", "bigquery.tables", "compute.firewalls")
        for verb in VERBS[:2]
    ),
    "composer.environments.update",
    "compute.networks.updatePolicy",
    "dns.changes.create",
    "dns.resourceRecordSets.create",
}


def ci_cannot_grant_delete_or_read(plan: Plan) -> Iterator[str]:
    """GitHub Actions change infrastructure, but no grants; they delete nothing that holds data, and read none."""
    found = {item.key: item.values["permissions"] for item in plan.resources("google_project_iam_custom_role")}
    for name, permissions in found.items():
        for pattern, what in ((CHANGES_GRANTS, "grants"), (READS_DATA, "reads data"), (DELETES_DATA, "deletes data")):
            yield from (f"{name} {what}: {it}" for it in permissions if re.search(pattern, it))
    for permission in set(found.get("provision", [])) - set(found.get("plan", [])) - MAY_CHANGE:
        yield f"provision may do what nobody decided: {permission}"
    for permission in found.get("plan", ["?"]):
        if not re.search(r"\.(get|list|read|getIamPolicy|getAttestationRules|use)$", permission):
            yield f"plan changes something: {permission}"


def versions_are_kept(plan: Plan) -> Iterator[str]:
    """Nobody may delete or replace a version of a model; who may delete other objects may by a condition."""
    deleting = {
        "roles/storage.objectUser",
        "roles/storage.objectAdmin",
        "roles/storage.admin",
        "roles/storage.legacyObjectOwner",
        "roles/storage.legacyBucketWriter",
    }
    spared = 'resource.name.extract("/objects/registry/models/{name}/versions/") == ""'
    for grant in plan.grants:
        if grant.on == "bucket" and grant.role in deleting and spared not in (grant.condition or "").split(" && "):
            yield f"{grant.member} may delete versions of models by {grant.role}"
    [bucket] = [
        item.values for item in plan.resources("google_storage_bucket") if item.address.startswith("module.bucket.")
    ]
    if not bucket["versioning"][0]["enabled"]:
        yield "the bucket keeps no noncurrent versions"
    if not bucket["enable_object_retention"]:
        yield "no object of the bucket can be locked"
    if int(bucket["soft_delete_policy"][0]["retention_duration_seconds"]) < 7 * 86400:
        yield "deleted objects cannot be restored for a week"
    for rule in bucket["lifecycle_rule"]:
        condition = rule["condition"][0]
        if rule["action"][0]["type"] == "Delete":
            prefixes = condition.get("matches_prefix") or [""]
            yield from (
                f"a rule deletes below {p!r}"
                for p in prefixes
                if "registry/".startswith(p) or p.startswith("registry/")
            )


def everything_has_a_key_of_ours(plan: Plan) -> Iterator[str]:
    """What takes a key of ours has one, and the keys rotate."""
    for item in plan.resources(*KEYS):
        if not any(it.startswith("module.key") for it in plan.references(item.address, *KEYS[item.type])):
            yield f"{item.address} is not encrypted by a key of ours"
    for kind in KEYS:
        if not plan.resources(kind) and not (
            kind == "google_secret_manager_secret" and not plan.variables.get("secrets")
        ):
            yield f"there is no {kind} whose key could be checked"
    for item in plan.resources("google_kms_crypto_key"):
        seconds = int(str(item.values.get("rotation_period") or "0s").removesuffix("s"))
        if not 0 < seconds <= 90 * 86400:
            yield f"{item.address} is not rotated within 90 days"


def airflow_is_private(plan: Plan) -> Iterator[str]:
    """Airflow has no way to the internet, and its pages are not open to everybody."""
    for item in plan.resources("google_composer_environment"):
        [config] = item.values["config"]
        if not config["enable_private_environment"] or not config["enable_private_builds_only"]:
            yield "Airflow has a way to the internet"
        for ranges in config["web_server_network_access_control"]:
            yield from (
                f"Airflow's pages are open to {r['value']}"
                for r in ranges["allowed_ip_range"]
                if r["value"].endswith("/0")
            )


def network_has_no_way_out(plan: Plan) -> Iterator[str]:
    """The network reaches Google's restricted addresses and itself, and nothing else."""
    [network] = plan.resources("google_compute_network")
    if not network.values["delete_default_routes_on_create"] or network.values["auto_create_subnetworks"]:
        yield "the network has the routes and subnets that Google gives every network"
    rules = plan.resources("google_compute_firewall")
    if not any(item.values["deny"] and "0.0.0.0/0" in item.values["destination_ranges"] for item in rules):
        yield "nothing forbids what is not allowed"
    private = r"(10\.|172\.(1[6-9]|2\d|3[01])\.|192\.168\.|199\.36\.153\.4/30)"
    for item in (item for item in rules if item.values["allow"]):
        beyond = [target for target in item.values["destination_ranges"] if not re.match(private, target)]
        yield from (f"{item.address} lets packets out to {target}" for target in beyond)
    for item in plan.resources("google_compute_route"):
        if item.values["dest_range"] != "199.36.153.4/30":
            yield f"{item.address} leads to {item.values['dest_range']}"
    yield from (
        f"{item.address} leads to the internet"
        for item in plan.resources("google_compute_router_nat", "google_compute_address")
    )


def only_our_jobs_get_in(plan: Plan) -> Iterator[str]:
    """GitHub's jobs are told by their subject: of one repository, and of one branch unless they only plan."""
    github = plan.variables["github"]
    repository = _repository(github)
    numbers = [
        f"assertion.{claim} == '{github.get(name) or '?'}'"
        for claim, name in (("repository_id", "repository_id"), ("repository_owner_id", "owner_id"))
    ]
    branch = f"assertion.ref == 'refs/heads/{github.get('branch', 'main')}'"
    for item in plan.resources("google_iam_workload_identity_pool_provider"):
        for alternative in " ".join(item.values["attribute_condition"].split()).split(" || "):
            subject = re.search(r"assertion\.sub == '([^']+)'", alternative)
            if not subject or not subject[1].startswith(f"{repository}:"):
                yield f"any repository's jobs get in: {alternative}"
            elif subject[1] != f"{repository}:pull_request" and branch not in alternative:
                yield f"any branch's jobs get in: {alternative}"
            elif not all(number in alternative for number in numbers):
                yield f"whoever takes the repository's name over gets in: {alternative}"
            elif "*" in alternative:
                yield f"a wildcard gets in: {alternative}"
    for grant in plan.grants:
        if "principalSet" in grant.member:
            yield f"all jobs of a pool act as {grant.on}"


def reads_are_logged(plan: Plan) -> Iterator[str]:
    """Reads and writes of data are logged, for all services, with nobody exempt."""
    found = plan.resources("google_project_iam_audit_config")
    logged = {
        entry["log_type"]: entry.get("exempted_members")
        for item in found
        for entry in item.values["audit_log_config"]
        if item.values["service"] == "allServices"
    }
    yield from (f"{kind} is not logged" for kind in ("ADMIN_READ", "DATA_READ", "DATA_WRITE") if kind not in logged)
    yield from (f"{exempt} is exempt from {kind}" for kind, exempt in logged.items() if exempt)
    if not any(
        "cloudaudit.googleapis.com" in item.values["filter"] for item in plan.resources("google_logging_project_sink")
    ):
        yield "audit logs are not kept"


# What keeps each type from being deleted, and the value that does.
PROTECTION = {
    ("google_bigquery_dataset", "deletion_policy"): "PREVENT",
    ("google_bigquery_dataset", "delete_contents_on_destroy"): False,
    ("google_bigquery_table", "deletion_protection"): True,
    ("google_composer_environment", "deletion_policy"): "PREVENT",
    ("google_secret_manager_secret", "deletion_protection"): True,
    ("google_storage_bucket", "deletion_policy"): "PREVENT",
    ("google_storage_bucket", "force_destroy"): False,
}


def production_cannot_be_deleted(plan: Plan) -> Iterator[str]:
    """Production can neither be deleted by Terraform nor by deleting its project."""
    if plan.variables["env"] != "prod":
        return
    for (kind, name), value in PROTECTION.items():
        found = plan.resources(kind)
        yield from (f"{item.address} may be deleted: {name}" for item in found if item.values.get(name) != value)
        if not found:
            yield f"there is no {kind}"
    if not plan.resources("google_resource_manager_lien"):
        yield "the project has no lien"


def production_keeps_evidence(plan: Plan) -> Iterator[str]:
    """Production keeps logs for a year at least, and its keys in hardware."""
    if plan.variables["env"] != "prod":
        return
    for item in plan.resources("google_logging_project_bucket_config"):
        if item.values["retention_days"] < 365:
            yield "events and audit logs are kept for less than a year"
    for item in plan.resources("google_kms_crypto_key"):
        if item.values["version_template"][0]["protection_level"] != "HSM":
            yield f"{item.address} is not kept in hardware"


def staging_expires(plan: Plan) -> Iterator[str]:
    """Tables of the staging dataset vanish by themselves, and those of no other dataset do."""
    for item in plan.resources("google_bigquery_dataset"):
        expires = item.values.get("default_table_expiration_ms")
        if (item.values["dataset_id"] == "nightscore_staging") != bool(expires):
            yield f"{item.address} expires after {expires} ms"


POLICIES: tuple[Policy, ...] = (
    only_allowed_roles,
    all_allowed_roles_are_used,
    members_are_known,
    nobody_public,
    no_basic_or_admin_roles,
    no_keys_of_service_accounts,
    ci_cannot_grant_delete_or_read,
    versions_are_kept,
    everything_has_a_key_of_ours,
    airflow_is_private,
    network_has_no_way_out,
    only_our_jobs_get_in,
    reads_are_logged,
    production_cannot_be_deleted,
    production_keeps_evidence,
    staging_expires,
)


def _custom(plan: Plan, role: str) -> str | None:
    found = re.fullmatch(rf"projects/[^/]+/roles/{plan.name.replace('-', '_')}_([a-z]+)", role)
    return found[1] if found else None
