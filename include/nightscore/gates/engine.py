"""Great Expectations' SQL engine with fewer scans: what it asks of the warehouse many times is asked once.

The results are those of the engine it is derived from. What changes is how often the table is read:

* Whatever needs no query is done first, so that all aggregates of the suite go into one query.
* Quantiles of all columns are one query of one row, and not one query of as many rows as the table for each column.
* Failing values that nobody asked for are not asked for.
* A metric that failed is not tried again, nor is what succeeded beside it: a query that fails is cut in halves.

This module is imported where a table is checked, and never while DAGs are parsed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from great_expectations.core.id_dict import IDDict
from great_expectations.core.metric_domain_types import MetricDomainTypes
from great_expectations.core.metric_function_types import MetricPartialFunctionTypeSuffixes
from great_expectations.data_context.store import ValidationResultsStore
from great_expectations.datasource.fluent import BigQueryDatasource
from great_expectations.datasource.fluent.sql_datasource import QueryAsset, TableAsset
from great_expectations.exceptions import GreatExpectationsError, MetricResolutionError
from great_expectations.execution_engine import SqlAlchemyExecutionEngine
from great_expectations.expectations.metrics.column_aggregate_metric_provider import (
    ColumnAggregateMetricProvider,
    column_aggregate_partial,
)
from great_expectations.expectations.registry import get_expectation_impl, get_metric_kwargs, get_metric_provider
from great_expectations.util import get_sqlalchemy_selectable
from great_expectations.validator.metric_configuration import MetricConfiguration
from great_expectations.validator.metrics_calculator import MetricsCalculator
from pydantic.v1 import PrivateAttr

from nightscore.errors import NightscoreError

# Metrics that are made of other metrics or of the table's metadata alone.
_FREE_SUFFIXES = tuple(f".{suffix.value}" for suffix in MetricPartialFunctionTypeSuffixes)
_FREE_NAMES = ("table.column_types", "table.columns")

_VALUES = ".unexpected_values"
_QUANTILES = "column.quantile_values"


class WarehouseEngine(SqlAlchemyExecutionEngine):  # type: ignore[misc]
    """The engine: its results are those of `SqlAlchemyExecutionEngine`, from fewer queries."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._found: dict[Any, Any] = {}
        self._failed: dict[Any, str] = {}

    def resolve_metrics(
        self,
        metrics_to_resolve: Iterable[Any],
        metrics: dict[Any, Any] | None = None,
        runtime_configuration: dict[str, Any] | None = None,
    ) -> dict[Any, Any]:
        """Return the values of some of the metrics, at least of one; Great Expectations asks again for the others.

        Raises:
            MetricResolutionError: nothing is left but metrics that failed.
        """
        asked = sorted(metrics_to_resolve, key=_place)
        found = {metric.id: self._found[metric.id] for metric in asked if metric.id in self._found}
        if not found:
            found = self._resolved(asked, metrics or {}, runtime_configuration)
            self._found.update(found)
        return found

    def _resolved(
        self, asked: Sequence[Any], known: dict[Any, Any], runtime_configuration: dict[str, Any] | None
    ) -> dict[Any, Any]:
        again = [metric for metric in asked if metric.id in self._failed]
        if again:
            message = self._failed[again[0].id]
            raise MetricResolutionError(message, [metric for metric in again if self._failed[metric.id] == message])
        free = [metric for metric in asked if _is_free(metric.metric_name)]
        if free:
            return self._each(free, known, runtime_configuration)
        found: dict[Any, Any] = {metric.id: [] for metric in asked if _is_idle(metric)}
        rest = [metric for metric in asked if metric.id not in found]
        quantiles = [metric for metric in rest if metric.metric_name == _QUANTILES]
        for together in _by_domain(quantiles):
            found.update(self._in_halves(together, self._quantiles))
        rest = [metric for metric in rest if metric.metric_name != _QUANTILES]
        bundled = [metric for metric in rest if get_metric_provider(metric.metric_name, self)[1] is None]
        if bundled:
            found.update(super().resolve_metrics(bundled, known, runtime_configuration))
        found.update(self._each([m for m in rest if m not in bundled], known, runtime_configuration))
        return found

    def resolve_metric_bundle(self, metric_fn_bundle: Iterable[Any]) -> dict[Any, Any]:
        """Return the values of aggregates: of the same rows in one query, or in halves where that fails."""
        # What is not said in a domain is None in one place and missing in another, and both are the whole table.
        bundle = [
            replace(item, compute_domain_kwargs=_stated(item.compute_domain_kwargs or {})) for item in metric_fn_bundle
        ]
        return self._in_halves(bundle, super().resolve_metric_bundle)

    def _each(
        self, asked: Sequence[Any], known: dict[Any, Any], runtime_configuration: dict[str, Any] | None
    ) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for metric in asked:
            try:
                found.update(super().resolve_metrics([metric], known, runtime_configuration))
            except MetricResolutionError as error:
                self._failed[metric.id] = str(error)
        return found

    def _in_halves(self, asked: Sequence[Any], query: Callable[[Sequence[Any]], dict[Any, Any]]) -> dict[Any, Any]:
        """Return what a query gives; where it fails, what its halves give, and remember what fails alone."""
        try:
            return query(asked)
        except Exception as error:  # noqa: BLE001 - of Great Expectations, SQLAlchemy or the client
            if len(asked) == 1 or isinstance(error, NightscoreError):  # an outage, in which halves fare no better
                metrics = [getattr(item, "metric_configuration", item) for item in asked]
                self._failed.update((metric.id, str(error)) for metric in metrics)
                return {}
        middle = len(asked) // 2
        return {**self._in_halves(asked[:middle], query), **self._in_halves(asked[middle:], query)}

    def _quantiles(self, asked: Sequence[Any]) -> dict[Any, Any]:
        """Return the quantiles of several columns of the same rows, exactly as the base class computes those of one."""
        import sqlalchemy as sa

        selects = []
        for metric in asked:
            selectable, _, accessor = self.get_compute_domain(metric.metric_domain_kwargs, MetricDomainTypes.COLUMN)
            column: Any = sa.column(accessor["column"])
            selects += [sa.func.percentile_disc(column, q).over() for q in metric.metric_value_kwargs["quantiles"]]
        named = [select.label(f"q{number}") for number, select in enumerate(selects)]
        query = sa.select(*named).select_from(get_sqlalchemy_selectable(selectable)).limit(1)
        found = self.execute_query(query).fetchone()
        row = iter(list(found) if found is not None else [None] * len(named))  # of no rows there is not even one
        return {metric.id: [next(row) for _ in metric.metric_value_kwargs["quantiles"]] for metric in asked}


