"""Our BigQuery server: what each patch mends, and every statement that the product relies on.

A probe asserts something that is right on BigQuery. Ours must pass it and the stock server must fail it: when stock
passes, the patch has become unnecessary and the test says so.
"""

import datetime as dt
import hashlib
import io
import os
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.api_core import exceptions as google_errors
from google.cloud import bigquery, storage
from google.cloud.bigquery_storage_v1 import BigQueryReadClient, types

from nightscore import clients
from nightscore.local import bigquery_environment, processes, servers
from nightscore.local.ports import free_ports
from nightscore.local.processes import ProcessId
from nightscore.local.servers import LocalServers
from nightscore.settings import Settings, read_settings

MONDAY, TUESDAY = dt.date(2026, 11, 16), dt.date(2026, 11, 17)
PATCHES = Path(servers.__file__).parent / "bigquery_server" / "patches"
Parameter = bigquery.ScalarQueryParameter

FREEZE = """
CREATE TABLE IF NOT EXISTS snapshot
PARTITION BY RANGE_BUCKET(_shard, GENERATE_ARRAY(0, 8, 1))
OPTIONS(expiration_timestamp = TIMESTAMP '2101-01-01 00:00:00+00')
AS SELECT day, id, x, MOD(id, 8) AS _shard FROM features FOR SYSTEM_TIME AS OF @at WHERE day = @day
"""
PUBLISH = """
MERGE predictions USING staging ON FALSE
WHEN NOT MATCHED BY SOURCE AND day = @day THEN DELETE
WHEN NOT MATCHED THEN INSERT ROW
"""


@dataclass(frozen=True)
class BigQueryConnection:
    """The real clients, connected to one local BigQuery."""

    settings: Settings

    @cached_property
    def bigquery(self) -> bigquery.Client:
        return clients.build_bigquery(self.settings)

    @cached_property
    def reader(self) -> BigQueryReadClient:
        return clients.build_bigquery_storage(self.settings)

    @cached_property
    def storage(self) -> storage.Client:
        return clients.build_storage(self.settings)


class BigQueryProcess:
    """A BigQuery server of a test's own, which may be killed and started again on the same data."""

    def __init__(
        self,
        folder: Path,
        environment: Path,
        others: LocalServers,
        *flags: str,
        variables: dict[str, str] | None = None,
    ) -> None:
        self.log = folder / "log"
        rest, grpc = free_ports(str(folder), 2)
        self.address = others.environment() | {
            "BIGQUERY_EMULATOR_HOST": f"http://127.0.0.1:{rest}",
            "BIGQUERY_STORAGE_EMULATOR_HOST": f"127.0.0.1:{grpc}",
        }
        self._rest, self._grpc, self._others = rest, grpc, others
        self._command = [
            *(str(environment / "bin" / "python"), "-P", "-m", "bigquery_server", *flags),
            *("--port", str(rest), "--grpc-port", str(grpc), "--data-dir", str(folder / "data")),
        ]
        self._variables = {
            "HOME": str(bigquery_environment.home(environment)),
            "PYTHONPATH": str(Path(servers.__file__).parent),
            "STORAGE_EMULATOR_HOST": others.storage_url,
        } | (variables or {})
        self._process: ProcessId | None = None

    def start(self) -> BigQueryConnection:
        self._process = processes.spawn(self._command, self._variables, self.log)
        while not servers._get(f"http://127.0.0.1:{self._rest}/bigquery/v2/projects"):
            assert processes.is_running(self._process), self.log.read_text()[-3000:]
        return BigQueryConnection(read_settings(self.address))

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process and processes.is_running(self._process):
            os.kill(self._process.pid, signal.SIGKILL)
            while processes.is_running(self._process):
                time.sleep(processes.POLL_SECONDS)


