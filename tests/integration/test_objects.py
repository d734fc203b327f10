"""Create once, compare and swap, read, list: on a real object store, alone and at the same time."""

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from nightscore.clients import build_storage
from nightscore.errors import ConfigurationError, TransientError
from nightscore.objects import Bucket, ObjectAccessError, ObjectStoreError, retry_swap, to_json
from nightscore.settings import Settings


@pytest.fixture
def bucket(settings: Settings) -> Bucket:
    return Bucket(build_storage(settings), settings.bucket)


@pytest.fixture
def name() -> str:
    return f"objects/{uuid.uuid4().hex}"


def test_an_object_goes_in_and_comes_out(bucket: Bucket, name: str) -> None:
    assert bucket.read(name) is None
    assert bucket.read_json(name) is None
    assert bucket.create(name, to_json({"a": "é"}))
    stored = bucket.read(name)
    assert stored is not None
    assert stored.data == to_json({"a": "é"})
    assert stored.generation > 0
    assert bucket.read_json(name) == {"a": "é"}
    assert bucket.uri(name) == f"gs://{bucket.name}/{name}"


@pytest.mark.parametrize("data", [b"", b"\x00\xff" * 1000, b"x" * (3 * 2**20)], ids=["empty", "binary", "large"])
def test_bytes_stay_what_they_are(bucket: Bucket, name: str, data: bytes) -> None:
    assert bucket.create(name, data, "application/octet-stream")
    stored = bucket.read(name)
    assert stored is not None
    assert stored.data == data


def test_creating_again_is_true_only_of_the_same_bytes(bucket: Bucket, name: str) -> None:
    assert bucket.create(name, b"one")
    before = bucket.read(name)
    assert bucket.create(name, b"one")
    assert not bucket.create(name, b"two")
    assert not bucket.create_new(name, b"one")
    assert bucket.read(name) == before


def test_a_swap_needs_the_generation_it_read(bucket: Bucket, name: str) -> None:
    assert bucket.swap(name, b"one", 0)
    first = bucket.read(name)
    assert first is not None
    assert bucket.swap(name, b"two", first.generation)
    assert not bucket.swap(name, b"three", first.generation)
    assert not bucket.swap(name, b"three", 0)
    assert bucket.swap(name, b"two", first.generation), "a lost answer: these bytes are there"
    second = bucket.read(name)
    assert second is not None
    assert second.data == b"two"
    assert second.generation != first.generation


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    barrier = threading.Barrier(count)

    def one(index: int) -> Any:
        barrier.wait()
        return work(index)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


@pytest.mark.parametrize("create", ["create", "create_new"])
def test_of_eight_that_create_one_wins(settings: Settings, bucket: Bucket, name: str, create: str) -> None:
    buckets = [Bucket(build_storage(settings), settings.bucket) for _ in range(8)]
    won = together(8, lambda index: getattr(buckets[index], create)(name, b"attempt %d" % index))
    assert sum(won) == 1
    stored = bucket.read(name)
    assert stored is not None
    assert stored.data == b"attempt %d" % won.index(True)


def test_of_many_increments_none_is_lost(settings: Settings, bucket: Bucket, name: str) -> None:
    buckets = [Bucket(build_storage(settings), settings.bucket) for _ in range(4)]

    def count(index: int) -> None:
        mine = buckets[index]

        def attempt() -> bool:
            stored = mine.read(name)
            value = stored.json() if stored else {"done": []}
            done = [*value["done"], f"{index}.{len(value['done'])}"]
            return mine.swap(name, to_json({"done": done}), stored.generation if stored else 0)

        for _ in range(5):
            retry_swap(attempt, "counting")

    together(4, count)
    found = bucket.read_json(name)
    assert found is not None
    assert [entry.split(".")[1] for entry in found["done"]] == [str(number) for number in range(20)]


def test_a_swap_that_never_wins_gives_up() -> None:
    tries: list[int] = []

    def attempt() -> bool:
        tries.append(1)
        return False

    with pytest.raises(ObjectStoreError) as caught:
        retry_swap(attempt, "moving the alias champion", times=3)
    assert len(tries) == 3
    assert str(caught.value) == (
        "Cloud Storage failed while moving the alias champion: others changed the object 3 times in a row"
    )


def test_names_and_folders(bucket: Bucket, name: str) -> None:
    for path in ("b/part-00001.json", "b/part-00000.json", "b/part-00000.parquet", "a/x", "c"):
        bucket.create(f"{name}/{path}", b"{}")
    prefix = f"{name}/"
    assert [found.removeprefix(prefix) for found in bucket.iter_names(prefix)] == [
        "a/x",
        "b/part-00000.json",
        "b/part-00000.parquet",
        "b/part-00001.json",
        "c",
    ]
    matching = bucket.iter_names(f"{prefix}b/", match_glob="**/part-*.json")
    assert [found.rsplit("/", 1)[-1] for found in matching] == ["part-00000.json", "part-00001.json"]
    assert list(bucket.iter_folders(prefix)) == ["a", "b"]
    assert list(bucket.iter_folders(f"{prefix}nothing/")) == []
    assert list(bucket.iter_names(f"{prefix}nothing/")) == []


def test_more_names_than_a_page_holds(bucket: Bucket, name: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: bucket.create(f"{name}/{number:04d}/x", b""), range(1005)))
    assert len(list(bucket.iter_names(f"{name}/"))) == 1005
    assert list(bucket.iter_folders(f"{name}/")) == [f"{number:04d}" for number in range(1005)]


def upload(bucket: Bucket, name: str) -> None:
    with bucket.stream_new(name) as sink:
        sink.write(b"rows")


OPERATIONS: dict[str, Callable[[Bucket], object]] = {
    "reading": lambda bucket: bucket.read("a/b"),
    "creating": lambda bucket: bucket.create("a/b", b""),
    "replacing": lambda bucket: bucket.swap("a/b", b"", 0),
    "uploading": lambda bucket: upload(bucket, "a/b"),
    "listing": lambda bucket: list(bucket.iter_names("a/b")),
}


@pytest.mark.parametrize("doing", OPERATIONS)
def test_a_missing_bucket_is_said_to_be_missing(settings: Settings, doing: str) -> None:
    absent = Bucket(build_storage(settings), "no-such-bucket")
    with pytest.raises(ObjectAccessError) as caught:
        OPERATIONS[doing](absent)
    assert isinstance(caught.value, ConfigurationError)
    assert str(caught.value).startswith(f"Cloud Storage refused a request while {doing} a/b: ")
    assert "no-such-bucket" in str(caught.value)
    assert "bucket does not exist" in str(caught.value)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client give up after a second instead of two minutes."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    monkeypatch.setattr(DEFAULT_RETRY, "_timeout", 1.0)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("doing", OPERATIONS)
def test_a_server_that_is_down_is_worth_a_retry(settings: Settings, doing: str) -> None:
    down = Bucket(build_storage(replace(settings, storage_host="http://127.0.0.1:9")), settings.bucket)
    with pytest.raises(ObjectStoreError) as caught:
        OPERATIONS[doing](down)
    assert isinstance(caught.value, TransientError)
    assert str(caught.value).startswith(f"Cloud Storage failed while {doing} a/b: ")
    assert len(str(caught.value)) < 500
