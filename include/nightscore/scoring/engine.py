"""The scoring engine: bounded threads around the pure `score`, in order, with no cloud in it.

    source ─▶ reader thread ─▶ chunks ─▶ one worker for every processor ─▶ scored chunks, in order, to the caller

Every queue is bounded, so a slow caller stops the workers and a slow worker stops the reader: memory does not grow with
rows. An error anywhere stops everything and is raised to the caller as it is; when the iterator ends or is closed, no
thread is left.

A worker computes in one thread: with as many workers as processors, threads of BLAS and OpenMP below them would only
take processors from each other.
"""

import contextlib
import contextvars
import ctypes
import os
import queue
import threading
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nightscore.scoring.checksum import Checksum, checksum
from nightscore.scoring.score import Predictor, summarise, tabulate

if TYPE_CHECKING:
    import pyarrow as pa

# What one worker takes at a time: its matrix and what a model makes of it should stay in the cache, and yet be large
# beside the tenths of a millisecond that scikit-learn takes for every call. See docs/performance.md.
CHUNK_BYTES = 6 * 2**20
LEAST_ROWS, MOST_ROWS = 1_024, 32_768
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of the container, as its control group (version 2) says it
AHEAD = 2  # chunks for every worker that are read or scored and not yet taken

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Outcome:
    """What one model made of a chunk: the table that `score` returns, its figures and its checksum."""

    predictions: "pa.Table"
    figures: dict[str, Any]
    checksum: Checksum


@dataclass(frozen=True)
class Scored:
    """A scored chunk.

    Attributes:
        rows: how many rows it has.
        kept: its columns that were asked for, in memory of their own.
        outcomes: what each model made of it; of a model that has failed, now or before, the exception.
    """

    rows: int
    kept: "pa.Table"
    outcomes: tuple[Outcome | Exception, ...]


class Engine:
    """Scores batches with several models in one pass.

    The first model is the one that counts: an exception of its own ends the scoring. Another model that raises, or
    predicts NaN or infinity, is left out from there on, and the others go on.
    """

    def __init__(
        self,
        models: Sequence[Predictor],
        *,
        keep: Sequence[str] = (),
        hashes: str | None = None,
        threshold: float | None = None,
        workers: int | None = None,
    ) -> None:
        """Set the engine up.

        Args:
            models: the models, the one that counts first.
            keep: columns of the source that are passed on beside the predictions.
            hashes: the column of key hashes, int64 ≥ 0; without it there are no checksums.
            threshold: from this score on a row counts as flagged.
            workers: threads that score; by default one for every processor that this process may use.
        """
        self._models = tuple(models)
        self._keep = tuple(keep)
        self._hashes = hashes
        self._threshold = threshold
        self._workers = workers or usable_cpus()
        self._failed: dict[int, Exception] = {}

    def scored(self, source: "Iterable[pa.RecordBatch]") -> Generator[Scored, None, None]:
        """Yield what became of the source's rows, in their order.

        A `source` that has a method `cancel` must take it from any thread: it makes a read that is under way return.

        Raises:
            NonFiniteError: the first model predicted NaN or infinity.
        """
        from threadpoolctl import ThreadpoolController

        _keep_freed_memory()
        controller = ThreadpoolController()
        # BLAS takes its limit for the whole process, OpenMP for the thread that sets it.
        with controller.limit(limits=1, user_api="blas"):
            yield from ordered_map(
                self._score,
                chunks(source),
                workers=self._workers,
                ahead=AHEAD * self._workers,
                initializer=lambda: controller.limit(limits=1, user_api="openmp"),
                cancel=getattr(source, "cancel", None),
            )

    def _score(self, chunk: "pa.Table") -> Scored:
        decoded: dict[Hashable, Any] = {}
        outcomes = tuple(self._outcome(index, chunk, decoded) for index in range(len(self._models)))
        return Scored(chunk.num_rows, _copied(chunk.select(list(self._keep))), outcomes)

    def _outcome(self, index: int, chunk: "pa.Table", decoded: dict[Hashable, Any]) -> Outcome | Exception:
        if index in self._failed:
            return self._failed[index]
        model = self._models[index]
        try:
            if model.form not in decoded:
                decoded[model.form] = model.decode(chunk)
            predictions = tabulate(model.predict_decoded(decoded[model.form]), model)
        except Exception as error:
            if index == 0:
                raise
            return self._failed.setdefault(index, error)
        figures = summarise(predictions, model.task, self._threshold)
        if self._hashes is None:
            return Outcome(predictions, figures, Checksum.zero())
        return Outcome(predictions, figures, checksum(chunk.column(self._hashes).to_numpy(), predictions, model.task))


