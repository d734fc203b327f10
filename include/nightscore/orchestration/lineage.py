"""Lineage of a night for OpenLineage: which tables and columns, by which version of the model, judged by which checks.

Airflow's own provider sends events of every task; what is said here is added to those of the same task run, by the
function that it offers for that. Without the provider, or while it has no transport, nothing is imported and nothing is
sent. A lineage server that fails costs no night: the provider logs it.
"""

import functools
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from nightscore import __version__
from nightscore.errors import shorten
from nightscore.objects import Json

if TYPE_CHECKING:
    from nightscore.run import Run
    from nightscore.warehouse import Column

NAMESPACE = "bigquery"  # as OpenLineage names it; a dataset's name is project.dataset.table
FACET = "nightscore"
PRODUCER = f"urn:nightscore:{__version__}"
SCHEMA = "urn:nightscore:openlineage:NightscoreRunFacet:1-0-0"  # docs/openlineage/NightscoreRunFacet.json

log = logging.getLogger(__name__)


def _only_for_lineage(report: Callable[..., None]) -> Callable[..., None]:
    """Make a report do nothing where nobody receives it, and fail no task."""

    @functools.wraps(report)
    def careful(*args: Any) -> None:
        try:
            from airflow.providers.openlineage import conf
        except ImportError:
            return
        try:
            if not conf.is_disabled():
                report(*args)
        except Exception:  # nothing of a night depends on it
            log.exception("lineage was not reported")

    return careful


@_only_for_lineage
def report_features(run: "Run") -> None:
    """Report the feature gate's verdicts on the tables that were read, also where it refused them."""
    if (gate := run.records.read("feature_gate")) is not None:
        _emit(run, inputs=_inputs(run, gate), outputs=[])


@_only_for_lineage
def report_publication(run: "Run", rows: int) -> None:
    """Report a publication: from which columns each published one comes, and how many rows there are."""
    gates = [run.records.read(name) or {} for name in ("feature_gate", "prediction_gate")]
    _emit(run, inputs=_inputs(run, gates[0]), outputs=[_output(run, gates[1], rows)])


def _emit(run: "Run", inputs: list[Any], outputs: list[Any]) -> None:
    from airflow.providers.openlineage.api import emit_dataset_lineage

    emit_dataset_lineage(inputs=inputs, outputs=outputs, additional_run_facets={FACET: _facet(run)})


def _facet(run: "Run") -> Any:
    from openlineage.client.generated.base import RunFacet

    plan = run.plan
    facet = RunFacet(producer=PRODUCER).with_additional_properties(
        pipeline=plan.spec.name,
        partition=plan.partition.isoformat(),
        runId=plan.run_id,
        modelName=plan.model.name,
        modelVersion=plan.model.version,
        modelDigest=plan.model.digest,
        requestedModel=plan.model.requested,
        challengers=[pinned.label for pinned in plan.challengers],
        specDigest=plan.spec.digest,
        records=run.records.uri,
    )
    facet._schemaURL = SCHEMA  # noqa: SLF001 - the facet's own attribute, which its class fills in
    return facet


def _inputs(run: "Run", gate: Json) -> list[Any]:
    """Return what the features were read from; of one table the columns, and the checks of its rows."""
    from openlineage.client.event_v2 import InputDataset
    from openlineage.client.generated.data_quality_metrics_input_dataset import DataQualityMetricsInputDatasetFacet

    table = run.spec.features.table
    if table is None:
        return [InputDataset(NAMESPACE, name) for name in run.plan.sources]
    frozen = run.records.read("freeze") or {}
    facets: dict[str, Any] = {
        "dataQualityMetrics": DataQualityMetricsInputDatasetFacet({}, rowCount=frozen.get("rows"))
    }
    if gate:
        facets["dataQualityAssertions"] = _assertions(gate["checks"])
    schema = _schema((name, kind, None) for name, kind in run.plan.columns.items())
    return [InputDataset(NAMESPACE, run.warehouse.full_name(table), facets, facets={"schema": schema})]


