"""Loading files into a table: the partitions they hold are replaced, in one statement, and no others are touched.

Rows travel in bounded memory: Arrow batches become Parquet parts, parts are appended to a staging table by load jobs,
and one MERGE deletes the partitions that the staging table holds and inserts its rows. Readers see the earlier rows or
the new ones. Until that statement the target is as it was, so a load that failed is simply started again.
"""

import datetime as dt
import re
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any

from nightscore.errors import NightscoreError, listed
from nightscore.loading.columns import Incoming, LoadError, incoming_columns, shape
from nightscore.loading.files import Source, arrow_type, iter_batches, open_source
from nightscore.names import TABLE
from nightscore.progress import Tell, log
from nightscore.warehouse import Column, Warehouse, WarehouseError, translated

if TYPE_CHECKING:
    import pyarrow as pa
    from google.cloud import bigquery

PART_BYTES = 256 * 2**20  # of Arrow data; a few times less as Parquet
MOST_PARTITIONS = 4000  # that BigQuery lets one statement change
STAGED_FOR = dt.timedelta(days=1)

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class LoadReport:
    """What was loaded.

    Attributes:
        table: `project.dataset.table`.
        rows: how many rows it got.
        partitions, first, last: how many days were replaced, and which; 0 and None when the whole table was.
        bytes: size of the files.
        seconds: how long it took.
    """

    table: str
    rows: int
    partitions: int
    first: dt.date | None
    last: dt.date | None
    bytes: int
    seconds: float

    def __str__(self) -> str:
        days = f", {self.partitions:,} partitions from {self.first} to {self.last}" if self.partitions else ""
        if self.partitions == 1:
            days = f", the partition {self.first}"
        return f"{self.table}: {self.rows:,} rows{days}, from {_megabytes(self.bytes)} in {self.seconds:.1f} s"


def load_files(
    warehouse: Warehouse,
    table: str,
    files: Sequence[str | Path],
    *,
    partition: str | None = None,
    set_values: Mapping[str, str] = _NOTHING,
    rename: Mapping[str, str] = _NOTHING,
    progress: Tell = log.info,
) -> LoadReport:
    """Load CSV or Parquet files into a table, replacing the partitions they hold, or all rows of an unpartitioned one.

    Args:
        warehouse: where the table is, or will be.
        table: `dataset.table`; both are created when they are missing.
        files: paths; all of them have the same columns.
        partition: the column of days; a new table is partitioned by it, an existing one keeps its own.
        set_values: columns to add with one value for every row; the type follows from the text.
        rename: column of the files → column of the table.
        progress: is given a sentence about each step.

    Raises:
        FileError: a file is missing, empty or damaged.
        LoadError: the columns do not fit each other, BigQuery or the table; the table is unchanged.
    """
    started = time.monotonic()
    if not re.fullmatch(TABLE, table):
        raise LoadError(f"{table!r} is not a table: write dataset.table or project.dataset.table.")
    if not files:
        raise LoadError(f"No file was named to load into {table}.")
    existing = _find_target(warehouse, table, partition)
    held = None if existing is None else tuple(Column.from_api(field) for field in existing.schema)
    if existing is not None and existing.time_partitioning is not None:
        partition = existing.time_partitioning.field  # forgetting the option must not cost the other days
    texts = {column.name.lower() for column in held or () if column.type == "STRING"}
    sources = [open_source(file, lambda name: rename.get(name, name).lower() in texts) for file in files]
    columns = incoming_columns(table, sources, held, partition=partition, set_values=set_values, rename=rename)
    size = sum(source.size for source in sources)
    count = f"{len(sources)} files" if len(sources) > 1 else "1 file"
    progress(f"Reading {count} of {len(columns)} columns, {_megabytes(size)}, for {table}.")
    key = f"nightscore_load_{uuid.uuid4().hex}"
    staging = warehouse.staging_table(key)
    days: set[dt.date] = set()
    try:
        rows = _stage(warehouse, staging, columns, _shaped(sources, columns, partition, days), key)
        progress(f"Replacing {listed(sorted(days), most=3) if days else 'all rows'} of {table} by {rows:,} rows.")
        if existing is None:
            _create_table(warehouse, table, columns, partition)
        _replace(warehouse, table, staging, columns, partition, sorted(days), key)
    finally:
        # Were it to fail, the table goes by itself a day later; the load's own error matters more.
        with suppress(NightscoreError), translated(f"removing {staging}"):
            warehouse.client.delete_table(staging, not_found_ok=True)
    return LoadReport(
        table=warehouse.full_name(table),
        rows=rows,
        partitions=len(days),
        first=min(days, default=None),
        last=max(days, default=None),
        bytes=size,
        seconds=round(time.monotonic() - started, 3),
    )


def _find_target(warehouse: Warehouse, table: str, partition: str | None) -> "bigquery.Table | None":
    """Return the table to load into, or None when there is no such table yet."""
    found = warehouse.find_table(table)
    if found is None:
        return None
    if found.table_type != "TABLE":
        raise LoadError(f"{table} is a {found.table_type.lower()}; rows can only be loaded into a table.")
    days = found.time_partitioning
    if partition is not None and (days is None or (days.field or "").lower() != partition.lower()):
        state = f"is partitioned by {days.field or 'the time of loading'}" if days else "is not partitioned by days"
        raise LoadError(f"{table} exists and {state}, not by {partition}. Load into a table of another name.")
    return found


