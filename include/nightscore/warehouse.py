"""BigQuery as nightscore uses it: jobs that can be submitted twice and run once, and errors told apart.

A job's id is derived from the run and the step. A process that crashed after submitting finds the job instead of
running it twice; a job that failed for a passing reason is followed by the next attempt's id.
"""

import contextlib
import datetime as dt
import functools
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nightscore.errors import ConfigurationError, TransientError, near_miss, shorten
from nightscore.settings import Settings

if TYPE_CHECKING:
    from google.cloud import bigquery
    from google.cloud.bigquery_storage_v1 import BigQueryReadClient

MOST_ATTEMPTS = 100
MOST_CONFLICTS = 8
PATIENCE = 60.0  # seconds for which a server that does not answer is asked again

# https://cloud.google.com/bigquery/docs/error-messages: the reasons for which BigQuery itself advises a retry.
_PASSING_REASONS = {
    "backendError",
    "internalError",
    "jobBackendError",
    "jobInternalError",
    "jobRateLimitExceeded",
    "quotaExceeded",
    "rateLimitExceeded",
    "stopped",
    "tableUnavailable",
    "timeout",
}

# What statements that change the same table at the same time end with. BigQuery gives the first the reason of a syntax
# error, and the second, which more than twenty of them get, the reason of a query that is too large.
_CONFLICTS = ("Could not serialize access", "Too many DML statements outstanding")

# Reasons that come with the status 500 from some methods, and yet are the caller's to mend.
_FINAL_REASONS = {
    "bytesBilledLimitExceeded",
    "invalid",
    "invalidQuery",
    "notFound",
    "accessDenied",
    "resourcesExceeded",
}


class WarehouseError(TransientError):
    """BigQuery failed or could not be reached."""

    def __init__(self, doing: str, cause: object) -> None:
        super().__init__(f"BigQuery failed while {doing}: {shorten(cause, 600)}")


class ConflictingStatementError(WarehouseError):
    """Another statement changed the same table at the same time; BigQuery gave up on this one."""


class StatementError(ConfigurationError):
    """BigQuery refused a statement that a retry would only repeat."""

    def __init__(self, doing: str, cause: object) -> None:
        self.cause = shorten(cause, 600)
        super().__init__(f"BigQuery refused to go on while {doing}: {self.cause}")


class DatasetError(ConfigurationError):
    """A dataset is missing and could not be created."""

    def __init__(self, dataset: str, location: str, cause: str) -> None:
        project, name = dataset.rsplit(".", 1)
        why = re.sub(r"^[A-Z]+ https?://\S+: ", "", cause).rstrip(".")
        super().__init__(
            f"There is no dataset {dataset}, and it could not be created: {why}. Create it "
            f"(`bq mk --location={location} --dataset {project}:{name}`), or grant bigquery.datasets.create on the "
            "project."
        )


class TableNotFoundError(ConfigurationError):
    """A table that should be there is not."""

    def __init__(self, table: str, near: Sequence[str]) -> None:
        known = [name.rsplit(".", 1)[-1] for name in near]
        super().__init__(f"There is no table {table} in BigQuery. {near_miss(table.rsplit('.', 1)[-1], known)}")


@dataclass(frozen=True)
class Column:
    """A column of a table or query: name, GoogleSQL type, mode NULLABLE / REQUIRED / REPEATED."""

    name: str
    type: str
    mode: str = "NULLABLE"
    description: str = ""
    fields: tuple["Column", ...] = ()

    @classmethod
    def from_api(cls, field: "bigquery.SchemaField") -> "Column":
        """Return the column that the client's own form describes."""
        return cls(
            name=field.name,
            type=_GOOGLESQL.get(field.field_type, field.field_type),
            mode=field.mode,
            description=field.description or "",
            fields=tuple(cls.from_api(inner) for inner in field.fields),
        )

    def to_api(self) -> "bigquery.SchemaField":
        """Return the client's own form of the column."""
        from google.cloud import bigquery

        return bigquery.SchemaField(
            self.name,
            self.type,
            mode=self.mode,
            description=self.description,
            fields=[field.to_api() for field in self.fields],
        )