def _output(run: "Run", gate: Json, rows: int) -> Any:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.generated.output_statistics_output_dataset import OutputStatisticsOutputDatasetFacet

    from nightscore.predictions import columns_of

    columns = columns_of(run.plan, str(gate["task"]))
    facets = {
        "schema": _schema((column.name, column.type, column.description) for column in columns),
        # OpenLineage has them for inputs. Nobody else reads the predictions as these checks have seen them.
        "dataQualityAssertions": _assertions(gate["checks"]),
        "columnLineage": _column_lineage(run, columns),
    }
    statistics: dict[str, Any] = {"outputStatistics": OutputStatisticsOutputDatasetFacet(rowCount=rows)}
    table = run.warehouse.full_name(run.spec.predictions.table)
    return OutputDataset(NAMESPACE, table, statistics, facets=facets)


def _column_lineage(run: "Run", columns: "Iterable[Column]") -> Any:
    """Return from which columns of the sources each published one comes, and which ones decide on rows."""
    from openlineage.client.generated.column_lineage_dataset import (
        ColumnLineageDatasetFacet,
        Fields,
        InputField,
        Transformation,
    )

    from nightscore.row_rules import columns_of as columns_read

    plan, features = run.plan, run.spec.features
    manifest = run.registry.load_manifest(plan.model.name, plan.model.version, plan.model.digest).manifest

    def read(names: Iterable[str], kind: str, subtype: str, why: str) -> list[Any]:
        origins = dict.fromkeys(origin for name in names for origin in _origins(run, name))
        how = Transformation(kind, subtype, why)
        return [InputField(NAMESPACE, table, column, [how]) for table, column in origins]

    # A query may compute anything; of a table, keys and a date are what they are there.
    copy = "IDENTITY" if features.table else "TRANSFORMATION"
    day = copy if plan.partition_type == "DATE" else "TRANSFORMATION"
    inputs = [item.name for item in manifest.inputs]
    predicted = read(inputs, "DIRECT", "TRANSFORMATION", f"input of the model {plan.model.label}")
    found = {name: read([name], "DIRECT", copy, "key") for name in features.keys}
    found[features.partition] = read([features.partition], "DIRECT", day, "partition")
    found |= dict.fromkeys(("score", "prediction", "probabilities"), predicted)
    filters = read([features.partition], "INDIRECT", "FILTER", "the partition that was scored")
    filters += read(columns_read(features.rules.values()), "INDIRECT", "FILTER", "read by a row rule")
    fields = {column.name: Fields(found[column.name]) for column in columns if found.get(column.name)}
    return ColumnLineageDatasetFacet(fields, filters)


def _origins(run: "Run", name: str) -> list[tuple[str, str]]:
    """Return table and column from which a frozen column comes; none where sqlglot cannot tell it of a query."""
    features = run.spec.features
    if features.table is not None:
        names = {column.lower(): column for column in run.plan.columns}
        return [(run.warehouse.full_name(features.table), names.get(name.lower(), name))]
    from sqlglot import exp
    from sqlglot.errors import SqlglotError
    from sqlglot.lineage import lineage

    try:
        leaves = list(lineage(name, str(features.query), {}, dialect="bigquery").walk())
    except SqlglotError:
        return []
    found = []
    for leaf in leaves:
        if not leaf.downstream and isinstance(leaf.expression, exp.Table):
            table = ".".join(part.name for part in leaf.expression.parts)
            found.append((run.warehouse.full_name(table), leaf.name.rpartition(".")[2]))
    return found


def _schema(columns: Iterable[tuple[str, str, str | None]]) -> Any:
    from openlineage.client.generated.schema_dataset import SchemaDatasetFacet, SchemaDatasetFacetFields

    return SchemaDatasetFacet([SchemaDatasetFacetFields(name, kind, about) for name, kind, about in columns])


def _assertions(checks: Iterable[Json]) -> Any:
    from openlineage.client.generated.data_quality_assertions_dataset import (
        Assertion,
        DataQualityAssertionsDatasetFacet,
    )

    return DataQualityAssertionsDatasetFacet(
        [
            Assertion(
                assertion=check["expectation"],
                success=check["passed"],
                column=check["column"] or None,
                severity="error" if check["severity"] == "critical" else "warn",
                expected=shorten(check["wanted"], 300),
                actual=shorten(check["observed"], 300),
            )
            for check in checks
        ]
    )