def _shaped(
    sources: Iterable[Source], columns: Sequence[Incoming], partition: str | None, days: set[dt.date]
) -> "Iterator[pa.RecordBatch]":
    """Yield all rows as they are staged, and collect the days they belong to."""
    import pyarrow.compute as pc

    place = next((i for i, column in enumerate(columns) if partition and column.is_named(partition)), None)
    for source in sources:
        for batch in iter_batches(source):
            shaped = shape(source.path, batch, columns)
            if place is not None:
                found = shaped.column(place)
                if found.null_count:
                    raise LoadError(
                        f"{source.path}: {found.null_count:,} rows have no {partition}, so they belong to no partition."
                    )
                days.update(pc.unique(found).to_pylist())
            if len(days) > MOST_PARTITIONS:
                raise LoadError(
                    f"The files hold more than {MOST_PARTITIONS:,} days of {partition}; BigQuery replaces no more than "
                    "that at once. Load them in several calls."
                )
            yield shaped


def _stage(
    warehouse: Warehouse,
    staging: str,
    columns: Sequence[Incoming],
    batches: "Iterator[pa.RecordBatch]",
    key: str,
) -> int:
    """Append the rows to a new staging table, part by part; return how many there are."""
    from google.cloud import bigquery

    warehouse.create_dataset(warehouse.config.staging_dataset, "Run-scoped tables of nightscore; all of them expire.")
    fields = [Column(column.name, column.staged_type).to_api() for column in columns]
    created = bigquery.Table(staging, schema=fields)
    created.expires = dt.datetime.now(dt.UTC) + STAGED_FOR
    with translated(f"creating {staging}"):
        warehouse.client.create_table(created, exists_ok=True)
    jobs, rows = [], 0
    for number, (part, part_rows) in enumerate(_iter_parts(batches, columns)):
        jobs.append(_send(warehouse, part, staging, fields, f"{key}_{number}"))
        rows += part_rows
    doing = f"staging rows in {staging}"
    with translated(doing):
        staged = sum(int(job.result().output_rows or 0) for job in jobs)
    if staged != rows:
        raise WarehouseError(doing, f"{rows:,} rows were sent and {staged:,} arrived")
    return rows


def _iter_parts(batches: "Iterator[pa.RecordBatch]", columns: Sequence[Incoming]) -> Iterator[tuple[IO[bytes], int]]:
    """Yield temporary Parquet files of a bounded size, and how many rows each holds."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema([pa.field(column.name, arrow_type(column.staged_type)) for column in columns])
    batch = next(batches, None)
    while batch is not None:
        with tempfile.TemporaryFile() as part:
            rows = size = 0
            with parquet.ParquetWriter(part, schema, compression="zstd", compression_level=1) as writer:
                while batch is not None and size < PART_BYTES:
                    writer.write_batch(batch)
                    rows, size = rows + batch.num_rows, size + batch.nbytes
                    batch = next(batches, None)
            yield part, rows


def _send(
    warehouse: Warehouse, part: IO[bytes], staging: str, fields: "Sequence[bigquery.SchemaField]", job_id: str
) -> Any:
    """Upload a part and return the job that appends it; the same id twice is the same job."""
    from google.api_core.exceptions import Conflict
    from google.cloud import bigquery

    config = bigquery.LoadJobConfig(
        source_format=bigquery.SourceFormat.PARQUET,
        write_disposition=bigquery.WriteDisposition.WRITE_APPEND,
        create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
        schema=fields,
    )
    with translated(f"sending rows to {staging}"):
        try:
            return warehouse.client.load_table_from_file(part, staging, rewind=True, job_id=job_id, job_config=config)
        except Conflict:  # the answer to the upload was lost and the client sent it again
            return warehouse.client.get_job(job_id)


def _create_table(warehouse: Warehouse, table: str, columns: Sequence[Incoming], partition: str | None) -> None:
    from google.cloud import bigquery

    full = warehouse.full_name(table)
    warehouse.create_dataset(full.rsplit(".", 1)[0], "Loaded by nightscore.")
    wanted = bigquery.Table(full, schema=[Column(column.name, column.type).to_api() for column in columns])
    if partition is not None:
        [name] = [column.name for column in columns if column.is_named(partition)]
        wanted.time_partitioning = bigquery.TimePartitioning(bigquery.TimePartitioningType.DAY, field=name)
    with translated(f"creating {table}"):
        warehouse.client.create_table(wanted, exists_ok=True)


def _replace(
    warehouse: Warehouse,
    table: str,
    staging: str,
    columns: Sequence[Incoming],
    partition: str | None,
    days: Sequence[dt.date],
    key: str,
) -> None:
    names = ", ".join(f"`{column.name}`" for column in columns)
    values = ", ".join(f"CAST(`{column.name}` AS {column.type}) AS `{column.name}`" for column in columns)
    condition = ""
    if partition is not None:
        [day] = [column for column in columns if column.is_named(partition)]
        held = f"held.`{day.name}`" if day.type == "DATE" else f"DATE(held.`{day.name}`)"
        condition = f" AND {held} IN UNNEST(@days)"
    warehouse.query(
        f"MERGE {warehouse.quoted(table)} AS held\n"
        f"USING (SELECT {values} FROM {warehouse.quoted(staging)}) AS staged\n"
        "ON FALSE\n"
        f"WHEN NOT MATCHED BY SOURCE{condition} THEN DELETE\n"
        f"WHEN NOT MATCHED THEN INSERT ({names}) VALUES ({names})",
        {"days": list(days)} if partition is not None else None,
        doing=f"replacing {listed(days, most=3) if days else 'the rows'} of {table}",
        job_key=f"{key}_replace",
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
