"""Great Expectations, run inside the warehouse: spec in, suite out, one verdict for every expectation.

Nothing is copied here but the aggregates that Great Expectations computes by SQL. Failing rows are counted, never
listed: what an account holds does not belong in a record or a log.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nightscore.errors import ConfigurationError, listed, near_miss, shorten
from nightscore.gates import library
from nightscore.gates.data_docs import page_of
from nightscore.gates.metering import Bill, Meter
from nightscore.spec import Expectation, Spec
from nightscore.warehouse import Warehouse

MOST_KEYS = 5  # of failing rows of one expectation
MOST_WITH_KEYS = 20  # expectations whose failing rows are looked for; each is a query

_log = logging.getLogger(__name__)


class ExpectationError(ConfigurationError):
    """An expectation does not exist, or its arguments are wrong."""


@dataclass(frozen=True)
class Verdict:
    """What one expectation found.

    Attributes:
        expectation: its name.
        column: the columns it is about, joined by commas; empty for the whole table.
        severity: `critical` or `warning`.
        passed: whether it holds.
        observed: what was seen, in a few words.
        wanted: what it asks for.
        rows: how many rows it looked at, where it counts rows.
        failing_rows: how many of them fail.
        built_in: whether nightscore asked for it, and not the spec.
        overridden: whether it failed and somebody answers for it.
        failing_keys: keys of some of the rows that fail, column → value; never another column.
    """

    expectation: str
    column: str
    severity: str
    passed: bool
    observed: str
    wanted: str
    rows: int | None = None
    failing_rows: int | None = None
    built_in: bool = False
    overridden: bool = False
    failing_keys: tuple[dict[str, Any], ...] = ()

    def sentence(self) -> str:
        """Return the finding as one line."""
        about = f" on {self.column}" if self.column else ""
        failing = f" ({self.failing_rows:,} of {self.rows:,} rows fail)" if self.failing_rows and self.rows else ""
        return f"{self.expectation}{about}: wanted {self.wanted}, seen {self.observed}{failing}"

    def keys_shown(self) -> str:
        """Return the keys of failing rows as one line, for people and not for logs.

        >>> rows = ({"account_id": 4711}, {"account_id": 4712})
        >>> Verdict("expect_a", "", "critical", False, "", "", failing_keys=rows).keys_shown()
        'account_id=4711, account_id=4712'
        """
        return ", ".join(" ".join(f"{key}={value}" for key, value in row.items()) for row in self.failing_keys)

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as a record holds it."""
        return {**asdict(self), "failing_keys": list(self.failing_keys)}


def require_expectations(pipeline: str, path: str, expectations: Sequence[Expectation]) -> list[Any]:
    """Return Great Expectations' own objects for the spec's expectations.

    Raises:
        ExpectationError: one does not exist or has wrong arguments; names the near miss.
    """
    library.load()
    from great_expectations.exceptions import ExpectationNotFoundError
    from great_expectations.expectations.registry import (
        get_expectation_impl,
        list_registered_expectation_implementations,
    )
    from pydantic.v1 import ValidationError

    built: list[Any] = []
    for index, item in enumerate(expectations):
        where = f"{pipeline}: {path}[{index}].{item.expect}"
        try:
            kind = get_expectation_impl(item.expect)
        except ExpectationNotFoundError as error:
            known = list_registered_expectation_implementations()
            raise ExpectationError(
                f"{pipeline}: {path}[{index}].expect: Great Expectations has no {item.expect!r}. "
                f"{near_miss(item.expect, known)}"
            ) from error
        try:
            built.append(kind(**item.arguments, severity=item.severity))
        except ValidationError as error:
            raise ExpectationError(_fault(where, kind, item.arguments, error.errors())) from error
        except TypeError as error:
            raise ExpectationError(f"{where}: {shorten(error)}") from error
    return built


def expectation_faults(spec: Spec) -> list[ExpectationError]:
    """Return what is wrong with the expectations that the spec asks for, the first fault of each of its lists."""
    found = []
    for path, asked in (("checks.features", spec.checks.features), ("checks.predictions", spec.checks.predictions)):
        try:
            if asked:  # without one, Great Expectations need not be imported
                require_expectations(spec.name, path, asked)
        except ExpectationError as error:
            found.append(error)
    return found