def chunks(source: "Iterable[pa.RecordBatch]") -> "Iterator[pa.Table]":
    """Yield the rows of batches of any size in tables of about `CHUNK_BYTES`, without copying them.

    The source is closed with the iterator, if it can be.
    """
    import pyarrow as pa

    held: list[pa.RecordBatch] = []
    missing = 0
    try:
        for batch in source:
            rest = batch
            while rest.num_rows:
                missing = missing or chunk_rows(rest)
                if rest.num_rows < missing:
                    held.append(rest)
                    missing -= rest.num_rows
                    break
                held.append(rest.slice(0, missing))
                yield pa.Table.from_batches(held)
                rest, held, missing = rest.slice(missing), [], 0
        if held:
            yield pa.Table.from_batches(held)
    finally:
        close = getattr(source, "close", None)
        if close is not None:
            close()


def chunk_rows(batch: "pa.RecordBatch") -> int:
    """Return how many rows like a batch's make a chunk."""
    width = batch.nbytes / max(batch.num_rows, 1)
    rows = int(CHUNK_BYTES / max(width, 1))
    return max(LEAST_ROWS, min(MOST_ROWS, rows))


def ordered_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    ahead: int,
    initializer: Callable[[], object] | None = None,
    cancel: Callable[[], None] | None = None,
) -> Generator[Result, None, None]:
    """Yield `function(item)` for every item, in order, computed by `workers` threads.

    Args:
        function: what the workers call.
        items: read in a thread of its own, which also closes it.
        workers: how many threads call `function`.
        ahead: how many items may be read and not yet be yielded, beside one that is being read.
        initializer: called once in every worker.
        cancel: called when the iterator is closed early, to end a read that is under way.

    Raises:
        Exception: whatever `items` or `function` raised first, in the order of the items.
    """
    pending: queue.Queue[Future[Result] | None] = queue.Queue(maxsize=ahead)
    stopped = threading.Event()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="nightscore-score", initializer=initializer)

    def read() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                if stopped.is_set():
                    break
                pending.put(pool.submit(contextvars.copy_context().run, function, item))
        except BaseException as error:  # noqa: BLE001 - it is raised to the caller, in its turn
            failed: Future[Result] = Future()
            failed.set_exception(error)
            pending.put(failed)
        finally:
            _close_quietly(iterator)
            pending.put(None)

    # Threads begin without the context variables that say in a log which run a line is of.
    reader = threading.Thread(target=contextvars.copy_context().run, args=(read,), name="nightscore-read", daemon=True)
    reader.start()
    try:
        while (future := pending.get()) is not None:
            yield future.result()
    finally:
        stopped.set()
        if cancel is not None and reader.is_alive():
            cancel()
        while reader.is_alive():  # it may wait for room in the queue
            with contextlib.suppress(queue.Empty):
                while (future := pending.get_nowait()) is not None:
                    future.cancel()
            reader.join(0.01)
        pool.shutdown(cancel_futures=True)


def usable_cpus() -> int:
    """Return how many processors this process may use, at least 1: by its affinity, and by its container's quota."""
    if hasattr(os, "process_cpu_count"):
        found = os.process_cpu_count() or 1
    else:
        found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CPU_QUOTA.read_text().split()
        found = min(found, max(1, -(-int(quota) // int(period))))
    except (OSError, ValueError):  # there is no such file, or it says "max"
        pass
    return int(found)


def _keep_freed_memory() -> None:
    """Tell glibc to keep memory that is freed, for the rest of the process: the next chunk needs as much again.

    It would give arrays of megabytes back to the kernel, which fills their pages with zeros before it gives them out
    again. How often depends on their sizes and order; it has cost a linear model a quarter of its time, and more.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)  # the most that glibc allows
        mallopt(_M_TRIM_THRESHOLD, 256 * 2**20)


def _copied(table: "pa.Table") -> "pa.Table":
    """Return a table in memory of its own: a slice would keep the whole message alive that it was cut from."""
    import pyarrow as pa

    # A concatenation of two arrays is always a copy, even when one of them is empty.
    columns = [pa.concat_arrays([pa.array([], column.type), *column.chunks]) for column in table.columns]
    return pa.table(columns, schema=table.schema)


def _close_quietly(iterator: Iterator[Any]) -> None:
    """Close an iterator; what closing it raises must not hide why it is closed."""
    close = getattr(iterator, "close", None)
    if close is not None:
        with contextlib.suppress(Exception):
            close()
