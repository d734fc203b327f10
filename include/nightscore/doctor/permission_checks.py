"""Permissions: which of those that `schemas/permissions.json` lists does this process lack, and which role holds them?

BigQuery tests permissions on tables. Those that exist only on datasets are seen by using them: a dataset is looked up,
its tables are listed, and in the staging dataset a table without rows is created and removed again.
"""

import datetime as dt
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from nightscore.doctor.deployment import Deployment
from nightscore.doctor.finding import Finding, fault, not_checked, ok, warning
from nightscore.doctor.local_checks import LOCAL
from nightscore.errors import counted, listed, shorten
from nightscore.operations import operations_tables
from nightscore.warehouse import StatementError, translated

OURS = "doctor "  # the reason of a permission without which nights go on
EXPIRES = dt.timedelta(hours=1)
ON_TABLES = frozenset(f"bigquery.tables.{name}" for name in ("delete", "get", "getData", "update", "updateData"))
ROLES = {
    "bigquery.jobs.create": "roles/bigquery.jobUser",
    "bigquery.readsessions.create": "roles/bigquery.readSessionUser",
    "bigquery.readsessions.getData": "roles/bigquery.readSessionUser",
    "logging.logEntries.create": "roles/logging.logWriter",
    "storage.buckets.get": "roles/storage.legacyBucketReader",
    "storage.objects.create": "roles/storage.objectCreator",
    "storage.objects.get": "roles/storage.objectViewer",
    "storage.objects.list": "roles/storage.objectViewer",
}
# Replacing and deleting all but versions of models, as terraform/registry.tf grants it.
REPLACES = (
    "roles/storage.objectUser --condition='title=all but versions of models,"
    'expression=resource.name.extract("/objects/registry/models/{name}/versions/") == ""\''
)


@cache
def permissions(group: str) -> Mapping[str, str]:
    """Return the permissions of a group: name → what it is for."""
    content = json.loads(files("nightscore").joinpath("schemas/permissions.json").read_text())
    found: dict[str, str] = content[group]
    return found


def check_permissions(deployment: Deployment) -> Iterator[Finding]:
    """Ask IAM what this process may do on the project, the bucket and the datasets."""
    config = deployment.config
    if config.is_local:
        yield not_checked("permissions", LOCAL)
        return
    yield _on_project(deployment)
    yield _on_bucket(deployment)
    specs, operations = deployment.specs, f"{config.project}.{config.operations_dataset}"
    features = {table for spec in specs if (table := spec.features.table) is not None}
    published = {spec.predictions.table for spec in specs}
    yield from _on_datasets(deployment, "features_dataset", features)
    yield from _on_datasets(deployment, "predictions_dataset", published)
    yield from _on_datasets(deployment, "operations_dataset", (f"{operations}.{name}" for name in operations_tables()))
    yield _on_staging(deployment)


def _on_project(deployment: Deployment) -> Finding:
    import requests
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import AuthorizedSession

    from nightscore.clients import google_credentials

    project = deployment.config.project
    wanted = dict(permissions("project"))
    if not deployment.environment.get("NIGHTSCORE_EVENTS_LOG"):
        del wanted["logging.logEntries.create"]
    url = f"https://cloudresourcemanager.googleapis.com/v1/projects/{project}:testIamPermissions"
    check = f"project {project}"
    try:
        session = AuthorizedSession(google_credentials(deployment.config))
        answer = session.post(url, json={"permissions": list(wanted)}, timeout=deployment.timeout / 2)
    except (requests.RequestException, GoogleAuthError) as error:
        return not_checked(check, f"cloudresourcemanager.googleapis.com did not answer: {shorten(error, 200)}")
    if answer.status_code != 200:
        fix = f"gcloud services enable cloudresourcemanager.googleapis.com --project={project}"
        return not_checked(check, f"the Resource Manager answered {answer.status_code}", fix)
    held = answer.json().get("permissions", ())
    missing = [name for name in wanted if name not in held]
    roles = _roles(missing, "")
    binding = f"gcloud projects add-iam-policy-binding {project} --member={deployment.principal} --role="
    return _verdict(check, wanted, missing, "; ".join(binding + role for role in roles))


def _on_bucket(deployment: Deployment) -> Finding:
    bucket, wanted = deployment.services.bucket, permissions("bucket")
    held = bucket.held_permissions(list(wanted))
    missing = [name for name in wanted if name not in held]
    binding = (
        f"gcloud storage buckets add-iam-policy-binding gs://{bucket.name} --member={deployment.principal} --role="
    )
    roles = _roles(missing, REPLACES)
    return _verdict(f"bucket {bucket.name}", wanted, missing, "; ".join(binding + role for role in roles))