def _fault(where: str, kind: Any, arguments: Mapping[str, Any], faults: Sequence[Mapping[str, Any]]) -> str:
    """Return a sentence about what is wrong with an expectation's arguments: a misspelt one before a missing one."""
    fault = next((item for item in faults if item["type"] == "value_error.extra"), faults[0])
    name = ".".join(str(part) for part in fault["loc"] if part != "__root__")
    where = f"{where}.{name}" if name else where
    if fault["type"] == "value_error.extra":
        known = [field for field in kind.__fields__ if field not in _GX_OWN_FIELDS]
        return f"{where}: unknown argument. {near_miss(name, known)}"
    if fault["type"] == "value_error.missing":
        return f"{where}: is required."
    found = f", found {shorten(repr(arguments[name]))}" if name in arguments else ""
    return f"{where}: {str(fault['msg']).rstrip('.')}{found}."


def unique_keys(spec: Spec) -> Expectation:
    """Return the expectation that no key of the spec stands twice."""
    keys = list(spec.features.keys)
    if len(keys) == 1:
        return Expectation(expect="expect_column_values_to_be_unique", column=keys[0])
    return Expectation(expect="expect_compound_columns_to_be_unique", column_list=keys)


@dataclass(frozen=True)
class Checked:
    """What checking a table gave.

    Attributes:
        verdicts: one for each expectation, first the built-in ones, then the spec's.
        bill: what it asked of the warehouse.
        page: Great Expectations' own page about it, HTML.
    """

    verdicts: tuple[Verdict, ...]
    bill: Bill
    page: str | None


def check_table(
    warehouse: Warehouse,
    table: str,
    pipeline: str,
    path: str,
    *,
    built_in: Sequence[Expectation],
    asked: Sequence[Expectation],
    keys: Sequence[str],
    labels: Mapping[str, str],
    max_bytes_billed: int | None,
) -> Checked:
    """Check a table or view by one suite, one validation definition and one checkpoint.

    Args:
        warehouse: where the table is.
        table: `project.dataset.table`.
        pipeline: the pipeline's name, for messages.
        path: where the spec's expectations stand in it, for messages.
        built_in: expectations that nightscore asks for.
        asked: expectations that the spec asks for.
        keys: the columns that name a row, for the rows that fail.
        labels: labels of the queries.
        max_bytes_billed: above this many bytes BigQuery refuses one of them.

    Raises:
        ExpectationError: an expectation does not exist or cannot be evaluated on this table.
        WarehouseError: the warehouse failed.
    """
    own = require_expectations(pipeline, path, built_in)
    wanted = [*own, *require_expectations(pipeline, path, asked)]
    _, dataset, name = table.rsplit(".", 2)
    meter = Meter(warehouse, dataset, f"checking {name} for {pipeline}", labels, max_bytes_billed)
    source = _source(warehouse, dataset, meter)
    result = _validated(source, name, f"{pipeline}.{path}", wanted)
    if meter.outage is not None:
        raise meter.outage
    # Great Expectations groups its results; the order of the spec is the order people look for.
    by_key = {_key(item.expectation_config): item for item in result.results}
    found = [by_key[_key(expectation.configuration)] for expectation in wanted]
    for item in found:
        _require_evaluated(item.expectation_config.type, item.exception_info)
    failing = _failing_keys(source, found, keys)
    if meter.outage is not None:
        raise meter.outage
    verdicts = tuple(
        # Of equal expectations Great Expectations returns one result; how serious it is, each says for itself.
        _verdict(item, wanted[index].severity, built_in=index < len(own), failing_keys=failing.get(index, ()))
        for index, item in enumerate(found)
    )
    return Checked(verdicts, meter.bill, page_of(result))


def _source(warehouse: Warehouse, dataset: str, meter: Meter) -> Any:
    """Return a data source of Great Expectations in a context that leaves no files behind."""
    gx = library.load()
    from nightscore.gates.engine import NoStore  # and registers the data source

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    context.stores[context.validation_results_store_name] = NoStore()
    return context.data_sources.add_nightscore(
        "warehouse",
        connection_string=f"bigquery://{warehouse.config.project}/{dataset}?user_supplied_client=true",
        # The results are a few rows, and not worth a connection to the Storage Read API.
        kwargs={"connect_args": {"client": meter.client, "prefer_bqstorage_client": False}},
    )