class StandardDeviation(ColumnAggregateMetricProvider):  # type: ignore[misc]
    """The stock metric without what only SQLite needs: mean and count first, which would be a scan of their own."""

    metric_name = "column.standard_deviation"

    @column_aggregate_partial(engine=WarehouseEngine)  # type: ignore[untyped-decorator]
    def _in_the_warehouse(cls, column: Any, **_: Any) -> Any:  # noqa: N805 - Great Expectations makes it a class method
        import sqlalchemy as sa

        return sa.func.stddev_samp(column)


class WarehouseTable(TableAsset):  # type: ignore[misc]
    """A table that is known to exist: no query tries it first."""

    def test_connection(self) -> None:
        """Do nothing: the first query tells."""


class WarehouseSource(BigQueryDatasource):  # type: ignore[misc]
    """Great Expectations' BigQuery with the engine above."""

    asset_types: ClassVar[list[Any]] = [WarehouseTable, QueryAsset]
    execution_engine_override: ClassVar[Any] = WarehouseEngine
    type: Literal["nightscore"] = "nightscore"

    _TableAsset: Any = PrivateAttr(WarehouseTable)

    def test_connection(self, test_assets: bool = True) -> None:
        """Do nothing: the first query tells."""


class NoStore(ValidationResultsStore):  # type: ignore[misc]
    """A store that keeps nothing: the checkpoint hands its result back.

    The stock one turns it into JSON, which fails for the success of a quantile expectation, a NumPy bool.
    """

    def store_validation_results(self, *_: Any, **__: Any) -> bool:
        """Do nothing."""
        return True


def failing_keys(engine: WarehouseEngine, configuration: Any, keys: Sequence[str], most: int) -> list[dict[str, Any]]:
    """Return the keys of at most `most` rows that fail a row-wise expectation; of others, nothing.

    Args:
        engine: the engine that has checked it.
        configuration: Great Expectations' configuration of it, with the batch that was checked.
        keys: the columns to return.
        most: how many rows.

    Raises:
        GreatExpectationsError: they cannot be found.
    """
    map_metric = getattr(get_expectation_impl(configuration.type), "map_metric", None)
    if map_metric is None:
        return []
    name = f"{map_metric}.unexpected_index_list"
    result_format = {
        "result_format": "SUMMARY",
        "unexpected_index_column_names": list(keys),
        "exclude_unexpected_values": True,
        "partial_unexpected_count": most,
    }
    kwargs = get_metric_kwargs(name, configuration, {"result_format": result_format})
    metric = MetricConfiguration(name, kwargs["metric_domain_kwargs"], kwargs["metric_value_kwargs"])
    calculator = MetricsCalculator(execution_engine=engine, show_progress_bars=False)
    found, failed = calculator.compute_metrics([metric])
    if failed:
        raise GreatExpectationsError(str(next(iter(failed.values()))["exception_info"].exception_message))
    # Without the values it has one dictionary of lists.
    return [
        dict(zip(rows, values, strict=True)) for rows in found[metric.id] for values in zip(*rows.values(), strict=True)
    ]


def _place(metric: Any) -> tuple[str, str, str]:
    """Return what metrics are sorted by: Great Expectations hands them over as a set, in another order every time."""
    domain = sorted(
        (key, str(value)) for key, value in _stated(metric.metric_domain_kwargs).items() if key != "batch_id"
    )
    return metric.metric_name, str(domain), str(sorted(metric.metric_value_kwargs.items(), key=str))


def _is_free(name: str) -> bool:
    return name in _FREE_NAMES or name.endswith(_FREE_SUFFIXES)


def _is_idle(metric: Any) -> bool:
    """Return whether a metric stands for failing values of which nobody wants to see any."""
    wanted = metric.metric_value_kwargs.get("result_format") or {}
    return metric.metric_name.endswith(_VALUES) and wanted.get("partial_unexpected_count") == 0


def _stated(domain: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in domain.items() if value is not None}


def _by_domain(metrics: Sequence[Any]) -> list[list[Any]]:
    """Return metrics of columns, those of the same rows together."""
    found: dict[Any, list[Any]] = {}
    for metric in metrics:
        rows = {key: value for key, value in _stated(metric.metric_domain_kwargs).items() if key != "column"}
        found.setdefault(IDDict(rows).to_id(), []).append(metric)
    return list(found.values())