class Warehouse:
    """A dataset on one server, with the shortest way to say what the probes say."""

    def __init__(self, connection: BigQueryConnection) -> None:
        self.client = connection.bigquery
        self.reader = connection.reader
        self.storage = connection.storage
        self.settings = connection.settings
        self.dataset = f"test_{uuid.uuid4().hex[:8]}"
        self.client.create_dataset(self.dataset)

    def name(self, table: str) -> str:
        return f"{self.settings.project}.{self.dataset}.{table}"

    def run(self, sql: str, *parameters: Parameter, **options: object) -> bigquery.QueryJob:
        """Run a statement to its end; the dataset is the default one."""
        job = self.submit(sql, *parameters, **options)
        job.result()
        return job

    def submit(
        self, sql: str, *parameters: Parameter, job_id: str | None = None, **options: object
    ) -> bigquery.QueryJob:
        config = bigquery.QueryJobConfig(
            default_dataset=f"{self.settings.project}.{self.dataset}", query_parameters=parameters, **options
        )
        return self.client.query(sql, job_config=config, job_id=job_id, job_retry=None)

    def rows(self, sql: str, *parameters: Parameter) -> list[tuple[object, ...]]:
        return [tuple(row.values()) for row in self.run(sql, *parameters).result()]

    def features(self, rows: int = 1000) -> str:
        """Create a table with `rows` of Monday and ten of Tuesday."""
        self.run(
            "CREATE TABLE features AS "
            f"SELECT DATE '{MONDAY}' AS day, id, id * 1.5 AS x FROM UNNEST(GENERATE_ARRAY(1, {rows})) AS id "
            f"UNION ALL SELECT DATE '{TUESDAY}', id, 0.0 FROM UNNEST(GENERATE_ARRAY(1, 10)) AS id"
        )
        return "features"

    def session(self, table: str, **options: object) -> types.ReadSession:
        path = f"projects/{self.settings.project}/datasets/{self.dataset}/tables/{table}"
        session = types.ReadSession(table=path, data_format=types.DataFormat.ARROW, read_options=options)
        parent = f"projects/{self.settings.project}"
        return self.reader.create_read_session(parent=parent, read_session=session, max_stream_count=1)

    def read(self, stream: types.ReadStream, offset: int = 0) -> pa.Table:
        return self.reader.read_rows(stream.name, offset=offset).to_arrow()

    def put_parquet(self, name: str, table: pa.Table) -> str:
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        path = f"{self.dataset}/{name}"
        self.storage.bucket(self.settings.bucket).blob(path).upload_from_string(buffer.getvalue())
        return f"gs://{self.settings.bucket}/{path}"

    def load(self, uris: str | list[str], table: str, **options: object) -> bigquery.LoadJob:
        config = bigquery.LoadJobConfig(source_format="PARQUET", **options)
        job = self.client.load_table_from_uri(uris, self.name(table), job_config=config)
        job.result()
        return job

    def table_ids(self) -> set[str]:
        return {table.table_id for table in self.client.list_tables(self.dataset)}


@pytest.fixture(scope="module")
def ours(settings: Settings) -> BigQueryConnection:
    """The patched server."""
    return BigQueryConnection(settings)


@pytest.fixture(scope="module")
def stock(
    tmp_path_factory: pytest.TempPathFactory, bigquery_environment_path: Path, local_servers: LocalServers
) -> Iterator[BigQueryConnection]:
    """The server as published, but for the offline extensions without which it does not start."""
    server = BigQueryProcess(tmp_path_factory.mktemp("stock"), bigquery_environment_path, local_servers, "--stock")
    try:
        yield server.start()
    finally:
        server.kill()


@pytest.fixture
def warehouse(ours: BigQueryConnection) -> Iterator[Warehouse]:
    warehouse = Warehouse(ours)
    yield warehouse
    warehouse.client.delete_dataset(warehouse.dataset, delete_contents=True)


# ------------------------------------------------------------------------------------------- what each patch mends


