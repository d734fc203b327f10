"""Objects written from a stream: whole or not at all, whatever breaks on the way."""

import datetime as dt
import gc
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import requests
from google.cloud.storage.retry import DEFAULT_RETRY
from requests.adapters import HTTPAdapter

from nightscore import objects
from nightscore.clients import build_storage
from nightscore.objects import Bucket, ObjectAccessError, ObjectStoreError

MEGABYTE = 2**20
DATA = np.random.default_rng(3).bytes(3 * MEGABYTE + 12_345)
EXPIRES = dt.datetime(2026, 12, 24, 2, 13, tzinfo=dt.UTC)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "UPLOAD_CHUNK", MEGABYTE)
    monkeypatch.setattr(objects, "UPLOAD_PIECE", 100_000)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name == "nightscore-upload"] == []


class Line(HTTPAdapter):
    """The line to the server; what `disturb` returns, or raises, stands in for the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[tuple[str, str]] = []
        self.disturb: Callable[[int, requests.PreparedRequest, Callable[[], Any]], Any] = lambda *_: None

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request, unless it is disturbed."""
        self.requests.append((str(request.method), str(request.url)))
        carry_out = super().send
        number = sum(1 for method, _ in self.requests if method == "PUT") - 1
        found = self.disturb(number, request, lambda: carry_out(request, *args, **kwargs))
        return found if found is not None else carry_out(request, *args, **kwargs)


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def bucket(settings, line, monkeypatch) -> Bucket:
    monkeypatch.setattr(DEFAULT_RETRY, "_timeout", 5.0)
    client = build_storage(settings)
    client._http.mount("http://", line)
    return Bucket(client, settings.bucket)


@pytest.fixture
def name() -> str:
    return f"uploads/{uuid.uuid4().hex}"


def upload(bucket: Bucket, name: str, data: bytes = DATA, size: int = 33_333) -> None:
    with bucket.stream_new(name, expires=EXPIRES) as sink:
        for start in range(0, len(data), size):
            assert sink.write(data[start : start + size]) == len(data[start : start + size])


def answer(request: requests.PreparedRequest, status: int, text: str = "") -> requests.Response:
    response = requests.Response()
    response.status_code, response.request, response.url = status, request, str(request.url)
    response._content = text.encode()
    return response


@pytest.mark.parametrize("size", [1, 99_999, MEGABYTE - 1, MEGABYTE, 2 * MEGABYTE, len(DATA)])
def test_an_object_is_what_was_written(bucket, name, size):
    upload(bucket, name, DATA[:size])
    assert bucket.read(name).data == DATA[:size]


def test_it_carries_its_expiry_and_its_type(bucket, name):
    upload(bucket, name)
    blob = bucket._bucket.get_blob(name)
    assert blob.custom_time == EXPIRES
    assert blob.content_type == "application/octet-stream"


def test_it_is_not_there_before_its_end(bucket, name):
    with bucket.stream_new(name) as sink:
        sink.write(DATA)
        assert bucket.read(name) is None
    assert bucket.read(name).data == DATA


@pytest.mark.parametrize("size", [0, 10, MEGABYTE, len(DATA)])
def test_a_block_that_raises_leaves_no_object(bucket, name, line, size):
    def break_off():
        with bucket.stream_new(name) as sink:
            sink.write(DATA[:size])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_off()
    gc.collect()  # the client's own writer finishes an object when it is collected
    assert bucket.read(name) is None
    began = [url for method, url in line.requests if method == "POST"]
    cancelled = [url for method, url in line.requests if method == "DELETE"]
    assert len(cancelled) == len(began)
    assert all("upload_id=" in url for url in cancelled)


def test_what_is_written_after_a_block_has_ended_is_forgotten(bucket, name):
    with pytest.raises(ZeroDivisionError), bucket.stream_new(name) as sink:
        1 / 0  # noqa: B018
    assert sink.write(b"the end of a file") == 17
    assert bucket.read(name) is None


def test_an_object_that_is_there_already_stays(bucket, name):
    upload(bucket, name, b"first")
    with pytest.raises(ObjectStoreError, match="412"):
        upload(bucket, name, b"second")
    assert bucket.read(name).data == b"first"


def lost_answer(request, carry_out):
    carry_out()
    raise requests.ConnectionError("reset by the test")


PASSING = {
    "unavailable": lambda request, carry_out: answer(request, 503),
    "too many": lambda request, carry_out: answer(request, 429),
    "reset": lambda request, carry_out: lost_answer(request, lambda: None),
    "answer lost": lost_answer,
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
@pytest.mark.parametrize("nth", [0, 1, 3])
def test_a_chunk_that_fails_for_once_is_sent_again(bucket, name, line, nth, fault):
    line.disturb = lambda number, request, carry_out: (
        fault(request, carry_out) if request.method == "PUT" and number == nth else None
    )
    upload(bucket, name)
    assert bucket.read(name).data == DATA
    assert sum(1 for method, _ in line.requests if method == "PUT") == 5


def test_a_server_that_keeps_failing_is_a_passing_error(bucket, name, line):
    line.disturb = lambda number, request, carry_out: answer(request, 503) if request.method == "PUT" else None
    with pytest.raises(ObjectStoreError, match=f"Cloud Storage failed while uploading {name}"):
        upload(bucket, name)
    assert bucket.read(name) is None


def test_a_refusal_is_no_passing_error_and_nobody_waits(bucket, name, line):
    line.disturb = lambda number, request, carry_out: answer(request, 403) if request.method == "PUT" else None
    with pytest.raises(ObjectAccessError, match="refused a request while uploading"):
        upload(bucket, name, DATA * 4)
    assert bucket.read(name) is None


def test_bytes_that_change_on_the_way_are_found_out(bucket, name, line):
    def disturb(number, request, carry_out):
        if request.method == "PUT" and number == 1:
            request.body = b"x" + request.body[1:]

    line.disturb = disturb
    with pytest.raises(ObjectStoreError, match="uploading"):
        upload(bucket, name)
    assert bucket.read(name) is None


def test_a_chunk_that_is_kept_in_part_is_a_passing_error(bucket, name, line):
    def disturb(number, request, carry_out):
        if request.method != "PUT" or number != 1:
            return None
        response = answer(request, 308)
        response.headers["range"] = f"bytes=0-{MEGABYTE + 256 * 1024 - 1}"
        return response

    line.disturb = disturb
    with pytest.raises(ObjectStoreError, match="uploading"):
        upload(bucket, name)
    assert bucket.read(name) is None


def test_a_slow_network_holds_the_writer_up(bucket, name, line):
    arrived = threading.Event()
    line.disturb = lambda number, request, carry_out: (
        None if request.method != "PUT" or arrived.wait(30) else pytest.fail("nobody went on")
    )
    written = []

    def write():
        with bucket.stream_new(name) as sink:
            for _ in range(10):
                sink.write(DATA)
                written.append(len(DATA))

    writer = threading.Thread(target=write)
    writer.start()
    writer.join(1)
    # A chunk on its way, the pieces in the queue, and one that is being filled.
    assert sum(written) <= MEGABYTE + (objects.UPLOAD_PIECES + 2) * len(DATA)
    assert writer.is_alive()
    arrived.set()
    writer.join(30)
    assert bucket.read(name).data == DATA * 10
