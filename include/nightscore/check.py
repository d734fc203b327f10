"""Checking a pipeline without running it: does everything that its spec names exist and fit together?"""

import datetime as dt
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from nightscore.challengers import choose_challengers
from nightscore.errors import ConfigurationError
from nightscore.gates.expectations import require_expectations
from nightscore.monitoring.outcomes import require_outcomes
from nightscore.prediction_schema import prediction_columns, require_checked_columns, table_faults
from nightscore.run import Services
from nightscore.snapshot_sql import frozen_select
from nightscore.source import Shape, require_columns, rule_faults, source_columns
from nightscore.spec import Spec
from nightscore.waiting import require_condition
from nightscore.warehouse import StatementError

T = TypeVar("T")


def check_pipeline(spec: Spec, services: Services) -> list[str]:
    """Return a sentence for every fault of a pipeline: model, columns, row rules, expectations, outcomes, its table.

    Nothing is read but metadata: queries are dry runs, which BigQuery does not bill.
    """
    faults: list[str] = []
    version = _collect(faults, lambda: services.registry.resolve(spec.model))
    for path, expectations in (
        ("checks.features", spec.checks.features),
        ("checks.predictions", spec.checks.predictions),
    ):
        _collect(faults, partial(require_expectations, spec.name, path, expectations))
    for condition in spec.features.wait.conditions if spec.features.wait else ():
        _collect(faults, partial(require_condition, condition, spec, services.warehouse))
    if spec.evidence.outcomes is not None:
        _collect(faults, partial(require_outcomes, services.warehouse, spec, spec.evidence.outcomes))
    if version is None:
        _collect(faults, lambda: source_columns(spec, services.warehouse))
        return faults
    found = _collect(faults, lambda: require_columns(spec, version, services.warehouse))
    if found is None:
        return faults
    spec = found.spec
    faults.extend(_freezing_faults(found, services))
    keys = {key: found.columns[key] for key in spec.features.keys}
    task = version.manifest.task
    wanted = prediction_columns(version.manifest.name, keys, spec.features.partition, task)
    _collect(faults, lambda: require_checked_columns(spec, wanted))
    existing = _collect(faults, lambda: services.warehouse.find_table(spec.predictions.table))
    if existing is not None:
        there = table_faults(existing, spec.features.partition, wanted)
        faults.extend(f"{spec.name}: predictions.table: {spec.predictions.table}: {fault}." for fault in there)
    if spec.predictions.threshold is not None and task != "binary":
        faults.append(f"{spec.name}: predictions.threshold: {version.label} is a {task} model, which has no score.")
    return faults


def check_challengers(spec: Spec, services: Services) -> list[str]:
    """Return a sentence for every challenger that a run would leave out now; its champion is published all the same.

    Nothing is said where the champion itself does not fit: that is what `check_pipeline` is about.
    """
    try:
        champion = services.registry.resolve(spec.model)
        chosen = choose_challengers(spec.model, champion, services.registry)
        shape = require_columns(spec, champion, services.warehouse, chosen.versions)
    except ConfigurationError:
        return []
    left_out = {**chosen.left_out, **shape.left_out}
    found = [f"{spec.name}: model.challengers: {asked} would be left out. {why}" for asked, why in left_out.items()]
    table = services.warehouse.find_table(spec.predictions.shadow_table) if spec.model.challengers else None
    if table is not None:
        keys = {key: shape.columns[key] for key in shape.spec.features.keys}
        task, partition = champion.manifest.task, shape.spec.features.partition
        there = table_faults(table, partition, prediction_columns(champion.manifest.name, keys, partition, task))
        found.extend(
            f"{spec.name}: model.challengers: all would be left out. {spec.predictions.shadow_table}: {fault}."
            for fault in there
        )
    return found


def _collect(faults: list[str], step: Callable[[], T]) -> T | None:
    try:
        return step()
    except ConfigurationError as error:
        faults.append(str(error))
        return None


def _freezing_faults(shape: Shape, services: Services) -> list[str]:
    """Return what keeps the rows from being frozen, by dry run: the row rules that BigQuery does not take, or else."""
    today = dt.datetime.now(dt.UTC).date()
    try:
        services.warehouse.estimate(
            frozen_select(shape.spec, shape.columns, shape.partition_type, None),
            {"partition": today},
            doing=f"checking the row rules of {shape.spec.name}",
        )
    except StatementError as error:
        return [str(fault) for fault in rule_faults(shape, today, services.warehouse)] or [str(error)]
    return []