def session_sees_rows_deleted_after_it_was_created(on: Warehouse) -> None:
    stream = on.session(on.features()).streams[0]
    on.run("DELETE FROM features WHERE id > 100")
    assert on.read(stream).num_rows == 1010


def session_sees_one_version_of_a_replaced_table(on: Warehouse) -> None:
    stream = on.session(on.features()).streams[0]
    on.run("CREATE OR REPLACE TABLE features AS SELECT DATE '2026-01-01' AS day, 1 AS id, 1.0 AS x")
    assert on.read(stream).num_rows == 1010


def messages_are_small(on: Warehouse) -> None:
    on.features(rows=400_000)
    stream = on.session("features").streams[0]
    sizes = [len(m.arrow_record_batch.serialized_record_batch) for m in on.reader.read_rows(stream.name)]
    assert sum(sizes) > 8_000_000
    assert max(sizes) < 4_000_000


def unread_stream_is_read_from_an_offset(on: Warehouse) -> None:
    on.features(rows=20_000)
    whole = on.read(on.session("features").streams[0])
    fresh = on.session("features").streams[0]
    assert on.read(fresh, offset=15_000).equals(whole.slice(15_000))


def offset_beyond_the_stream_is_out_of_range(on: Warehouse) -> None:
    stream = on.session(on.features()).streams[0]
    with pytest.raises(google_errors.OutOfRange, match="1010 rows"):
        on.read(stream, offset=1011)


def dry_run_reports_bytes(on: Warehouse) -> None:
    on.features()
    assert on.submit("SELECT id FROM features", dry_run=True).total_bytes_processed > 0


def job_reports_bytes(on: Warehouse) -> None:
    on.features()
    job = on.client.get_job(on.run("SELECT id FROM features").job_id)
    assert job.total_bytes_processed > 0
    assert job.total_bytes_billed == job.total_bytes_processed


def query_reports_bytes(on: Warehouse) -> None:
    on.features()
    sql = f"SELECT id FROM {on.dataset}.features"
    assert on.client.query_and_wait(sql).total_bytes_processed > 0


def byte_limit_refuses(on: Warehouse) -> None:
    on.features()
    with pytest.raises(google_errors.GoogleAPICallError) as refused:
        on.run("CREATE TABLE copied AS SELECT * FROM features", maximum_bytes_billed=100)
    # By reason, not by class: on BigQuery too the client makes an InternalServerError (500) of it.
    assert refused.value.errors[0]["reason"] == "bytesBilledLimitExceeded"
    assert "copied" not in on.table_ids()


def dry_run_of_a_publishing_merge(on: Warehouse) -> None:
    publishable(on)
    estimate = on.submit(PUBLISH, Parameter("day", "DATE", MONDAY), dry_run=True)
    assert estimate.statement_type == "MERGE"
    assert {table.table_id for table in estimate.referenced_tables} == {"predictions", "staging"}


def publishing_merge_under_a_byte_limit(on: Warehouse) -> None:
    publishable(on)
    with pytest.raises(google_errors.GoogleAPICallError, match="exceeded limit for bytes billed"):
        on.run(PUBLISH, Parameter("day", "DATE", MONDAY), maximum_bytes_billed=1)


def range_partitioning_is_described(on: Warehouse) -> None:
    on.run("CREATE TABLE t PARTITION BY RANGE_BUCKET(_shard, GENERATE_ARRAY(0, 8, 1)) AS SELECT 1 AS _shard")
    table = on.client.get_table(on.name("t"))
    assert table.time_partitioning is None
    assert table.range_partitioning == bigquery.RangePartitioning(
        field="_shard", range_=bigquery.PartitionRange(start=0, end=8, interval=1)
    )


def modified_follows_the_rows_of_a_declared_table(on: Warehouse) -> None:
    on.features()
    modified_follows_the_rows(on, "features")


def modified_follows_the_rows_of_a_loaded_table(on: Warehouse) -> None:
    uri = on.put_parquet("a.parquet", pa.table({"id": [2, 3]}))
    on.load(uri, "loaded")
    modified_follows_the_rows(on, "loaded")


