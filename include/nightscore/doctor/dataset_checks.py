"""Datasets and tables: are they where the settings say, and shaped as `schemas/*.json` describe them?"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from nightscore.doctor.deployment import Deployment
from nightscore.doctor.finding import Finding, fault, not_checked, ok, warning
from nightscore.doctor.local_checks import LOCAL
from nightscore.errors import counted, listed, shorten
from nightscore.operations import operations_tables, table_columns
from nightscore.warehouse import Column, StatementError

if TYPE_CHECKING:
    from google.cloud import bigquery

PARTITION, CLUSTERING = "partition_date", ["pipeline"]


def check_datasets(deployment: Deployment) -> Iterator[Finding]:
    """Compare every dataset's location with the settings', and see that forgotten staging tables expire."""
    config, warehouse = deployment.config, deployment.services.warehouse
    own = {
        "staging": f"{config.project}.{config.staging_dataset}",
        "operations": f"{config.project}.{config.operations_dataset}",
    }
    named = {name: kind for kind, name in own.items()}
    for spec in deployment.specs:
        if spec.features.table is not None:
            named.setdefault(deployment.dataset_of(spec.features.table), "features")
        named.setdefault(deployment.dataset_of(spec.predictions.table), "predictions")
    for name, kind in named.items():
        check = f"{kind} dataset"
        try:
            found = warehouse.find_dataset(name)
        except StatementError as error:
            yield not_checked(check, f"{name} may not be looked up, see permissions: {shorten(error.cause, 200)}")
            continue
        if found is None:
            yield _absent(deployment, kind, name)
        elif found.location.lower() != config.location.lower():
            text = f"{name} is in {found.location}; NIGHTSCORE_LOCATION is {config.location}."
            fix = f"NIGHTSCORE_LOCATION={found.location}, or copy the dataset to {config.location}: no query spans two."
            yield fault(check, text, fix)
        else:
            yield ok(check, f"{name} in {found.location}")
        if kind == "staging" and found is not None:
            yield _expiration(deployment, name, found)


def _absent(deployment: Deployment, kind: str, name: str) -> Finding:
    project, dataset = name.rsplit(".", 1)
    create = f"bq mk --location={deployment.config.location} --dataset {project}:{dataset}"
    if kind == "features":
        return fault(f"{kind} dataset", f"There is no dataset {name}, which a pipeline reads.", create)
    found = f"There is no dataset {name} yet; the first run creates it if it has bigquery.datasets.create."
    if deployment.config.is_local:
        return ok(f"{kind} dataset", f"{name} will be created by the first run")
    return warning(f"{kind} dataset", found, create)


def _expiration(deployment: Deployment, name: str, found: "bigquery.Dataset") -> Finding:
    check = "staging expiration"
    if deployment.config.is_local:
        return not_checked(check, LOCAL)
    if found.default_table_expiration_ms is None:
        text = f"Tables of {name} get no expiration of their own: what a killed run did not date stays for ever."
        return warning(check, text, f"ALTER SCHEMA `{name}` SET OPTIONS (default_table_expiration_days = 30);")
    return ok(check, f"{found.default_table_expiration_ms / 86_400_000:g} days by default")


def check_operations_tables(deployment: Deployment) -> Iterator[Finding]:
    """Compare the tables of the operations dataset with what this version of nightscore writes."""
    warehouse, dataset = deployment.services.warehouse, deployment.config.operations_dataset
    for name in operations_tables():
        try:
            found = warehouse.find_table(f"{dataset}.{name}")
        except StatementError as error:
            yield not_checked(name, f"it may not be looked up, see permissions: {shorten(error.cause, 200)}")
            continue
        if found is None:
            yield ok(name, f"{dataset}.{name} will be created by the first run that needs it")
        else:
            full = f"{found.project}.{found.dataset_id}.{found.table_id}"
            yield from _table_findings(name, full, found, table_columns(name)) or [ok(name, _shape(full, found))]


def _table_findings(name: str, full: str, table: "bigquery.Table", wanted: tuple[Column, ...]) -> list[Finding]:
    there = {column.name.lower(): column for column in map(Column.from_api, table.schema)}
    found = []
    for column in wanted:
        own = there.get(column.name.lower())
        if own is not None and own.type != column.type:
            text = f"{full}.{column.name} is {own.type}; nightscore writes {column.type}."
            found.append(fault(name, text, _retype(full, column)))
    known = {column.name.lower() for column in wanted}
    required = [column.name for key, column in there.items() if key not in known and column.mode == "REQUIRED"]
    if required:
        text = f"{full} requires {listed(required)}, which nightscore does not write."
        fix = "; ".join(f"ALTER TABLE `{full}` ALTER COLUMN `{column}` DROP NOT NULL" for column in required)
        found.append(fault(name, text, fix))
    lacking = [column for column in wanted if column.name.lower() not in there]
    if lacking:
        text = f"{full} lacks {listed(column.name for column in lacking)}; the next run adds them."
        columns = ", ".join(f"ADD COLUMN `{column.name}` {column.type}" for column in lacking)
        found.append(warning(name, text, f"Nothing, or ALTER TABLE `{full}` {columns};"))
    days = table.time_partitioning
    if days is None or days.type_ != "DAY" or (days.field or "") != PARTITION:
        text = f"{full} is not partitioned by {PARTITION}: queries read all of it, and runs wait for each other."
        found.append(warning(name, text, _rebuild(full)))
    elif (table.clustering_fields or []) != CLUSTERING:
        text = f"{full} is not clustered by {', '.join(CLUSTERING)}: queries of one pipeline read all of them."
        found.append(warning(name, text, f"bq update --clustering_fields={','.join(CLUSTERING)} {_for_bq(full)}"))
    return found


def _shape(full: str, table: "bigquery.Table") -> str:
    return f"{full}, {counted(len(table.schema), 'column')}"


def _retype(full: str, column: Column) -> str:
    return (
        f"CREATE OR REPLACE TABLE `{full}` PARTITION BY {PARTITION} CLUSTER BY {', '.join(CLUSTERING)} AS "
        f"SELECT * REPLACE (CAST(`{column.name}` AS {column.type}) AS `{column.name}`) FROM `{full}`;"
    )


def _rebuild(full: str) -> str:
    bq = _for_bq(full)
    return (
        f"While no run is at work: bq cp {bq} {bq}_old; bq rm {bq}; the next run creates it; then INSERT INTO `{full}` "
        f"SELECT * FROM `{full}_old`;"
    )


def _for_bq(full: str) -> str:
    return full.replace(".", ":", 1)