@dataclass(frozen=True)
class Estimate:
    """What a dry run says of a query: its columns, the bytes it would bill and the tables it reads."""

    columns: tuple[Column, ...]
    bytes: int
    tables: tuple[str, ...]


# The API's legacy names of types, in words that GoogleSQL takes.
_GOOGLESQL = {"INTEGER": "INT64", "FLOAT": "FLOAT64", "BOOLEAN": "BOOL", "RECORD": "STRUCT"}


class Warehouse:
    """One project's BigQuery.

    Attributes:
        queries: how many queries were sent through `query`.
        bytes_processed: the bytes that they processed.
    """

    def __init__(
        self, config: Settings, client: "bigquery.Client", reader: "Callable[[], BigQueryReadClient] | None" = None
    ) -> None:
        self.config = config
        self.client = client
        self._reader = reader
        self.queries = 0
        self.bytes_processed = 0

    @property
    def reader(self) -> "BigQueryReadClient":
        """The Storage Read API client."""
        if self._reader is None:
            raise ConfigurationError("This warehouse was opened without the Storage Read API.")
        return self._reader()

    def full_name(self, table: str) -> str:
        """Return `project.dataset.table`."""
        return table if table.count(".") > 1 else f"{self.config.project}.{table}"

    def quoted(self, table: str) -> str:
        """Return the table's full name as GoogleSQL takes it.

        Raises:
            ConfigurationError: the name holds what a table's name cannot, a backtick or a $partition for example.
        """
        name = self.full_name(table)
        if not re.fullmatch(r"[A-Za-z0-9_.:-]+", name):
            raise ConfigurationError(f"{shorten(table)!r} is not the name of a table.")
        return f"`{name}`"

    def staging_table(self, name: str) -> str:
        """Return the full name of a run-scoped table."""
        return f"{self.config.project}.{self.config.staging_dataset}.{name}"

    def query(
        self,
        sql: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        doing: str,
        job_key: str | None = None,
        labels: Mapping[str, str] | None = None,
        max_bytes_billed: int | None = None,
    ) -> "QueryResult":
        """Run a statement and wait for it.

        Args:
            sql: GoogleSQL with named parameters.
            parameters: values of the parameters; their GoogleSQL types follow from their Python types.
            doing: what this is for, as the words after "while" in an error.
            job_key: makes the statement one and the same job however often it is submitted; None: always a new job.
            labels: labels of the job.
            max_bytes_billed: above this many bytes BigQuery refuses to run it.

        Raises:
            WarehouseError: BigQuery failed; a retry may help.
            StatementError: BigQuery refused; a retry will not help.
        """
        from google.cloud import bigquery

        config = bigquery.QueryJobConfig(
            query_parameters=[_parameter(name, value) for name, value in (parameters or {}).items()],
            labels=dict(labels or {}),
            use_query_cache=job_key is None,
        )
        if max_bytes_billed is not None:  # the client would send None as the text "None"
            config.maximum_bytes_billed = max_bytes_billed
        started = time.monotonic()
        job, rows = self._once(
            doing,
            job_key,
            lambda job_id: self.client.query(sql, job_config=config, job_id=job_id, job_retry=None, retry=self.retry),
        )
        with translated(doing):
            found = [dict(row.items()) for row in rows]
        self.queries += 1
        self.bytes_processed += int(job.total_bytes_processed or 0)
        return QueryResult(
            job_id=job.job_id,
            rows=found,
            bytes_processed=int(job.total_bytes_processed or 0),
            affected_rows=job.num_dml_affected_rows,
            started_at=job.started or job.created,
            ended_at=job.ended or job.started or job.created,
            seconds=time.monotonic() - started,
        )

    def load(
        self,
        uris: Sequence[str],
        table: str,
        columns: Sequence[Column],
        *,
        doing: str,
        job_key: str,
        expires: dt.datetime,
        labels: Mapping[str, str] | None = None,
    ) -> int:
        """Load Parquet objects into a table, replacing what it held; return the number of rows loaded.

        A load of the same `job_key` that is under way is waited for, and then done once more.
        """
        from google.cloud import bigquery

        schema = [column.to_api() for column in columns]
        config = bigquery.LoadJobConfig(
            source_format=bigquery.SourceFormat.PARQUET,
            write_disposition=bigquery.WriteDisposition.WRITE_TRUNCATE,
            schema=schema,
            labels=dict(labels or {}),
            parquet_options=_list_inference(),
        )
        reference = bigquery.Table(table, schema=schema)
        reference.expires = expires
        with translated(doing):
            self.client.create_table(reference, exists_ok=True)
        job, _ = self._once(
            doing,
            job_key,
            lambda job_id: self.client.load_table_from_uri(list(uris), table, job_id=job_id, job_config=config),
        )
        with translated(doing):
            reference.expires = expires  # truncating may have taken it away
            self.client.update_table(reference, ["expires"])
        return int(job.output_rows or 0)

    def estimate(self, sql: str, parameters: Mapping[str, Any] | None = None, *, doing: str) -> Estimate:
        """Dry-run a query: nothing is read and nothing is billed."""
        from google.cloud import bigquery

        config = bigquery.QueryJobConfig(
            query_parameters=[_parameter(name, value) for name, value in (parameters or {}).items()],
            dry_run=True,
            use_query_cache=False,
        )
        with translated(doing):
            job = self.client.query(sql, job_config=config, job_retry=None, retry=self.retry)
            return Estimate(
                columns=tuple(Column.from_api(field) for field in job.schema or ()),
                bytes=int(job.total_bytes_processed or 0),
                tables=tuple(f"{t.project}.{t.dataset_id}.{t.table_id}" for t in job.referenced_tables or ()),
            )

    def find_table(self, table: str) -> "bigquery.Table | None":
        """Return a table's metadata, or None when there is no such table."""
        from google.api_core.exceptions import NotFound

        with translated(f"looking up {table}"):
            try:
                return self.client.get_table(self.full_name(table), retry=self.retry)
            except NotFound:
                return None

    def require_table(self, table: str) -> "bigquery.Table":
        """Return a table's metadata.

        Raises:
            TableNotFoundError: there is none; names the nearest.
        """
        found = self.find_table(table)
        if found is None:
            raise TableNotFoundError(self.full_name(table), self._neighbours(table))
        return found

    def columns(self, table: str) -> tuple[Column, ...]:
        """Return a table's columns."""
        return tuple(Column.from_api(field) for field in self.require_table(table).schema)

    def create_dataset(self, name: str, description: str) -> None:
        """Create a dataset where there is none; one that is there is not asked for, which takes a permission less.

        Raises:
            DatasetError: there is none, and it could not be created.
        """
        from google.cloud import bigquery

        full = name if "." in name else f"{self.config.project}.{name}"
        if self.find_dataset(full) is not None:
            return
        dataset = bigquery.Dataset(full)
        dataset.location = self.config.location
        dataset.description = description
        try:
            with translated(f"creating the dataset {name}"):
                self.client.create_dataset(dataset, exists_ok=True, retry=self.retry)
        except StatementError as error:
            raise DatasetError(full, self.config.location, error.cause) from error

    def find_dataset(self, name: str) -> "bigquery.Dataset | None":
        """Return a dataset's metadata, or None when there is no such dataset."""
        from google.api_core.exceptions import NotFound

        with translated(f"looking up the dataset {name}"):
            try:
                return self.client.get_dataset(name, retry=self.retry)
            except NotFound:
                return None

    def await_jobs(self, job_key: str, *, doing: str) -> None:
        """Wait until no job of a key runs any more, however it ends."""
        from google.api_core.exceptions import GoogleAPICallError, NotFound

        for attempt in range(MOST_ATTEMPTS):
            with translated(doing):
                try:
                    job = self.client.get_job(f"{job_key}_{attempt}", retry=self.retry)
                except NotFound:
                    return
            if job.state != "DONE":
                with contextlib.suppress(GoogleAPICallError):
                    job.result(retry=self.retry)

    def _neighbours(self, table: str) -> list[str]:
        from google.api_core.exceptions import NotFound

        dataset = self.full_name(table).rsplit(".", 1)[0]
        with translated(f"listing {dataset}"):
            try:
                return [f"{dataset}.{item.table_id}" for item in self.client.list_tables(dataset, max_results=1000)]
            except NotFound:
                return []

    def _once(self, doing: str, job_key: str | None, submit: Callable[[str | None], Any]) -> tuple[Any, Any]:
        """Submit a job under the first id of its key that is not spent, and wait for it.

        An id is spent once its job has ended, well or not: what the statements of a run do may be done twice, and a
        fault that was mended since must not be answered by the error of an earlier attempt. A job that is still
        running was submitted by a process that crashed, or that is at work beside this one; it is waited for.
        """
        from google.api_core.exceptions import Conflict

        for attempt in range(MOST_ATTEMPTS):
            job_id = None if job_key is None else f"{job_key}_{attempt}"
            with translated(doing):
                try:
                    job = submit(job_id)
                except Conflict:
                    job = self.client.get_job(str(job_id), retry=self.retry)
                    if job.state == "DONE":
                        continue
            try:
                with translated(doing):
                    return job, job.result(retry=self.retry)
            except ConflictingStatementError:
                if attempt >= MOST_CONFLICTS:
                    raise
                time.sleep(random.uniform(0.5, 2.0) * (attempt + 1))  # noqa: S311 - apart in time, not in secret
        raise WarehouseError(doing, f"{MOST_ATTEMPTS} attempts were made before")

    @functools.cached_property
    def retry(self) -> Any:
        """How the client's calls are repeated: not for the client's own ten minutes."""
        from google.cloud.bigquery.retry import DEFAULT_RETRY

        return DEFAULT_RETRY.with_timeout(PATIENCE)