def modified_follows_the_rows(on: Warehouse, name: str) -> None:
    def modified() -> dt.datetime:
        return on.client.get_table(on.name(name)).modified

    created = on.client.get_table(on.name(name)).created
    before = modified()
    assert created <= before
    on.run("CREATE TABLE another AS SELECT 1 AS id")
    on.run(f"SELECT COUNT(*) FROM {name}")
    assert modified() == before
    on.run(f"INSERT INTO {name} (id) VALUES (1)")
    inserted = modified()
    on.run(f"DELETE FROM {name} WHERE id = 2")
    deleted = modified()
    assert before < inserted < deleted
    on.run(f"DELETE FROM {name} WHERE id = 3")
    assert deleted < modified()
    assert on.client.get_table(on.name(name)).created == created


def query_that_is_sent_again_is_answered_again(on: Warehouse) -> None:
    on.run("CREATE TABLE counted AS SELECT 0 AS n")
    path = f"/projects/{on.settings.project}/queries"
    statement = f"INSERT INTO `{on.name('counted')}` (n) VALUES (1)"
    for sql in (statement, f"SELECT COUNT(*) AS n FROM `{on.name('counted')}`"):
        request = {"query": sql, "useLegacySql": False, "requestId": uuid.uuid4().hex}
        answers = [on.client._connection.api_request(method="POST", path=path, data=request) for _ in range(2)]
        assert [answer["jobComplete"] for answer in answers] == [True, True]
    assert [answer["rows"] for answer in answers] == [[{"f": [{"v": "2"}]}]] * 2


def load_into_a_partition_decorator_is_refused(on: Warehouse) -> None:
    on.features()
    uri = on.put_parquet("a.parquet", pa.table({"id": [1]}))
    with pytest.raises(google_errors.BadRequest, match=r"partition decorator \$20261116 is not supported"):
        on.load(uri, "features$20261116", write_disposition="WRITE_TRUNCATE")
    assert on.table_ids() == {"features"}


def query_into_a_partition_decorator_is_refused(on: Warehouse) -> None:
    on.features()
    with pytest.raises(google_errors.BadRequest, match=r"partition decorator \$20261116 is not supported"):
        on.run("SELECT 1 AS id", destination=on.name("features$20261116"))
    assert on.table_ids() == {"features"}


def copy_from_a_partition_decorator_is_refused(on: Warehouse) -> None:
    on.features()
    with pytest.raises(google_errors.BadRequest, match=r"partition decorator \$20261116 is not supported"):
        on.client.copy_table(on.name("features$20261116"), on.name("copied")).result()


PROBES: dict[str, list[Callable[[Warehouse], None]]] = {
    "pinned_sessions": [
        session_sees_rows_deleted_after_it_was_created,
        session_sees_one_version_of_a_replaced_table,
    ],
    "small_read_messages": [
        messages_are_small,
        unread_stream_is_read_from_an_offset,
        offset_beyond_the_stream_is_out_of_range,
    ],
    "bytes_processed": [dry_run_reports_bytes, job_reports_bytes, query_reports_bytes, byte_limit_refuses],
    "merge_dry_runs": [dry_run_of_a_publishing_merge, publishing_merge_under_a_byte_limit],
    "range_partitions": [range_partitioning_is_described],
    "modified_time": [modified_follows_the_rows_of_a_declared_table, modified_follows_the_rows_of_a_loaded_table],
    "request_ids": [query_that_is_sent_again_is_answered_again],
    "partition_decorators": [
        load_into_a_partition_decorator_is_refused,
        query_into_a_partition_decorator_is_refused,
        copy_from_a_partition_decorator_is_refused,
    ],
}
TESTED_BELOW = {"bundled_extensions", "interrupted_jobs"}
FOR_SPEED = {"single_lookups"}  # nothing here would work if it looked up something else; benchmarks/ has its figure


