"""Reading a shard's frozen rows through the Storage Read API, over broken connections, silences and lost streams.

Google's client takes up a broken stream by itself, but only after UNAVAILABLE, UNKNOWN and RST_STREAM, then as often as
it breaks, and its calls may last a day. Here every passing error is followed by another call at the offset reached, a
bounded number of times without a row in between, and a stream that stays silent counts as broken.
"""

import contextlib
import contextvars
import queue
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nightscore.run import Run
from nightscore.scoring.engine import usable_cpus
from nightscore.warehouse import WarehouseError, translated

if TYPE_CHECKING:
    import pyarrow as pa

MOST_STREAMS = 4
MESSAGES_AHEAD = 4  # of one or two megabytes each, for every stream
MOST_FAILURES = 5  # one after the other, without a row in between
PAUSE = 0.5  # seconds before the first new call, doubled before each further one
SILENCE = 60.0  # seconds without a message after which a call counts as broken
CALL_SECONDS = 6 * 3600.0  # how long a session lives
SESSION_PATIENCE = 30.0  # seconds for which a session is asked for again


class SessionLostError(WarehouseError):
    """The read session is gone: its rows have to be read from the beginning, in another one."""


def iter_batches(run: Run, shard: int) -> "Rows":
    """Return a shard's accepted rows: the frozen columns without the partition, and `_key_hash`.

    With more than two processors, several streams are read at once, and then the rows come in no particular order.
    """
    wanted = [*(name for name in run.plan.columns if name != run.spec.features.partition), "_key_hash"]
    return Rows(
        run.warehouse.reader,
        run.warehouse.config.project,
        run.snapshot_table,
        wanted,
        f"_shard = {shard} AND _rejected_by IS NULL",
        f"reading shard {shard} of {run.spec.name}",
    )


