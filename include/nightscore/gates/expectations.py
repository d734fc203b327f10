"""Great Expectations, run inside the warehouse: spec in, suite out, one verdict for every expectation.

Nothing is copied here but the aggregates that Great Expectations computes by SQL. Failing rows are counted, never
listed: what an account holds does not belong in a record or a log.
"""

import functools
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from nightscore.errors import ConfigurationError, listed, near_miss, shorten
from nightscore.spec import Expectation, Spec
from nightscore.warehouse import StatementError, Warehouse, WarehouseError, translated


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

    def sentence(self) -> str:
        """Return the finding as one line."""
        about = f" on {self.column}" if self.column else ""
        failing = f" ({self.failing_rows:,} of {self.rows:,} rows fail)" if self.failing_rows and self.rows else ""
        return f"{self.expectation}{about}: wanted {self.wanted}, seen {self.observed}{failing}"

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as a record holds it."""
        return asdict(self)


def require_expectations(pipeline: str, path: str, expectations: Sequence[Expectation]) -> list[Any]:
    """Return Great Expectations' own objects for the spec's expectations.

    Raises:
        ExpectationError: one does not exist or has wrong arguments; names the near miss.
    """
    _quieten()
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
            fault = next((f for f in error.errors() if f["type"] == "value_error.extra"), error.errors()[0])
            name = ".".join(str(part) for part in fault["loc"])
            hint = ""
            if fault["type"] == "value_error.extra":
                hint = " " + near_miss(name, [field for field in kind.__fields__ if field not in _GX_OWN_FIELDS])
            raise ExpectationError(f"{where}.{name}: {fault['msg']}.{hint}") from error
        except TypeError as error:
            raise ExpectationError(f"{where}: {shorten(error)}") from error
    return built


def unique_keys(spec: Spec) -> Expectation:
    """Return the expectation that no key of the spec stands twice."""
    keys = list(spec.features.keys)
    if len(keys) == 1:
        return Expectation(expect="expect_column_values_to_be_unique", column=keys[0])
    return Expectation(expect="expect_compound_columns_to_be_unique", column_list=keys)


def check_table(
    warehouse: Warehouse,
    table: str,
    pipeline: str,
    path: str,
    *,
    built_in: Sequence[Expectation],
    asked: Sequence[Expectation],
    labels: Mapping[str, str],
    max_bytes_billed: int | None,
) -> list[Verdict]:
    """Check a table or view and return a verdict for each expectation: first the built-in ones, then the spec's.

    Args:
        warehouse: where the table is.
        table: `project.dataset.table`.
        pipeline: the pipeline's name, for messages.
        path: where the spec's expectations stand in it, for messages.
        built_in: expectations that nightscore asks for.
        asked: expectations that the spec asks for.
        labels: labels of the queries.
        max_bytes_billed: above this many bytes BigQuery refuses one of them.

    Raises:
        ExpectationError: an expectation does not exist or cannot be evaluated on this table.
        WarehouseError: the warehouse failed.
    """
    own = require_expectations(pipeline, path, built_in)
    expectations = [*own, *require_expectations(pipeline, path, asked)]
    _quieten()
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    _, dataset, name = table.rsplit(".", 2)
    client = _client_for(warehouse, dataset, labels, max_bytes_billed)
    source = context.data_sources.add_bigquery(
        "warehouse",
        connection_string=f"bigquery://{warehouse.config.project}/{dataset}?user_supplied_client=true",
        # The DB-API opens its own Storage Read client when it is given none, and that one knows no local server.
        kwargs={"connect_args": {"client": client, "bqstorage_client": warehouse.reader}},
    )
    suite = gx.ExpectationSuite(name=f"{pipeline}.{path}", expectations=expectations)
    with _translated(f"checking {name} for {pipeline}"):
        asset = source.add_table_asset(name="rows", table_name=name)
        batch = asset.add_batch_definition_whole_table("all").get_batch()
        result = batch.validate(suite, result_format={"result_format": "BASIC", "partial_unexpected_count": 0})
    # Great Expectations groups its results; the order of the spec is the order people look for.
    by_config = {_key(item.expectation_config): item for item in result.results}
    return [
        _verdict(by_config[_key(expectation.configuration)], built_in=index < len(own))
        for index, expectation in enumerate(expectations)
    ]


_GX_OWN_FIELDS = frozenset(
    {"id", "meta", "notes", "result_format", "description", "catch_exceptions", "rendered_content", "severity"}
    | {"windows", "batch_id"}
)


# Great Expectations keeps what was raised as text only.
_PASSING = re.compile(
    r"\b(429|50[0234]) (GET|POST|PUT)|Connection(Error| aborted| refused| reset)|timed out|Deadline|backendError"
    r"|rateLimitExceeded|Could not serialize access"
)


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    """Turn what stops all of Great Expectations at once, before it checks anything, into an error of ours."""
    from great_expectations.datasource.fluent.interfaces import TestConnectionError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with translated(doing):
            yield
    except (TestConnectionError, SQLAlchemyError) as error:
        raise (WarehouseError if _PASSING.search(str(error)) else StatementError)(doing, error) from error


def _key(configuration: Any) -> str:
    return f"{configuration.type}{sorted((k, repr(v)) for k, v in configuration.kwargs.items() if k != 'batch_id')}"


def _client_for(warehouse: Warehouse, dataset: str, labels: Mapping[str, str], max_bytes_billed: int | None) -> Any:
    from google.cloud import bigquery

    from nightscore.clients import build_bigquery

    config = bigquery.QueryJobConfig(default_dataset=f"{warehouse.config.project}.{dataset}", labels=dict(labels))
    if max_bytes_billed is not None:
        config.maximum_bytes_billed = max_bytes_billed
    client: Any = build_bigquery(warehouse.config)
    client.default_query_job_config = config
    # The DB-API takes the client's own patience: ten minutes for a call, forty for a query.
    client.query_and_wait = functools.partial(client.query_and_wait, retry=warehouse.retry, job_retry=None)
    client.get_table = functools.partial(client.get_table, retry=warehouse.retry)
    return client


def _verdict(item: Any, *, built_in: bool) -> Verdict:
    config = item.expectation_config
    arguments = {k: v for k, v in config.kwargs.items() if k != "batch_id"}
    _require_evaluated(config.type, item.exception_info)
    found = item.result or {}
    rows, failing = found.get("element_count"), found.get("unexpected_count")
    column = arguments.get("column") or arguments.get("column_list") or arguments.get("column_set") or ""
    if "column_A" in arguments:
        column = [arguments["column_A"], arguments["column_B"]]
    return Verdict(
        expectation=config.type,
        column=column if isinstance(column, str) else listed(column),
        severity=str(getattr(config.severity, "value", config.severity) or "critical"),
        passed=bool(item.success),
        observed=_observed(found),
        wanted=_wanted(arguments),
        rows=None if rows is None else int(rows),
        failing_rows=None if failing is None else int(failing),
        built_in=built_in,
    )


def _require_evaluated(name: str, info: Mapping[str, Any] | None) -> None:
    """Raise what kept an expectation from being evaluated; a failure of the server is not a verdict on the data."""
    infos = [info] if info and "raised_exception" in info else list((info or {}).values())
    for found in infos:
        if isinstance(found, Mapping) and found.get("raised_exception"):
            message = shorten(found.get("exception_message"), 400)
            if _PASSING.search(message):
                raise WarehouseError(f"checking {name}", message)
            raise ExpectationError(f"{name} cannot be evaluated: {message}")


def _observed(found: Mapping[str, Any]) -> str:
    if found.get("observed_value") is not None:
        return _figure(found["observed_value"])
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


def _quieten() -> None:
    # Its analytics would call out; importing it after Airflow prints dozens of lines, and it sets its own levels then.
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    for name in ("great_expectations._docs_decorators", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    import great_expectations

    for logger in (great_expectations.__name__, "great_expectations.data_context.types.base"):
        logging.getLogger(logger).setLevel(logging.WARNING)
