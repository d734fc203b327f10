"""The engine's threads: order, bounds, errors that stop everything, and nothing left behind."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from nightscore.scoring import engine
from nightscore.scoring.checksum import checksum
from nightscore.scoring.engine import Engine, Outcome, chunks, ordered_map, usable_cpus
from nightscore.scoring.score import NonFiniteError, combine, score, summarise


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) - before == set()


@dataclass(frozen=True)
class Doubling:
    """Scores a row by the half of its x; fails where it is told to."""

    fail_at: float | None = None
    error: Exception = field(default_factory=lambda: ValueError("no"))
    result: float | None = None
    form: str = "x"
    decoded: list[int] = field(default_factory=list, compare=False)
    task: str = "binary"
    classes: Sequence[str] = ("0", "1")

    def decode(self, batch: pa.RecordBatch | pa.Table) -> Any:
        self.decoded.append(batch.num_rows)
        return batch.column("x").to_numpy()

    def predict_decoded(self, features: Any) -> Any:
        if self.fail_at is not None and (features >= self.fail_at).any():
            if self.result is None:
                raise self.error
            return np.full((len(features), 2), self.result)
        return np.column_stack([1 - features / 2, features / 2])


def batches(rows: int, size: int) -> Iterator[pa.RecordBatch]:
    """Yield rows whose x goes from 0 to 2, and whose id and hash count them."""
    for start in range(0, rows, size):
        number = np.arange(start, min(start + size, rows))
        yield pa.record_batch({"x": number * 2 / rows, "id": number, "hash": number * 3 + 1})


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(engine, "LEAST_ROWS", 1)
    monkeypatch.setattr(engine, "CHUNK_BYTES", 24 * 10)
    return 10


@pytest.mark.parametrize("size", [1, 7, 10, 64, 1000])
@pytest.mark.parametrize("workers", [1, 4])
def test_every_row_comes_once_and_in_order(small_chunks: int, size: int, workers: int) -> None:
    found = list(Engine([Doubling()], keep=["id"], workers=workers).scored(batches(333, size)))
    assert [item.rows for item in found] == [*[small_chunks] * 33, 3]
    ids = pa.concat_tables(item.kept for item in found)["id"].to_pylist()
    scores = [value for item in found for value in item.outcomes[0].predictions["score"].to_pylist()]
    assert ids == list(range(333))
    assert scores == [number * 2 / 333 / 2 for number in range(333)]


@pytest.mark.usefixtures("small_chunks")
def test_figures_and_checksums_are_those_of_the_whole() -> None:
    whole = next(batches(333, 333))
    predictions = score(whole, Doubling())
    found = list(Engine([Doubling()], hashes="hash", threshold=0.25, workers=2).scored(batches(333, 50)))
    figures = combine([item.outcomes[0].figures for item in found])
    expected = summarise(predictions, "binary", threshold=0.25)
    for name in ("sum", "squares"):
        assert figures.pop(name) == pytest.approx(expected.pop(name), abs=1e-9)
    assert figures == expected
    sums = [item.outcomes[0].checksum for item in found]
    assert sum(sums[1:], sums[0]) == checksum(whole["hash"].to_numpy(), predictions, "binary")


def test_no_rows_are_no_chunks() -> None:
    assert list(Engine([Doubling()]).scored([])) == []
    assert list(Engine([Doubling()]).scored(batch.slice(0, 0) for batch in batches(5, 5))) == []


def test_what_is_kept_has_memory_of_its_own() -> None:
    [batch] = batches(100_000, 100_000)
    first = next(Engine([Doubling()], keep=["id"], workers=1).scored([batch]))
    buffer = batch["id"].buffers()[1]
    kept = first.kept["id"].chunk(0).buffers()[1]
    assert not buffer.address <= kept.address < buffer.address + buffer.size
    assert kept.size < buffer.size


def test_chunks_are_smaller_where_rows_are_wider() -> None:
    wide = pa.record_batch({f"c{number}": np.zeros(20_000) for number in range(200)})
    narrow = pa.record_batch({"c": np.zeros(200_000)})
    assert engine.chunk_rows(wide) == engine.CHUNK_BYTES // (200 * 8)
    assert engine.chunk_rows(narrow) == engine.MOST_ROWS
    assert [chunk.num_rows for chunk in chunks([narrow])][:2] == [engine.MOST_ROWS] * 2


@pytest.mark.usefixtures("small_chunks")
def test_models_of_one_form_share_what_is_decoded() -> None:
    decoded: list[int] = []
    other: list[int] = []
    models = [Doubling(decoded=decoded), Doubling(decoded=decoded), Doubling(form="y", decoded=other)]
    found = list(Engine(models, workers=2).scored(batches(50, 50)))
    assert decoded == other == [10] * 5
    assert all(len(item.outcomes) == 3 for item in found)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_of_the_first_model_is_raised_as_it_is_after_the_rows_before_it(workers: int) -> None:
    error = ZeroDivisionError("mine")
    results = Engine([Doubling(fail_at=1.0, error=error)], keep=["id"], workers=workers).scored(batches(400, 10))
    found = [next(results) for _ in range(20)]
    with pytest.raises(ZeroDivisionError) as caught:
        next(results)
    assert caught.value is error
    assert [item.kept["id"][0].as_py() for item in found] == list(range(0, 200, 10))


@pytest.mark.usefixtures("small_chunks")
def test_another_model_that_fails_is_left_out_from_there_on() -> None:
    error = ValueError("not mine")
    found = list(Engine([Doubling(), Doubling(fail_at=1.0, error=error)], workers=3).scored(batches(400, 10)))
    champion, challenger = zip(*(item.outcomes for item in found), strict=True)
    assert all(isinstance(outcome, Outcome) for outcome in champion)
    assert isinstance(challenger[0], Outcome)
    assert all(outcome is error for outcome in challenger[20:])
    alone = [item.outcomes[0] for item in Engine([Doubling()], workers=1).scored(batches(400, 10))]
    assert [outcome.predictions for outcome in champion] == [outcome.predictions for outcome in alone]


@pytest.mark.usefixtures("small_chunks")
def test_predictions_that_are_not_finite_end_the_first_model_and_leave_another_one_out() -> None:
    bad = Doubling(fail_at=1.0, result=float("nan"))
    with pytest.raises(NonFiniteError):
        list(Engine([bad, Doubling()], workers=2).scored(batches(400, 10)))
    found = list(Engine([Doubling(), bad], workers=2).scored(batches(400, 10)))
    assert isinstance(found[-1].outcomes[0], Outcome)
    assert isinstance(found[-1].outcomes[1], NonFiniteError)
    assert found[-1].outcomes[1].rows == 10


class Source:
    """Batches of a source that notices how it is treated; at the end it raises, waits or just ends."""

    def __init__(self, count: int, at_end: Callable[[], None] = lambda: None) -> None:
        self.given = 0
        self.closed = False
        self.count = count
        self.at_end = at_end

    def __iter__(self) -> "Source":
        return self

    def __next__(self) -> pa.RecordBatch:
        if self.given == self.count:
            self.at_end()
            raise StopIteration
        self.given += 1
        return pa.record_batch({"x": np.full(10, 0.5), "id": np.full(10, self.given), "hash": np.arange(10)})

    def close(self) -> None:
        self.closed = True


@pytest.mark.usefixtures("small_chunks")
def test_an_error_of_the_source_is_raised_as_it_is_after_the_rows_before_it() -> None:
    error = ConnectionResetError("gone")

    def fail() -> None:
        raise error

    source = Source(7, fail)
    results = Engine([Doubling()], workers=2).scored(source)
    assert [next(results).rows for _ in range(7)] == [10] * 7
    with pytest.raises(ConnectionResetError) as caught:
        next(results)
    assert caught.value is error
    assert source.closed


@pytest.mark.usefixtures("small_chunks")
def test_a_source_is_closed_when_it_ends_and_when_the_caller_stops() -> None:
    source = Source(7)
    assert len(list(Engine([Doubling()], workers=2).scored(source))) == 7
    assert source.closed
    source = Source(1000)
    with contextlib.closing(Engine([Doubling()], workers=2).scored(source)) as found:
        next(found)
    assert source.closed
    assert source.given < 20


@pytest.mark.usefixtures("small_chunks")
def test_a_slow_caller_stops_the_source() -> None:
    source = Source(1000)
    workers = 2
    with contextlib.closing(Engine([Doubling()], workers=workers).scored(source)) as found:
        next(found)
        time.sleep(0.3)
        # What waits in the queue, one that is taken, one that waits for room, and one that makes a chunk complete.
        assert source.given <= engine.AHEAD * workers + 3
        next(found)
        time.sleep(0.1)
        assert source.given <= engine.AHEAD * workers + 4


@pytest.mark.usefixtures("small_chunks")
def test_a_read_that_hangs_is_cancelled_when_the_caller_stops() -> None:
    woken = threading.Event()
    source = Source(3, lambda: None if woken.wait(20) else pytest.fail("nobody cancelled"))
    source.cancel = woken.set
    began = time.monotonic()
    with contextlib.closing(Engine([Doubling()], workers=2).scored(source)) as found:
        next(found)
    assert woken.is_set()
    assert time.monotonic() - began < 10
    assert source.closed


def test_an_initializer_that_fails_is_an_error_and_no_wait() -> None:
    def fail() -> None:
        raise RuntimeError("no threads today")

    with pytest.raises(Exception, match=r"initializer|pool"):
        list(ordered_map(str, range(100), workers=2, ahead=4, initializer=fail))


def test_items_are_worked_on_side_by_side() -> None:
    together = threading.Barrier(2, timeout=20)
    assert list(ordered_map(lambda item: (together.wait(), item)[1], range(8), workers=2, ahead=4)) == list(range(8))


def test_workers_compute_in_one_thread_and_the_limits_end_with_them() -> None:
    seen: list[dict[str, int]] = []

    @dataclass(frozen=True)
    class Looking(Doubling):
        def predict_decoded(self, features: Any) -> Any:
            seen.append({item["user_api"]: item["num_threads"] for item in threadpool_info()})
            return super().predict_decoded(features)

    import sklearn.ensemble  # noqa: F401 - loads OpenMP

    with threadpool_limits(limits=2):
        before = threadpool_info()
        assert {item["user_api"] for item in before} == {"blas", "openmp"}
        assert {item["num_threads"] for item in before} == {2}
        list(Engine([Looking()], workers=2).scored(batches(100_000, 10_000)))
        assert threadpool_info() == before
    assert seen
    assert all(threads == {"blas": 1, "openmp": 1} for threads in seen)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("400000 100000\n", 4),  # limits.cpu: 4, on a node with more
        ("250000 100000\n", 3),
        ("50000 100000\n", 1),
        ("6400000 100000\n", 8),
        ("max 100000\n", 8),
        (None, 8),
    ],
)
def test_a_container_uses_the_processors_of_its_limit(
    said: str | None, expected: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import os

    monkeypatch.setattr(os, "process_cpu_count", lambda: 8, raising=False)
    monkeypatch.setattr("nightscore.scoring.engine.CPU_QUOTA", tmp_path / "cpu.max")
    if said is not None:
        (tmp_path / "cpu.max").write_text(said)
    assert usable_cpus() == expected
    assert Engine([Doubling()])._workers == expected


def test_at_least_one_processor_is_usable() -> None:
    import os

    assert 1 <= usable_cpus() <= (os.cpu_count() or 1)