class Rows(Iterator["pa.RecordBatch"]):
    """The rows of a table that meet a condition, as Arrow batches of the server's own size.

    Raises, while it is iterated:
        WarehouseError: the connection broke too often; reading again may succeed.
        SessionLostError: the server does not know the session any more.
        StatementError: BigQuery refuses.
    """

    def __init__(self, client: Any, project: str, table: str, columns: list[str], restriction: str, doing: str) -> None:
        """Open a read session and begin to read.

        Args:
            client: a `BigQueryReadClient`.
            project: the project that reads.
            table: full name of the table.
            columns: the columns to read.
            restriction: GoogleSQL condition.
            doing: what this is for, as the words after "while" in an error.
        """
        import pyarrow as pa

        self._client = client
        self._doing = doing
        self._stopped = threading.Event()
        self._calls: dict[str, Any] = {}
        with translated(doing):
            session = _open_session(client, project, table, columns, restriction)
        names = [stream.name for stream in session.streams]
        self._reading = len(names)
        self._messages: queue.Queue[pa.RecordBatch | Exception | None] = queue.Queue(
            maxsize=MESSAGES_AHEAD * max(1, len(names))
        )
        schema = pa.ipc.read_schema(pa.py_buffer(session.arrow_schema.serialized_schema)) if names else None
        self._threads = [
            threading.Thread(
                target=contextvars.copy_context().run,
                args=(self._read, name, schema),
                name="nightscore-stream",
                daemon=True,
            )
            for name in names
        ]
        for thread in self._threads:
            thread.start()

    def __next__(self) -> "pa.RecordBatch":
        while self._reading and not self._stopped.is_set():
            try:
                found = self._messages.get(timeout=SILENCE)
            except queue.Empty:
                self._cancel_calls()  # each stream then tries again, as after a broken connection
                continue
            if found is None:
                self._reading -= 1
            elif isinstance(found, Exception):
                raise found
            else:
                return found
        raise StopIteration

    def cancel(self) -> None:
        """End a read that is under way, from whatever thread; no rows follow."""
        self._stopped.set()
        self._cancel_calls()
        with contextlib.suppress(queue.Full):
            self._messages.put_nowait(None)

    def close(self) -> None:
        """Stop reading, and wait for the threads that do."""
        self._stopped.set()
        for thread in self._threads:
            while thread.is_alive():
                self._cancel_calls()
                with contextlib.suppress(queue.Empty):
                    self._messages.get_nowait()
                thread.join(0.01)

    def _read(self, name: str, schema: "pa.Schema") -> None:
        found: Exception | None = None
        try:
            with translated(self._doing):
                self._read_stream(name, schema)
        except Exception as error:  # noqa: BLE001 - raised to whoever iterates
            found = error
        self._messages.put(found)

    def _read_stream(self, name: str, schema: "pa.Schema") -> None:
        """Read a stream to its end, calling again at the offset reached as often as there is progress."""
        import pyarrow as pa
        from google.api_core import exceptions

        offset, failures = 0, 0
        while not self._stopped.is_set():
            try:
                for message in self._call(name, offset):
                    if self._stopped.is_set():
                        return
                    if message.row_count:  # without rows it only tells that the server is busy
                        data = message.arrow_record_batch.serialized_record_batch
                        self._messages.put(pa.ipc.read_record_batch(pa.py_buffer(data), schema))
                        offset, failures = offset + message.row_count, 0
            except exceptions.GoogleAPICallError as error:
                failures += 1
                if _is_lost(error):
                    raise SessionLostError(self._doing, error.message) from error
                if isinstance(error, exceptions.Cancelled) and failures == MOST_FAILURES:
                    silence = f"no rows came for {SILENCE:g} s, {failures} times in a row"
                    raise WarehouseError(self._doing, silence) from error
                if not _is_passing(error) or failures == MOST_FAILURES:
                    raise
                self._stopped.wait(PAUSE * 2 ** (failures - 1))
            else:
                return

    def _call(self, name: str, offset: int) -> "Iterator[Any]":
        """Yield the messages of one call of ReadRows."""
        import grpc
        from google.api_core import exceptions, gapic_v1
        from google.cloud.bigquery_storage_v1 import types

        # The transport's own method: the client's waits for a first message before anybody can cancel it, and repeats
        # what fails for a day.
        call = self._client.transport.read_rows(
            types.ReadRowsRequest(read_stream=name, offset=offset),
            timeout=CALL_SECONDS,
            metadata=[gapic_v1.routing_header.to_grpc_metadata([("read_stream", name)])],
        )
        self._calls[name] = call
        try:
            for message in call:
                yield types.ReadRowsResponse.pb(message)
        except grpc.RpcError as error:
            raise exceptions.from_grpc_error(error) from error
        finally:
            call.cancel()

    def _cancel_calls(self) -> None:
        for call in list(self._calls.values()):
            call.cancel()


def _open_session(client: Any, project: str, table: str, columns: list[str], restriction: str) -> Any:
    from google.api_core.retry import Retry
    from google.cloud.bigquery_storage_v1 import types

    owner, dataset, name = table.rsplit(".", 2)
    cpus = usable_cpus()
    return client.create_read_session(
        parent=f"projects/{project}",
        read_session=types.ReadSession(
            table=f"projects/{owner}/datasets/{dataset}/tables/{name}",
            data_format=types.DataFormat.ARROW,
            read_options=types.ReadSession.TableReadOptions(selected_fields=columns, row_restriction=restriction),
        ),
        # With two processors, reading by two threads only takes them from scoring.
        max_stream_count=min(MOST_STREAMS, max(1, cpus // 2)),
        retry=Retry(predicate=_is_passing, timeout=SESSION_PATIENCE),
        timeout=SESSION_PATIENCE,
    )


def _is_passing(error: BaseException) -> bool:
    from google.api_core import exceptions

    passing = (
        exceptions.ServerError,  # UNAVAILABLE, INTERNAL, UNKNOWN, DEADLINE_EXCEEDED, DATA_LOSS
        exceptions.TooManyRequests,
        exceptions.Cancelled,
        exceptions.Aborted,
    )
    return isinstance(error, passing)


def _is_lost(error: BaseException) -> bool:
    """Return whether the server does not know a session any more: it forgets one after six hours."""
    from google.api_core import exceptions

    expired = isinstance(error, exceptions.BadRequest) and "session expired" in str(error)
    return expired or isinstance(error, exceptions.NotFound)
