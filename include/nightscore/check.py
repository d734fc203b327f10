"""Checking a pipeline without running it: does everything that its spec names exist and fit together?"""

import datetime as dt
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from nightscore.errors import ConfigurationError
from nightscore.gates.expectations import require_expectations
from nightscore.prediction_schema import prediction_columns, table_faults
from nightscore.run import Services
from nightscore.snapshot_sql import frozen_select
from nightscore.source import require_columns, source_columns
from nightscore.spec import Spec
from nightscore.warehouse import Estimate

T = TypeVar("T")


def check_pipeline(spec: Spec, services: Services) -> list[str]:
    """Return a sentence for every fault of a pipeline: model, columns, row rules, expectations, predictions table.

    Nothing is read but metadata: queries are dry runs, which BigQuery does not bill.
    """
    faults: list[str] = []
    version = _collect(faults, lambda: services.registry.resolve(spec.model))
    for path, expectations in (
        ("checks.features", spec.checks.features),
        ("checks.predictions", spec.checks.predictions),
    ):
        _collect(faults, partial(require_expectations, spec.name, path, expectations))
    if version is None:
        _collect(faults, lambda: source_columns(spec, services.warehouse))
        return faults
    found = _collect(faults, lambda: require_columns(spec, version, services.warehouse))
    if found is None:
        return faults
    spec, columns, partition_type = found
    _collect(faults, lambda: _dry_run(spec, services, columns, partition_type))
    keys = {key: columns[key] for key in spec.features.keys}
    task = version.manifest.task
    wanted = prediction_columns(version.manifest.name, keys, spec.features.partition, task)
    existing = _collect(faults, lambda: services.warehouse.find_table(spec.predictions.table))
    if existing is not None:
        there = table_faults(existing, spec.features.partition, wanted)
        faults.extend(f"{spec.name}: predictions.table: {spec.predictions.table}: {fault}." for fault in there)
    if spec.predictions.threshold is not None and task != "binary":
        faults.append(f"{spec.name}: predictions.threshold: {version.label} is a {task} model, which has no score.")
    return faults


def _collect(faults: list[str], step: Callable[[], T]) -> T | None:
    try:
        return step()
    except ConfigurationError as error:
        faults.append(str(error))
        return None


def _dry_run(spec: Spec, services: Services, columns: Mapping[str, str], partition_type: str) -> Estimate:
    return services.warehouse.estimate(
        frozen_select(spec, columns, partition_type, None),
        {"partition": dt.datetime.now(dt.UTC).date()},
        doing=f"checking the row rules of {spec.name}",
    )