def _validated(source: Any, table: str, name: str, expectations: Sequence[Any]) -> Any:
    """Run the expectations as a checkpoint and return Great Expectations' result."""
    gx = library.load()
    context = source.data_context
    batch = source.add_table_asset(name=table, table_name=table).add_batch_definition_whole_table("all rows")
    distinct = {_key(expectation.configuration): expectation for expectation in expectations}
    suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=list(distinct.values())))
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
    checkpoint = context.checkpoints.add(
        gx.Checkpoint(
            name=name,
            validation_definitions=[definition],
            result_format={"result_format": "BASIC", "partial_unexpected_count": 0},
        )
    )
    [result] = checkpoint.run().run_results.values()
    return result


def _failing_keys(source: Any, found: Sequence[Any], keys: Sequence[str]) -> dict[int, tuple[dict[str, Any], ...]]:
    """Return the keys of some failing rows of the first failed row-wise expectations, by their place."""
    from great_expectations.exceptions import GreatExpectationsError

    from nightscore.gates.engine import failing_keys

    engine = source.get_execution_engine()
    failed = [n for n, item in enumerate(found) if not item.success and (item.result or {}).get("unexpected_count")]
    shown: dict[int, tuple[dict[str, Any], ...]] = {}
    for number in failed[:MOST_WITH_KEYS]:
        try:
            rows = failing_keys(engine, found[number].expectation_config, keys, MOST_KEYS)
        except GreatExpectationsError as error:  # the verdict stands without them
            _log.warning("%s: no keys of failing rows: %s", found[number].expectation_config.type, shorten(error))
            continue
        shown[number] = tuple({key: _jsonable(value) for key, value in row.items()} for row in rows)
    return shown


def _jsonable(value: object) -> object:
    return value if value is None or isinstance(value, (str, int)) else str(value)


_GX_OWN_FIELDS = frozenset(
    {"id", "meta", "notes", "result_format", "description", "catch_exceptions", "rendered_content", "severity"}
    | {"windows", "batch_id"}
)


def _key(configuration: Any) -> str:
    return f"{configuration.type}{sorted((k, repr(v)) for k, v in configuration.kwargs.items() if k != 'batch_id')}"


def _verdict(item: Any, severity: Any, *, built_in: bool, failing_keys: tuple[dict[str, Any], ...]) -> Verdict:
    config = item.expectation_config
    arguments = {k: v for k, v in config.kwargs.items() if k != "batch_id"}
    found = item.result or {}
    rows, failing = found.get("element_count"), found.get("unexpected_count")
    column = arguments.get("column") or arguments.get("column_list") or arguments.get("column_set") or ""
    if "column_A" in arguments:
        column = [arguments["column_A"], arguments["column_B"]]
    return Verdict(
        expectation=config.type,
        column=column if isinstance(column, str) else listed(column),
        severity=str(getattr(severity, "value", severity) or "critical"),
        passed=bool(item.success),
        observed=_observed(found),
        wanted=_wanted(arguments),
        rows=None if rows is None else int(rows),
        failing_rows=None if failing is None else int(failing),
        built_in=built_in,
        failing_keys=failing_keys,
    )


def _require_evaluated(name: str, info: Mapping[str, Any] | None) -> None:
    """Raise what kept an expectation from being evaluated: that is no verdict on the data."""
    infos = [info] if info and "raised_exception" in info else list((info or {}).values())
    for found in infos:
        if isinstance(found, Mapping) and found.get("raised_exception"):
            raise ExpectationError(f"{name} cannot be evaluated: {shorten(found.get('exception_message'), 400)}")


def _observed(found: Mapping[str, Any]) -> str:
    observed = found.get("observed_value")
    if isinstance(observed, (list, set, tuple)):
        return f"{len(observed):,} values"  # which ones is the page's to show; this goes into logs
    if observed is not None:
        return _figure(observed)
    percent = found.get("unexpected_percent")
    if percent is not None:
        return f"{_figure(percent)}% unexpected"
    return "nothing" if not found else shorten(str(found.get("details") or "no figure"))


def _wanted(arguments: Mapping[str, Any]) -> str:
    limits = {k: v for k, v in arguments.items() if not k.startswith("column") and v is not None}
    limits = {k: v for k, v in limits.items() if not (k == "mostly" and v == 1)}
    return ", ".join(f"{key} {_figure(value)}" for key, value in limits.items()) or "all rows"


def _figure(value: object) -> str:
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.6g}"
    return shorten(str(value))