@pytest.mark.parametrize(
    "probe",
    [pytest.param(probe, id=f"{patch}-{probe.__name__}") for patch, probes in PROBES.items() for probe in probes],
)
def test_a_patch_mends_what_stock_gets_wrong(
    probe: Callable[[Warehouse], None], ours: BigQueryConnection, stock: BigQueryConnection
) -> None:
    probe(Warehouse(ours))
    try:
        probe(Warehouse(stock))
    except (AssertionError, pytest.fail.Exception, google_errors.GoogleAPICallError):
        return
    pytest.fail("The stock server does this right now: the patch, or this part of it, can go.")


def test_every_patch_has_a_probe() -> None:
    patches = {path.stem for path in PATCHES.glob("*.py")} - {"__init__"}
    assert patches == PROBES.keys() | TESTED_BELOW | FOR_SPEED


def test_it_starts_without_network_and_with_an_empty_home(
    tmp_path: Path, bigquery_environment_path: Path, local_servers: LocalServers
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    offline = {"HOME": str(home), "HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    unpatched = subprocess.run(
        [
            bigquery_environment_path / "bin" / "python",
            "-c",
            "import duckdb; duckdb.connect().execute('LOAD ducklake')",
        ],
        env=offline,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ducklake.duckdb_extension" in unpatched.stderr, "DuckDB needs no file for this now: the patch can go."
    server = BigQueryProcess(tmp_path, bigquery_environment_path, local_servers, variables=offline)
    try:
        assert Warehouse(server.start()).rows("SELECT 1") == [(1,)]
    finally:
        server.kill()


@pytest.mark.parametrize("flags", [(), ("--stock",)], ids=["ours", "stock"])
def test_a_kill_loses_no_acknowledged_load_and_leaves_no_job_running(
    flags: tuple[str, ...], tmp_path: Path, bigquery_environment_path: Path, local_servers: LocalServers
) -> None:
    server = BigQueryProcess(tmp_path, bigquery_environment_path, local_servers, *flags)
    endless = "SELECT COUNT(*) FROM UNNEST(GENERATE_ARRAY(1, 100000)) AS a, UNNEST(GENERATE_ARRAY(1, 100000)) AS b"
    try:
        on = Warehouse(server.start())
        for part in range(5):
            uri = on.put_parquet(f"part-{part}.parquet", pa.table({"id": range(part * 1000, part * 1000 + 1000)}))
            on.load(uri, "loaded")
        assert on.submit(f"{endless} WHERE MOD(a * b, 7) = 3", job_id="interrupted").state == "RUNNING"
        server.kill()
        server.start()  # the same ports: the clients of `on` are still good
        assert on.rows("SELECT COUNT(*), COUNT(DISTINCT id) FROM loaded") == [(5000, 5000)]
        job = on.client.get_job("interrupted")
    finally:
        server.kill()
    if flags:
        assert job.state == "RUNNING", "The stock server fails interrupted jobs: the patch can go."
        return
    assert job.state == "DONE"
    assert job.error_result["reason"] == "stopped"
    assert "the local server stopped while it was running" in job.error_result["message"]


def test_another_version_of_the_server_is_refused(bigquery_environment_path: Path) -> None:
    pretend = "import importlib.metadata as m, runpy; m.version = lambda name: '0.5.0'; "
    ended = subprocess.run(
        [
            bigquery_environment_path / "bin" / "python",
            "-c",
            pretend + "runpy.run_module('bigquery_server', run_name='__main__')",
        ],
        env={"PYTHONPATH": str(PATCHES.parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "The patches fit local-bigquery 0.4.0, but 0.5.0 is installed" in ended.stderr


def test_the_frozen_requirements_are_complete(bigquery_environment_path: Path) -> None:
    checked = subprocess.run(
        [*bigquery_environment._find_uv(), "pip", "check", "--python", bigquery_environment_path / "bin" / "python"],
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line for line in checked.stderr.splitlines() if " requires " in line]
    assert len(complaints) == 1, checked.stderr
    assert re.search("local-bigquery.* requires .*duckdb>=2", complaints[0])


# --------------------------------------------------------------------------------- the statements the product relies on


def publishable(on: Warehouse) -> None:
    """Create predictions of two days, and a staging table that replaces Monday's by three rows."""
    on.features()
    on.run("CREATE TABLE predictions (day DATE NOT NULL, id INT64, x FLOAT64) PARTITION BY day")
    on.run("INSERT INTO predictions SELECT * FROM features")
    on.run(f"CREATE TABLE staging AS SELECT DATE '{MONDAY}' AS day, id, 7.5 AS x FROM UNNEST([1, 2, 3]) AS id")


def test_freezing_reads_the_past_once(warehouse: Warehouse) -> None:
    warehouse.features()
    at = warehouse.rows("SELECT CURRENT_TIMESTAMP()")[0][0]
    warehouse.run("DELETE FROM features WHERE id > 10")
    parameters = (Parameter("at", "TIMESTAMP", at), Parameter("day", "DATE", MONDAY))

    estimate = warehouse.submit(FREEZE, *parameters, dry_run=True)
    assert estimate.total_bytes_processed > 0
    assert [table.table_id for table in estimate.referenced_tables] == ["features"]
    assert "snapshot" not in warehouse.table_ids()

    assert warehouse.run(FREEZE, *parameters, maximum_bytes_billed=10**9).ddl_operation_performed == "CREATE"
    frozen = warehouse.client.get_table(warehouse.name("snapshot"))
    assert frozen.num_rows == 1000
    assert frozen.expires == dt.datetime(2101, 1, 1, tzinfo=dt.UTC)
    assert frozen.range_partitioning.field == "_shard"

    assert warehouse.run(FREEZE, *parameters).ddl_operation_performed == "SKIP"
    again = warehouse.client.get_table(warehouse.name("snapshot"))
    assert (again.num_rows, again.modified) == (1000, frozen.modified)


def test_publishing_replaces_one_day(warehouse: Warehouse) -> None:
    publishable(warehouse)
    for attempt_deletes in (1000, 3):  # the second attempt replaces what the first one wrote
        job = warehouse.run(PUBLISH, Parameter("day", "DATE", MONDAY), maximum_bytes_billed=10**9)
        assert job.dml_stats.deleted_row_count == attempt_deletes
        assert job.dml_stats.inserted_row_count == 3
    assert warehouse.rows("SELECT day, COUNT(*), SUM(x) FROM predictions GROUP BY day ORDER BY day") == [
        (MONDAY, 3, 22.5),
        (TUESDAY, 10, 0.0),
    ]


def test_a_failing_publication_changes_nothing(warehouse: Warehouse) -> None:
    publishable(warehouse)
    warehouse.run("INSERT INTO staging VALUES (NULL, 4, 1.0)")  # `day` of predictions is NOT NULL
    with pytest.raises(google_errors.BadRequest):
        warehouse.run(PUBLISH, Parameter("day", "DATE", MONDAY))
    assert warehouse.rows("SELECT COUNT(*) FROM predictions") == [(1010,)]


def test_a_job_id_runs_once(warehouse: Warehouse) -> None:
    warehouse.run("CREATE TABLE t (id INT64)")
    job_id = f"publish-{uuid.uuid4().hex}"
    warehouse.submit("INSERT INTO t VALUES (1)", job_id=job_id).result()
    with pytest.raises(google_errors.Conflict):
        # The client's own answer to a conflict is get_job; the bare request shows what the server says.
        warehouse.client._connection.api_request(
            method="POST",
            path=f"/projects/{warehouse.settings.project}/jobs",
            data={
                "jobReference": {"projectId": warehouse.settings.project, "jobId": job_id},
                "configuration": {"query": {"query": f"INSERT INTO {warehouse.dataset}.t VALUES (1)"}},
            },
        )
    assert warehouse.rows("SELECT COUNT(*) FROM t") == [(1,)]
    assert warehouse.client.get_job(job_id).state == "DONE"


def test_a_load_job_id_runs_once(warehouse: Warehouse) -> None:
    uri = warehouse.put_parquet("a.parquet", pa.table({"id": [1]}))
    job_id = f"stage-{uuid.uuid4().hex}"
    config = bigquery.LoadJobConfig(source_format="PARQUET")
    warehouse.client.load_table_from_uri(uri, warehouse.name("t"), job_id=job_id, job_config=config).result()
    with pytest.raises(google_errors.Conflict):
        warehouse.client.load_table_from_uri(uri, warehouse.name("t"), job_id=job_id, job_config=config)
    assert warehouse.rows("SELECT COUNT(*) FROM t") == [(1,)]


def test_a_failed_job_keeps_its_error(warehouse: Warehouse) -> None:
    job_id = f"fails-{uuid.uuid4().hex}"
    with pytest.raises(google_errors.BadRequest, match="out of marbles"):
        warehouse.submit("SELECT ERROR('out of marbles')", job_id=job_id).result()
    found = warehouse.client.get_job(job_id)
    assert (found.state, found.error_result["reason"]) == ("DONE", "invalidQuery")
    assert "out of marbles" in found.error_result["message"]


def test_labels_are_kept(warehouse: Warehouse) -> None:
    labels = {"pipeline": "credit_default", "run": "2026-11-16-abc"}
    query = warehouse.run("SELECT 1", labels=labels)
    load = warehouse.load(warehouse.put_parquet("a.parquet", pa.table({"id": [1]})), "t", labels=labels)
    assert [warehouse.client.get_job(job.job_id).labels for job in (query, load)] == [labels, labels]


def test_a_view_expires(warehouse: Warehouse) -> None:
    warehouse.features()
    view = "CREATE OR REPLACE VIEW seen OPTIONS(expiration_timestamp = TIMESTAMP '{}') AS SELECT id FROM {}.features"
    warehouse.run(view.format("2101-01-01 00:00:00+00", warehouse.dataset))
    assert warehouse.client.get_table(warehouse.name("seen")).expires == dt.datetime(2101, 1, 1, tzinfo=dt.UTC)
    assert warehouse.rows("SELECT COUNT(*) FROM seen") == [(1010,)]
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=0.5)
    warehouse.run(view.format(soon.isoformat(), warehouse.dataset))
    time.sleep(0.6)
    with pytest.raises(google_errors.NotFound):
        warehouse.run("SELECT COUNT(*) FROM seen")


def test_several_files_are_loaded_with_an_explicit_schema(warehouse: Warehouse) -> None:
    pair = pa.struct([("label", pa.string()), ("probability", pa.float64())])
    probabilities = [[{"label": "yes", "probability": 0.25}, {"label": "no", "probability": 0.75}], []]
    uris = [
        warehouse.put_parquet(
            f"part-{part}.parquet",
            pa.table({"id": [part, part + 10], "probabilities": pa.array(probabilities, pa.list_(pair))}),
        )
        for part in range(2)
    ]
    schema = [
        bigquery.SchemaField("id", "INT64"),
        bigquery.SchemaField(
            "probabilities",
            "RECORD",
            mode="REPEATED",
            fields=[bigquery.SchemaField("label", "STRING"), bigquery.SchemaField("probability", "FLOAT64")],
        ),
    ]
    for _ in range(2):  # WRITE_TRUNCATE: a retry does not double the rows
        assert warehouse.load(uris, "staging", schema=schema, write_disposition="WRITE_TRUNCATE").output_rows == 4
    assert warehouse.rows("SELECT id, probabilities FROM staging ORDER BY id") == [
        (0, probabilities[0]),
        (1, probabilities[0]),
        (10, []),
        (11, []),
    ]
    assert warehouse.rows("SELECT SUM(p.probability) FROM staging, UNNEST(probabilities) AS p") == [(2.0,)]
    loaded = warehouse.client.get_table(warehouse.name("staging")).schema
    assert [(field.name, field.mode) for field in loaded] == [("id", "NULLABLE"), ("probabilities", "REPEATED")]
    read = warehouse.read(warehouse.session("staging").streams[0])
    assert sorted(read["probabilities"].to_pylist(), key=len) == [[], [], probabilities[0], probabilities[0]]


def test_a_wildcard_is_loaded(warehouse: Warehouse) -> None:
    for part in range(3):
        warehouse.put_parquet(f"run/part-{part}.parquet", pa.table({"id": [part]}))
    warehouse.put_parquet("run/part-9.parquet.tmp", pa.table({"id": [9]}))
    uri = f"gs://{warehouse.settings.bucket}/{warehouse.dataset}/run/part-*.parquet"
    assert warehouse.load(uri, "loaded").output_rows == 3
    assert warehouse.rows("SELECT id FROM loaded ORDER BY id") == [(0,), (1,), (2,)]


def test_a_missing_file_fails_the_load(warehouse: Warehouse) -> None:
    present = warehouse.put_parquet("a.parquet", pa.table({"id": [1]}))
    with pytest.raises(google_errors.GoogleAPICallError) as refused:
        warehouse.load([present, present.replace("a.parquet", "b.parquet")], "loaded")
    assert refused.value.code in (400, 404)
    assert warehouse.table_ids() == set()


def test_types_and_nulls_come_through_the_read_api(warehouse: Warehouse) -> None:
    warehouse.run("CREATE TABLE t (a DATE, b TIMESTAMP, c BOOL, d NUMERIC, e STRING, f FLOAT64, g INT64)")
    warehouse.run(
        "INSERT INTO t VALUES (NULL, NULL, NULL, NULL, NULL, NULL, NULL), "
        "(DATE '2026-11-16', TIMESTAMP '2026-11-16 01:02:03.456789+00', TRUE, NUMERIC '-1.234567891', 'é', 1.5, 9)"
    )
    table = warehouse.read(warehouse.session("t").streams[0])
    assert table.schema.types == [
        pa.date32(),
        pa.timestamp("us", tz="UTC"),
        pa.bool_(),
        pa.decimal128(38, 9),
        pa.string(),
        pa.float64(),
        pa.int64(),
    ]
    empty, full = sorted((tuple(row.values()) for row in table.to_pylist()), key=lambda row: row[0] is not None)
    assert empty == (None,) * 7
    moment = dt.datetime(2026, 11, 16, 1, 2, 3, 456789, tzinfo=dt.UTC)
    assert full == (MONDAY, moment, True, Decimal("-1.234567891"), "é", 1.5, 9)


def test_a_shard_is_read_by_restriction(warehouse: Warehouse) -> None:
    warehouse.features()
    session = warehouse.session("features", selected_fields=["id"], row_restriction=f"day = '{MONDAY}' AND id > 900")
    assert warehouse.read(session.streams[0]).to_pydict() == {"id": list(range(901, 1001))}


def test_the_result_of_a_query_is_read_through_the_read_api(warehouse: Warehouse) -> None:
    warehouse.features()
    result = warehouse.submit("SELECT id FROM features").to_arrow(bqstorage_client=warehouse.reader)
    assert result.num_rows == 1010


def test_the_key_hash_is_what_python_computes(warehouse: Warehouse) -> None:
    sql = "SELECT CAST(CONCAT('0x', SUBSTR(TO_HEX(MD5(CAST(@key AS STRING))), 1, 15)) AS INT64)"
    assert warehouse.rows(sql, Parameter("key", "INT64", 4711)) == [(int(hashlib.md5(b"4711").hexdigest()[:15], 16),)]
