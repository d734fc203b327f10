"""ReadRows sends messages of about 2 MB and resumes anywhere in a stream.

Stock sends up to a million rows in one message, hundreds of megabytes, which is four times slower and takes a gigabyte
on either side. It also refuses an offset on a stream that this server process has not read before, so that a worker
cannot resume after either side restarted its connection.
"""
# ruff: noqa: SLF001  # the server has no public hooks: private functions are what there is to patch

from collections.abc import Iterator

import grpc
import pyarrow as pa
from google.cloud.bigquery_storage_v1 import types
from local_bigquery.engine import database
from local_bigquery.grpc import read

MESSAGE_BYTES = 2_000_000
VECTOR_ROWS = 2048  # DuckDB's batches are multiples of it
MOST_ROWS = 65_536


def apply() -> None:
    """Replace ReadRows; the service table copies it, and is imported only after the patches."""
    read.read_rows = read_rows


def read_rows(request: types.ReadRowsRequest) -> Iterator[types.ReadRowsResponse]:
    """Yield the rows of a stream from the requested offset on."""
    stream = read._lookup(request.read_stream)
    size = stream.end - stream.start
    if request.offset > size:
        message = f"offset {request.offset} is beyond the end of '{request.read_stream}', which has {size} rows"
        raise read.StorageError(grpc.StatusCode.OUT_OF_RANGE, message)
    position = request.offset
    with database.cursor() as cursor:
        rows = cursor.sql(f"SELECT * FROM ({stream.query}) LIMIT {size - position} OFFSET {stream.start + position}")
        most = rows_per_message(len(rows.columns))
        reader = rows.to_arrow_reader(most)
        schema = read._schema(stream.avro, reader.schema)  # only the first message of a stream carries it
        for batch in reader:
            for start in range(0, batch.num_rows, most):
                part = batch.slice(start, most)
                end = position + part.num_rows
                yield types.ReadRowsResponse(
                    row_count=part.num_rows,
                    stats=read._progress(stream, position, end),
                    **_rows(stream, part),
                    **schema,
                )
                position, schema = end, {}


def rows_per_message(columns: int) -> int:
    """Return how many rows fill a message, presuming eight bytes a cell."""
    rows = MESSAGE_BYTES // (8 * max(columns, 1))
    return max(VECTOR_ROWS, min(MOST_ROWS, rows // VECTOR_ROWS * VECTOR_ROWS))


def _rows(stream: read.Stream, batch: pa.RecordBatch) -> dict[str, object]:
    if stream.avro:
        return {"avro_rows": read._avro_rows(stream, batch)}
    serialized = batch.serialize().to_pybytes()
    return {"arrow_record_batch": types.ArrowRecordBatch(serialized_record_batch=serialized)}