@dataclass(frozen=True)
class QueryResult:
    """What a statement gave: rows as dictionaries, bytes processed, rows changed, when it ran, seconds waited."""

    job_id: str
    rows: list[dict[str, Any]]
    bytes_processed: int
    affected_rows: int | None
    started_at: dt.datetime
    ended_at: dt.datetime
    seconds: float


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn what Google's clients raise into `WarehouseError` or `StatementError`."""
    import requests
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError, TransportError

    try:
        yield
    except exceptions.GoogleAPICallError as error:
        reasons = {str(item.get("reason")) for item in (error.errors or ()) if isinstance(item, Mapping)}
        passing = reasons & _PASSING_REASONS or (
            isinstance(error, (exceptions.ServerError, exceptions.TooManyRequests)) and not reasons & _FINAL_REASONS
        )
        passing = passing or isinstance(error, (exceptions.Aborted, exceptions.Cancelled))
        if any(conflict in str(error) for conflict in _CONFLICTS):
            raise ConflictingStatementError(doing, error.message or error) from error
        raise (WarehouseError if passing else StatementError)(doing, error.message or error) from error
    except (exceptions.RetryError, requests.RequestException, TransportError, ConnectionError, TimeoutError) as error:
        raise WarehouseError(doing, error) from error
    except GoogleAuthError as error:
        raise (WarehouseError if error.retryable else StatementError)(doing, error) from error


def _list_inference() -> Any:
    from google.cloud.bigquery.format_options import ParquetOptions

    # Without it an ARRAY arrives as STRUCT<list ARRAY<STRUCT<element …>>>.
    options = ParquetOptions()
    options.enable_list_inference = True
    return options


def _parameter(name: str, value: Any) -> Any:
    from google.cloud import bigquery

    if isinstance(value, (list, tuple)):
        kind = _type_of(value[0]) if value else "STRING"
        return bigquery.ArrayQueryParameter(name, kind, list(value))
    return bigquery.ScalarQueryParameter(name, _type_of(value), value)


def _type_of(value: Any) -> str:
    # bool is an int and datetime is a date, so they come first.
    for kind, name in (
        (bool, "BOOL"),
        (int, "INT64"),
        (float, "FLOAT64"),
        (dt.datetime, "TIMESTAMP"),
        (dt.date, "DATE"),
    ):
        if isinstance(value, kind):
            return name
    return "STRING"