def _on_datasets(deployment: Deployment, group: str, tables: Iterable[str]) -> Iterator[Finding]:
    """Test the permissions of a group on one table of each of its datasets."""
    by_dataset: dict[str, list[str]] = {}
    for table in sorted(tables):
        by_dataset.setdefault(deployment.dataset_of(table), []).append(deployment.services.warehouse.full_name(table))
    wanted, kind = permissions(group), group.removesuffix("_dataset")
    if not by_dataset:
        yield not_checked(f"{kind} datasets", "no pipeline names one")
    for dataset, names in by_dataset.items():
        check = f"{kind} dataset {dataset}"
        missing = _missing_by_use(deployment, dataset, wanted)
        on_table = [name for name in wanted if name in ON_TABLES]
        held = next((found for name in names if (found := _held_on(deployment, name, on_table)) is not None), None)
        if held is None and not missing:
            yield not_checked(check, "it has no table yet on which they could be tested")
            continue
        missing += [name for name in on_table if held is not None and name not in held]
        tested = [name for name in wanted if name != "bigquery.tables.create"]  # the first run shows it, and needs it
        role = "roles/bigquery.dataViewer" if group == "features_dataset" else "roles/bigquery.dataEditor"
        yield _verdict(check, {name: wanted[name] for name in tested}, missing, _grant(deployment, dataset, role))


def _on_staging(deployment: Deployment) -> Finding:
    from google.cloud import bigquery

    config, warehouse = deployment.config, deployment.services.warehouse
    dataset, wanted = f"{config.project}.{config.staging_dataset}", permissions("staging_dataset")
    check, grant = f"staging dataset {dataset}", _grant(deployment, dataset, "roles/bigquery.dataEditor")
    missing = _missing_by_use(deployment, dataset, wanted)
    if missing:
        return _verdict(check, wanted, missing, grant)
    if not deployment.writes:
        return not_checked(check, "that takes a table of its own, which --read-only forbids")
    if warehouse.find_dataset(dataset) is None:
        return not_checked(check, "there is no such dataset yet")
    probe = bigquery.Table(f"{dataset}.nightscore_doctor_{uuid.uuid4().hex}", [bigquery.SchemaField("x", "INT64")])
    probe.expires = dt.datetime.now(dt.UTC) + EXPIRES
    try:
        with translated(f"creating a table in {dataset}"):
            warehouse.client.create_table(probe, retry=warehouse.retry)
    except StatementError:
        return _verdict(check, wanted, ["bigquery.tables.create"], grant)
    name = f"{probe.project}.{probe.dataset_id}.{probe.table_id}"
    on_table = [item for item in wanted if item in ON_TABLES]
    held = _held_on(deployment, name, on_table) or set()
    missing = [item for item in on_table if item not in held]
    if "bigquery.tables.delete" not in missing:
        with translated(f"removing {name}"):
            warehouse.client.delete_table(name, not_found_ok=True, retry=warehouse.retry)
    return _verdict(check, wanted, missing, grant)


def _missing_by_use(deployment: Deployment, dataset: str, wanted: Mapping[str, str]) -> list[str]:
    warehouse = deployment.services.warehouse
    missing = []
    try:
        if warehouse.find_dataset(dataset) is None:
            return []
    except StatementError:
        missing.append("bigquery.datasets.get")
    if "bigquery.tables.list" in wanted:
        try:
            with translated(f"listing {dataset}"):
                next(iter(warehouse.client.list_tables(dataset, max_results=1, retry=warehouse.retry)), None)
        except StatementError:
            missing.append("bigquery.tables.list")
    return missing


def _held_on(deployment: Deployment, table: str, wanted: list[str]) -> set[str] | None:
    """Return which permissions this process holds on a table; None where there is no such table."""
    from google.api_core.exceptions import NotFound

    warehouse = deployment.services.warehouse
    with translated(f"testing permissions on {table}"):
        try:
            answer: dict[str, Any] = warehouse.client.test_iam_permissions(table, wanted, retry=warehouse.retry)
        except NotFound:
            return None
    return set(answer.get("permissions", ()))


def _verdict(check: str, wanted: Mapping[str, str], missing: list[str], fix: str) -> Finding:
    if not missing:
        return ok(check, f"all {counted(len(wanted), 'permission')} held")
    found = f"Missing: {listed([f'{name} ({wanted[name]})' for name in missing], most=12)}."
    only_ours = all(wanted[name].startswith(OURS) for name in missing)
    return (warning if only_ours else fault)(check, found, fix)


def _roles(missing: Iterable[str], otherwise: str) -> list[str]:
    return list(dict.fromkeys(ROLES.get(name, otherwise) for name in missing))


def _grant(deployment: Deployment, dataset: str, role: str) -> str:
    return f'GRANT `{role}` ON SCHEMA `{dataset}` TO "{deployment.principal}";'
