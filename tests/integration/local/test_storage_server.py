"""The local Cloud Storage server, driven by the real clients against a real process."""

import base64
import hashlib
import http.client
import io
import itertools
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree as ET

import google_crc32c
import pytest
import requests
from google.api_core import exceptions
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from google.cloud.storage import transfer_manager
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

GRAIN = 256 * 1024
ODD_NAMES = [
    "plain.txt",
    "a/b/c.parquet",
    "dt=2026-11-20/part 1.parquet",
    "100%.txt",
    "a%2Fb",
    "ü/ñ/日本.txt",
    "../../etc/passwd",
    "a/../b",
    "/leading",
    "trailing/",
    "double//slash",
    "?query=1&x#fragment",
    "plus+and&ampersand;semi'quote\"",
    "tab\tand|pipe",
    "x" * 1024,
]


class StorageProcess:
    """A server process of its own on a free port."""

    def __init__(self, data_dir, *arguments):
        self.data_dir = data_dir
        self.port_file = data_dir.parent / f"{uuid.uuid4().hex}.port"
        command = [sys.executable, "-m", "nightscore.local.storage_server", "--port", "0", *arguments]
        self.process = subprocess.Popen(
            [*command, "--data-dir", str(data_dir), "--port-file", str(self.port_file)], stdout=subprocess.PIPE
        )
        self.first_line = self.process.stdout.readline().decode()
        self.port = int(self.port_file.read_text())
        self.url = f"http://127.0.0.1:{self.port}"

    def client(self):
        options = ClientOptions(api_endpoint=self.url)
        return storage.Client(project="local", credentials=AnonymousCredentials(), client_options=options)

    def blob_files(self):
        return {path.name for path in (self.data_dir / "blobs").iterdir()}

    def end(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.stdout.close()
        return self.process.wait(timeout=20)


@pytest.fixture(scope="module")
def storage_server(tmp_path_factory):
    server = StorageProcess(tmp_path_factory.mktemp("storage") / "data")
    yield server
    server.end()


def test_a_bucket_is_there_from_the_start_and_what_it_holds_stays(tmp_path):
    for content in (b"first", b"second"):
        server = StorageProcess(tmp_path / "data", "--bucket", "mine")
        try:
            blob = server.client().bucket("mine").blob("kept")
            assert blob.exists() is (content == b"second")
            blob.upload_from_string(content)
        finally:
            server.end()


def test_a_bucket_that_cannot_be_ends_the_server_with_a_sentence(tmp_path):
    command = [sys.executable, "-m", "nightscore.local.storage_server", "--data-dir", str(tmp_path), "--bucket", "A B"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode != 0
    assert done.stderr.startswith("The bucket A B cannot be created")


@pytest.fixture(scope="module")
def storage_client(storage_server):
    return storage_server.client()


@pytest.fixture
def bucket(storage_client):
    return storage_client.create_bucket(f"b-{uuid.uuid4().hex[:12]}")


@pytest.fixture
def api(storage_server):
    """Plain HTTP to the server, on one connection that stays open."""
    with requests.Session() as session:

        def call(method, path, **options):
            return session.request(method, storage_server.url + path, timeout=20, **options)

        yield call


def restarted(server):
    return StorageProcess(server.data_dir)


def wait_until(condition):
    deadline = time.monotonic() + 60  # a busy disk
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def put(bucket, name, content="x", **conditions):
    blob = bucket.blob(name)
    blob.upload_from_string(content, **conditions)
    return blob


def names(blobs):
    return [blob.name for blob in blobs]


def crc32c(content):
    return base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()


def md5(content):
    return base64.b64encode(hashlib.md5(content).digest()).decode()


# ---------------------------------------------------------------- buckets


def test_a_bucket_is_created_read_listed_and_deleted(storage_client, bucket):
    assert storage_client.get_bucket(bucket.name).metageneration == 1
    assert bucket.name in names(storage_client.list_buckets(prefix=bucket.name[:6]))
    assert names(storage_client.list_buckets(prefix="no-such-prefix")) == []
    bucket.delete()
    assert not bucket.exists()


def test_buckets_are_listed_in_pages(storage_client):
    prefix = f"pages-{uuid.uuid4().hex[:6]}-"
    wanted = [storage_client.create_bucket(f"{prefix}{n}").name for n in range(5)]
    assert names(storage_client.list_buckets(prefix=prefix, page_size=2)) == wanted


@pytest.mark.parametrize(
    ("attempt", "error", "words"),
    [
        (lambda client, bucket: client.create_bucket(bucket.name), exceptions.Conflict, "already own it"),
        (lambda client, bucket: client.create_bucket("Not_A_Bucket"), exceptions.BadRequest, "Invalid bucket name"),
        (lambda client, bucket: client.get_bucket("no-such-bucket"), exceptions.NotFound, "bucket does not exist"),
        (lambda client, bucket: client.bucket("no-such-bucket").delete(), exceptions.NotFound, "bucket does not exist"),
        (lambda client, bucket: list(client.list_blobs("no-such-bucket")), exceptions.NotFound, "does not exist"),
        (lambda client, bucket: put(client.bucket("no-such-bucket"), "x"), exceptions.NotFound, "does not exist"),
        (lambda client, bucket: (put(bucket, "x"), bucket.delete()), exceptions.Conflict, "not empty"),
    ],
    ids=["duplicate", "bad name", "get", "delete", "list", "upload", "not empty"],
)
def test_a_bucket_is_refused(storage_client, bucket, attempt, error, words):
    with pytest.raises(error, match=words):
        attempt(storage_client, bucket)


def test_settings_of_a_bucket_are_kept_merged_and_removed(storage_client, bucket):
    bucket.labels = {"team": "risk", "env": "dev"}
    bucket.add_lifecycle_delete_rule(age=7)
    bucket.versioning_enabled = True
    bucket.patch()
    again = storage_client.get_bucket(bucket.name)
    assert (again.labels, again.versioning_enabled, again.metageneration) == ({"team": "risk", "env": "dev"}, True, 2)
    assert next(iter(again.lifecycle_rules))["condition"] == {"age": 7}
    labels = again.labels
    del labels["env"]
    again.labels = labels
    again.patch()
    assert storage_client.get_bucket(bucket.name).labels == {"team": "risk"}


def test_metageneration_preconditions_of_a_bucket(bucket):
    bucket.labels = {"a": "1"}
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.patch(if_metageneration_match=9)
    bucket.patch(if_metageneration_match=1)
    with pytest.raises(exceptions.NotModified):
        bucket.reload(if_metageneration_not_match=2)
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.reload(if_metageneration_match=1)
    bucket.reload(if_metageneration_match=2)


# ---------------------------------------------------------------- objects


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_is_written_read_listed_copied_and_deleted(bucket, name):
    content = f"content of {name}".encode()
    put(bucket, name, content)
    assert bucket.blob(name).download_as_bytes() == content
    assert names(bucket.list_blobs()) == [name]
    bucket.copy_blob(bucket.blob(name), bucket, "copy")
    assert bucket.blob("copy").download_as_bytes() == content
    bucket.blob(name).delete()
    assert names(bucket.list_blobs()) == ["copy"]


@pytest.mark.parametrize("name", ["", ".", "..", "a\nb", "a\rb", "x" * 1025, ".well-known/acme-challenge/x"])
def test_a_name_is_refused(api, bucket, name):
    response = api("POST", f"/upload/storage/v1/b/{bucket.name}/o?uploadType=media&name={quote(name)}", data=b"x")
    assert (response.status_code, list(bucket.list_blobs())) == (400, [])


def test_an_object_and_its_namesake_folder_live_side_by_side(bucket):
    put(bucket, "a", "file")
    put(bucket, "a/b", "inside")
    assert [bucket.blob(name).download_as_text() for name in ("a", "a/b")] == ["file", "inside"]


def test_the_resource_of_an_upload_says_what_was_sent(bucket):
    blob = bucket.blob("x.json")
    blob.metadata = {"run": "r1", "größe": "1"}
    blob.cache_control = "no-store"
    blob.upload_from_string(b'{"a": 1}', content_type="application/json")
    got = bucket.get_blob("x.json")
    assert (got.content_type, got.cache_control, got.size) == ("application/json", "no-store", 8)
    assert got.metadata == {"run": "r1", "größe": "1"}
    assert (got.crc32c, got.md5_hash) == (crc32c(b'{"a": 1}'), md5(b'{"a": 1}'))
    assert (got.generation, got.metageneration, got.storage_class) == (blob.generation, 1, "STANDARD")
    assert got.time_created is not None
    assert got.updated == got.time_created


@pytest.mark.parametrize(
    ("key", "value", "sent"),
    [
        ("run", "größe", "größe"),
        ("run", "a\r\nSet-Cookie: b", "a Set-Cookie: b"),
        ("größe", "1", None),
        ("a: b", "1", None),
    ],
)
def test_any_metadata_is_kept_and_does_no_harm_as_a_header(api, bucket, key, value, sent):
    blob = bucket.blob("x")
    blob.metadata = {key: value}
    blob.upload_from_string("content")
    assert bucket.get_blob("x").metadata == {key: value}
    response = api("GET", f"/{bucket.name}/x")
    header = response.headers.get("X-Goog-Meta-run")
    assert (response.text, header.encode("latin-1").decode() if header else None) == ("content", sent)
    assert "Set-Cookie" not in response.headers


def test_an_overwrite_gets_a_later_generation_and_leaves_one_file(storage_server, bucket):
    before = storage_server.blob_files()
    generations = [put(bucket, "x", str(n)).generation for n in range(5)]
    assert generations == sorted(set(generations))
    assert bucket.blob("x").download_as_text() == "4"
    assert len(storage_server.blob_files() - before) == 1


def test_a_patch_changes_metadata_and_only_the_metageneration(bucket):
    blob = put(bucket, "x")
    blob.metadata = {"a": "1", "b": "2"}
    blob.patch()
    blob.metadata = {"a": None, "c": "3"}
    blob.content_type = "text/csv"
    blob.patch()
    got = bucket.get_blob("x")
    assert (got.metadata, got.content_type) == ({"b": "2", "c": "3"}, "text/csv")
    assert (got.metageneration, got.generation, got.etag != "") == (3, blob.generation, True)
    got.metadata = {"only": "this"}
    got.update()
    assert bucket.get_blob("x").metadata == {"only": "this"}


def test_a_held_object_is_neither_deleted_nor_overwritten(bucket):
    blob = put(bucket, "x", "kept")
    blob.temporary_hold = True
    blob.patch()
    for attempt in (blob.delete, lambda: put(bucket, "x", "new")):
        with pytest.raises(exceptions.Forbidden, match="under active hold"):
            attempt()
    assert blob.download_as_text() == "kept"
    blob.temporary_hold = False
    blob.patch()
    blob.delete()


def test_versions_stay_readable_until_deleted_one_by_one(bucket):
    bucket.versioning_enabled = True
    bucket.patch()
    first, second = put(bucket, "x", "1").generation, put(bucket, "x", "2").generation
    bucket.blob("x").delete()
    assert bucket.get_blob("x") is None
    assert [blob.generation for blob in bucket.list_blobs(versions=True)] == [first, second]
    assert list(bucket.list_blobs()) == []
    assert bucket.blob("x", generation=first).download_as_text() == "1"
    bucket.blob("x", generation=first).delete()
    assert [blob.generation for blob in bucket.list_blobs(versions=True)] == [second]
    with pytest.raises(exceptions.Conflict):
        bucket.delete()


def test_without_versioning_an_old_generation_is_gone(bucket):
    old = put(bucket, "x", "1").generation
    put(bucket, "x", "2")
    with pytest.raises(exceptions.NotFound):
        bucket.blob("x", generation=old).download_as_bytes()


# ---------------------------------------------------------------- preconditions

WRITES = {
    "upload": lambda bucket, **when: put(bucket, "x", "new", **when),
    "upload of bytes only": lambda bucket, **when: bucket.blob("x").upload_from_file(io.BytesIO(b"new"), **when),
    "resumable upload": lambda bucket, **when: bucket.blob("x", chunk_size=GRAIN).upload_from_file(
        io.BytesIO(b"n" * GRAIN * 2), **when
    ),
    "compose": lambda bucket, **when: bucket.blob("x").compose([bucket.blob("other")], **when),
    "rewrite": lambda bucket, **when: bucket.blob("x").rewrite(bucket.blob("other"), **when),
    "copy": lambda bucket, **when: bucket.copy_blob(bucket.blob("other"), bucket, "x", **when),
    "move": lambda bucket, **when: bucket.move_blob(bucket.blob("other"), "x", **when),
    "delete": lambda bucket, **when: bucket.blob("x").delete(**when),
    "patch": lambda bucket, **when: _relabelled(bucket).patch(**when),
    "update": lambda bucket, **when: _relabelled(bucket).update(**when),
}
FROM_SOURCE = {
    "rewrite": lambda bucket, **when: bucket.blob("copy").rewrite(bucket.blob("x"), **when),
    "copy": lambda bucket, **when: bucket.copy_blob(bucket.blob("x"), bucket, "copy", **when),
    "move": lambda bucket, **when: bucket.move_blob(bucket.blob("x"), "copy", **when),
}
READS = {
    "get": lambda bucket, **when: bucket.blob("x").reload(**when),
    "download": lambda bucket, **when: bucket.blob("x").download_as_bytes(**when),
}
HOLDS = [("generation_match", 0), ("generation_not_match", 1), ("metageneration_match", 0)]
HOLDS += [("metageneration_not_match", 1)]
FAILS = [(name, 1 - shift) for name, shift in HOLDS]


def _writes(conditions):
    # The client's compose has no parameters for not-match.
    pairs = itertools.product(WRITES, conditions)
    return [(write, *condition) for write, condition in pairs if write != "compose" or "_not_" not in condition[0]]


def _relabelled(bucket):
    blob = bucket.blob("x")
    blob.metadata = {"changed": "yes"}
    return blob


def _state(bucket):
    return [(blob.name, blob.generation, blob.metageneration) for blob in bucket.list_blobs()]


def _condition(bucket, name, shift, prefix="if"):
    blob = bucket.get_blob("x")
    value = blob.metageneration if name.startswith("meta") else blob.generation
    return {f"{prefix}_{name}": value + shift}


@pytest.fixture
def two_objects(bucket):
    """Objects `x`, patched once, and `other`."""
    put(bucket, "x", "old")
    put(bucket, "other", "other")
    _relabelled(bucket).patch()
    return bucket


@pytest.mark.parametrize(("operation", "name", "shift"), _writes(FAILS))
def test_a_write_whose_precondition_fails_changes_nothing(two_objects, operation, name, shift):
    before = _state(two_objects)
    with pytest.raises(exceptions.PreconditionFailed):
        WRITES[operation](two_objects, **_condition(two_objects, name, shift))
    assert _state(two_objects) == before
    assert two_objects.blob("x").download_as_text() == "old"


@pytest.mark.parametrize(("operation", "name", "shift"), _writes(HOLDS))
def test_a_write_whose_precondition_holds_is_done(two_objects, operation, name, shift):
    before = _state(two_objects)
    WRITES[operation](two_objects, **_condition(two_objects, name, shift))
    assert _state(two_objects) != before


@pytest.mark.parametrize("operation", [name for name in WRITES if name not in {"delete", "patch", "update"}])
def test_generation_zero_means_create_only(two_objects, operation):
    with pytest.raises(exceptions.PreconditionFailed):
        WRITES[operation](two_objects, if_generation_match=0)
    two_objects.blob("x").delete()
    WRITES[operation](two_objects, if_generation_match=0)
    assert two_objects.blob("x").exists()


@pytest.mark.parametrize(("name", "shift"), FAILS)
@pytest.mark.parametrize("operation", FROM_SOURCE)
def test_a_source_precondition_that_fails_copies_nothing(two_objects, operation, name, shift):
    before = _state(two_objects)
    with pytest.raises(exceptions.PreconditionFailed):
        FROM_SOURCE[operation](two_objects, **_condition(two_objects, name, shift, "if_source"))
    assert _state(two_objects) == before


@pytest.mark.parametrize(("name", "shift"), HOLDS)
@pytest.mark.parametrize("operation", FROM_SOURCE)
def test_a_source_precondition_that_holds_copies(two_objects, operation, name, shift):
    FROM_SOURCE[operation](two_objects, **_condition(two_objects, name, shift, "if_source"))
    assert two_objects.blob("copy").download_as_text() == "old"
    assert two_objects.blob("x").exists() == (operation != "move")


@pytest.mark.parametrize(("name", "shift"), FAILS)
@pytest.mark.parametrize("operation", READS)
def test_a_read_whose_precondition_fails(two_objects, operation, name, shift):
    error = exceptions.NotModified if "not" in name else exceptions.PreconditionFailed
    with pytest.raises(error):
        READS[operation](two_objects, **_condition(two_objects, name, shift))


@pytest.mark.parametrize(("name", "shift"), HOLDS)
@pytest.mark.parametrize("operation", READS)
def test_a_read_whose_precondition_holds(two_objects, operation, name, shift):
    assert READS[operation](two_objects, **_condition(two_objects, name, shift)) in (None, b"old")


def test_a_read_by_etag(two_objects):
    blob = two_objects.get_blob("x")
    blob.reload(if_etag_match=blob.etag)
    with pytest.raises(exceptions.PreconditionFailed):
        blob.reload(if_etag_match="another")
    with pytest.raises(exceptions.NotModified):
        blob.reload(if_etag_not_match=blob.etag)


def test_each_component_of_a_compose_has_its_own_precondition(two_objects):
    sources = [two_objects.get_blob("x"), two_objects.get_blob("other")]
    right = [blob.generation for blob in sources]
    with pytest.raises(exceptions.PreconditionFailed):
        two_objects.blob("joined").compose(sources, if_source_generation_match=[right[0], right[1] + 1])
    assert not two_objects.blob("joined").exists()
    two_objects.blob("joined").compose(sources, if_source_generation_match=right)
    assert two_objects.blob("joined").download_as_text() == "oldother"


def test_a_deleted_generation_never_comes_back(bucket):
    blob = put(bucket, "x", "1")
    first = blob.generation
    blob.delete()
    again = put(bucket, "x", "2", if_generation_match=0)
    assert again.generation > first
    with pytest.raises(exceptions.PreconditionFailed):
        put(bucket, "x", "3", if_generation_match=first)


# ---------------------------------------------------------------- checksums


@pytest.mark.parametrize("field", ["crc32c", "md5_hash"])
@pytest.mark.parametrize("size", [0, 5, 3 * GRAIN], ids=["empty", "small", "resumable"])
def test_a_wrong_checksum_stores_nothing(storage_server, bucket, field, size):
    before = storage_server.blob_files()
    blob = bucket.blob("x", chunk_size=GRAIN if size > GRAIN else None)
    wrong = {"crc32c": crc32c(b"other"), "md5_hash": md5(b"other")}
    setattr(blob, field, wrong[field])
    with pytest.raises(exceptions.BadRequest, match="doesn't match"):
        blob.upload_from_file(io.BytesIO(b"x" * size), size=size, checksum=None)
    assert bucket.get_blob("x") is None
    assert storage_server.blob_files() == before


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X-Goog-Hash": f"crc32c={crc32c(b'hello')}"}, 200),
        ({"X-Goog-Hash": f"crc32c={crc32c(b'hello')},md5={md5(b'hello')}"}, 200),
        ({"X-Goog-Hash": f"crc32c={crc32c(b'other')}"}, 400),
        ({"X-Goog-Hash": f"crc32c={crc32c(b'hello')},md5={md5(b'other')}"}, 400),
        ({"Content-MD5": md5(b"hello")}, 200),
        ({"Content-MD5": md5(b"other")}, 400),
    ],
)
@pytest.mark.parametrize("kind", ["media", "resumable", "xml"])
def test_checksums_in_headers_are_checked(api, bucket, kind, headers, status):
    if kind == "xml":
        response = api("PUT", f"/{bucket.name}/x", data=b"hello", headers=headers)
    elif kind == "media":
        path = f"/upload/storage/v1/b/{bucket.name}/o?uploadType=media&name=x"
        response = api("POST", path, data=b"hello", headers=headers)
    else:
        session = _path(bucket.blob("x").create_resumable_upload_session(size=5))
        response = api("PUT", session, data=b"hello", headers={"Content-Range": "bytes 0-4/5", **headers})
    assert (response.status_code, bucket.blob("x").exists()) == (status, status == 200)


@pytest.mark.parametrize("checksum", ["crc32c", "md5", "auto", None])
@pytest.mark.parametrize("size", [0, 1, GRAIN, 2 * GRAIN + 1])
def test_the_clients_own_checksums_pass(bucket, checksum, size):
    content = os.urandom(size)
    bucket.blob("x", chunk_size=GRAIN).upload_from_file(io.BytesIO(content), checksum=checksum)
    download = {"checksum": checksum} if checksum != "auto" else {}
    assert bucket.blob("x").download_as_bytes(**download) == content


# ---------------------------------------------------------------- uploads in several requests


def _path(url):
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


def _send(api, session, first, content, total="*"):
    span = {"Content-Range": f"bytes {first}-{first + len(content) - 1}/{total}"}
    return api("PUT", _path(session), data=content, headers=span)


def _status(api, session, total="*"):
    return api("PUT", _path(session), headers={"Content-Range": f"bytes */{total}"})


def test_an_object_is_absent_until_its_resumable_upload_is_finished(api, bucket):
    content = os.urandom(2 * GRAIN + 100)
    session = bucket.blob("x").create_resumable_upload_session(size=len(content))
    assert "Range" not in _status(api, session).headers
    answer = _send(api, session, 0, content[:GRAIN], len(content))
    assert (answer.status_code, answer.headers["Range"]) == (308, f"bytes=0-{GRAIN - 1}")
    assert bucket.get_blob("x") is None
    answer = _send(api, session, GRAIN, content[GRAIN:], len(content))
    assert (answer.status_code, answer.json()["crc32c"]) == (200, crc32c(content))
    assert bucket.blob("x").download_as_bytes() == content


def test_an_upload_of_unknown_length_ends_with_its_total(api, bucket):
    session = bucket.blob("x").create_resumable_upload_session()
    _send(api, session, 0, b"a" * GRAIN)
    assert _status(api, session, GRAIN).status_code == 200
    assert bucket.get_blob("x").size == GRAIN


def test_only_whole_multiples_of_256_kib_of_an_unfinished_upload_are_kept(api, bucket):
    session = bucket.blob("x").create_resumable_upload_session()
    assert _send(api, session, 0, b"a" * (GRAIN + 1)).headers["Range"] == f"bytes=0-{GRAIN - 1}"


def test_a_repeated_chunk_is_skipped_and_a_gap_refused(api, bucket):
    content = os.urandom(3 * GRAIN)
    session = bucket.blob("x").create_resumable_upload_session(size=len(content))
    _send(api, session, 0, content[: 2 * GRAIN], len(content))
    assert _send(api, session, 0, b"?" * GRAIN, len(content)).status_code == 308
    assert _send(api, session, 2 * GRAIN + 1, content[2 * GRAIN + 1 :], len(content)).status_code == 400
    assert _send(api, session, GRAIN, content[GRAIN:], len(content)).status_code == 200
    assert bucket.blob("x").download_as_bytes() == content


def test_a_last_chunk_whose_answer_was_lost_may_be_repeated(api, bucket):
    session = bucket.blob("x").create_resumable_upload_session(size=3)
    first = _send(api, session, 0, b"abc", 3).json()
    assert _send(api, session, 0, b"abc", 3).json() == first
    assert _status(api, session).json()["generation"] == first["generation"]
    assert bucket.get_blob("x").generation == int(first["generation"])


def test_a_cancelled_upload_is_gone(api, storage_server, bucket):
    before = storage_server.blob_files()
    session = bucket.blob("x").create_resumable_upload_session(size=2 * GRAIN)
    _send(api, session, 0, b"a" * GRAIN, 2 * GRAIN)
    assert api("DELETE", _path(session)).status_code == 499
    assert _status(api, session).status_code == 404
    assert storage_server.blob_files() == before


def test_an_upload_resumes_after_its_connection_broke(api, storage_server, bucket):
    content = os.urandom(4 * GRAIN)
    session = bucket.blob("x").create_resumable_upload_session(size=len(content))
    sent = content[: 2 * GRAIN + 77]
    with socket.create_connection(("127.0.0.1", storage_server.port)) as connection:
        connection.sendall(
            f"PUT {_path(session)} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n"
            f"Content-Range: bytes 0-{len(content) - 1}/{len(content)}\r\n\r\n".encode()
        )
        connection.sendall(sent)
    deadline = time.monotonic() + 10
    while (kept := _status(api, session).headers.get("Range")) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert kept == f"bytes=0-{2 * GRAIN - 1}"
    assert _send(api, session, 2 * GRAIN, content[2 * GRAIN :], len(content)).status_code == 200
    assert bucket.blob("x").download_as_bytes() == content


def test_preconditions_of_a_resumable_upload_are_judged_when_it_ends(api, storage_server, bucket):
    session = bucket.blob("x").create_resumable_upload_session(size=3, if_generation_match=0)
    put(bucket, "x", "winner")
    before = storage_server.blob_files()
    assert _send(api, session, 0, b"abc", 3).status_code == 412
    assert bucket.blob("x").download_as_text() == "winner"
    assert len(before - storage_server.blob_files()) == 1


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ({"Content-Range": "bytes 0-9/10"}, b"abc", 400),
        ({"Content-Range": "bytes 0-1/2"}, b"abc", 400),
        ({"Content-Range": "bytes 5-1/10"}, b"abc", 400),
        ({"Content-Range": "nonsense"}, b"abc", 400),
        ({}, b"abc", 200),
    ],
)
def test_the_content_range_must_fit_the_bytes(api, bucket, headers, content, status):
    session = bucket.blob("x").create_resumable_upload_session()
    assert api("PUT", _path(session), data=content, headers=headers).status_code == status
    assert bucket.blob("x").exists() == (status == 200)


def test_a_stream_of_unknown_length_is_written_through_a_file_object(bucket):
    with bucket.blob("x").open("wb", chunk_size=GRAIN) as file:
        for letter in b"abcdef":
            file.write(bytes([letter]) * 100_000)
    content = bucket.blob("x").download_as_bytes()
    assert (len(content), content[0], content[-1]) == (600_000, ord("a"), ord("f"))


def test_parts_sent_concurrently_become_one_object(bucket, tmp_path):
    file = tmp_path / "parts.bin"
    file.write_bytes(os.urandom(11 * 2**20))
    blob = bucket.blob("dir/parts ü.bin")
    blob.metadata = {"run": "r1"}
    transfer_manager.upload_chunks_concurrently(str(file), blob, chunk_size=5 * 2**20, worker_type="thread")
    got = bucket.get_blob("dir/parts ü.bin")
    assert (got.component_count, got.metadata, got.md5_hash) == (3, {"run": "r1"}, None)
    assert got.download_as_bytes() == file.read_bytes()


def _start_parts(api, bucket):
    text = api("POST", f"/{bucket.name}/x?uploads").text
    return re.search("<UploadId>(.*)</UploadId>", text)[1]


def _complete(api, bucket, upload, *parts):
    listed = "".join(f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>" for number, etag in parts)
    body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>"
    return api("POST", f"/{bucket.name}/x?uploadId={upload}", data=body)


def test_a_multipart_upload_that_is_wrong_is_refused_in_xml(api, storage_server, bucket):
    before = storage_server.blob_files()
    upload = _start_parts(api, bucket)
    part = f"/{bucket.name}/x?partNumber=%d&uploadId={upload}"
    corrupt = api("PUT", part % 1, data=b"abc", headers={"X-Goog-Hash": f"crc32c={crc32c(b'abd')}"})
    assert (corrupt.status_code, ET.fromstring(corrupt.text).findtext("Code")) == (400, "BadDigest")
    etags = {number: api("PUT", part % number, data=b"abc").headers["ETag"] for number in (1, 2)}
    cases = {
        "EntityTooSmall": [(1, etags[1]), (2, etags[2])],
        "InvalidPartOrder": [(2, etags[2]), (1, etags[1])],
        "InvalidPart": [(1, "another")],
    }
    for code, parts in cases.items():
        answer = _complete(api, bucket, upload, *parts)
        assert (answer.status_code, ET.fromstring(answer.text).findtext("Code")) == (400, code)
    assert bucket.get_blob("x") is None
    assert api("DELETE", f"/{bucket.name}/x?uploadId={upload}").status_code == 204
    assert _complete(api, bucket, upload, (1, etags[1])).status_code == 404
    assert storage_server.blob_files() == before


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize(
    ("asked", "status", "content"),
    [
        (None, 200, b"0123456789"),
        ("bytes=0-3", 206, b"0123"),
        ("bytes=4-", 206, b"456789"),
        ("bytes=-3", 206, b"789"),
        ("bytes=8-99", 206, b"89"),
        ("bytes=-99", 206, b"0123456789"),
        ("bytes=10-", 416, None),
        ("bytes=10-12", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=5-3", 200, b"0123456789"),
        ("lines=1-2", 200, b"0123456789"),
    ],
)
@pytest.mark.parametrize(
    "dialect", ["/storage/v1/b/{}/o/x?alt=media", "/download/storage/v1/b/{}/o/x?alt=media", "/{}/x"]
)
def test_a_range_is_read(api, bucket, dialect, asked, status, content):
    put(bucket, "x", "0123456789")
    response = api("GET", dialect.format(bucket.name), headers={"Range": asked} if asked else {})
    assert response.status_code == status
    if status == 416:
        assert response.headers["Content-Range"] == "bytes */10"
    else:
        assert response.content == content
        assert response.headers["X-Goog-Hash"].startswith(f"crc32c={crc32c(b'0123456789')}")
    if status == 206:
        first = 10 - len(content) if asked.startswith("bytes=-") or asked.endswith(("-", "99")) else 0
        assert response.headers["Content-Range"] == f"bytes {first}-{first + len(content) - 1}/10"


def test_a_file_object_seeks(bucket):
    content = os.urandom(700_000)
    put(bucket, "x", content)
    with bucket.blob("x").open("rb", chunk_size=GRAIN) as file:
        file.seek(400_000)
        assert file.read(300_000) == content[400_000:]
        file.seek(-5, io.SEEK_END)
        assert file.read() == content[-5:]


def test_a_reader_finishes_with_the_old_bytes(storage_server, bucket):
    old = os.urandom(2**20) * 48
    put(bucket, "x", old)
    connection = http.client.HTTPConnection("127.0.0.1", storage_server.port, timeout=30)
    connection.request("GET", f"/{bucket.name}/x")
    response = connection.getresponse()
    start = response.read(1000)
    put(bucket, "x", "new")
    bucket.blob("x").delete()
    assert start + response.read() == old
    connection.close()


# ---------------------------------------------------------------- listing

TREE = ["a", "a/b", "a/b/c.json", "a/b/d.json", "a/x.parquet", "b/1/part-1.json", "b/2/part-2.json", "c", "ü/z", "日"]


@pytest.fixture(scope="module")
def tree(storage_client):
    bucket = storage_client.create_bucket(f"tree-{uuid.uuid4().hex[:8]}")
    for name in reversed(TREE):
        put(bucket, name)
    return bucket


@pytest.mark.parametrize("page_size", [None, 1, 2, 3])
@pytest.mark.parametrize(
    ("asked", "items", "prefixes"),
    [
        ({}, TREE, []),
        ({"prefix": "a/"}, TREE[1:5], []),
        ({"prefix": "nothing"}, [], []),
        ({"delimiter": "/"}, ["a", "c", "日"], ["a/", "b/", "ü/"]),
        ({"delimiter": "/", "prefix": "a/"}, ["a/b", "a/x.parquet"], ["a/b/"]),
        ({"delimiter": "part", "prefix": "b/"}, [], ["b/1/part", "b/2/part"]),
        ({"start_offset": "a/b/d.json", "end_offset": "c"}, TREE[3:7], []),
        ({"prefix": "a/b", "start_offset": "a/b/"}, TREE[2:4], []),
        ({"match_glob": "a/*"}, ["a/b", "a/x.parquet"], []),
        ({"match_glob": "**.json"}, [name for name in TREE if name.endswith(".json")], []),
        ({"match_glob": "b/?/part-[12].json"}, TREE[5:7], []),
        ({"match_glob": "a/{b,x.parquet}"}, ["a/b", "a/x.parquet"], []),
        ({"match_glob": "[!a-c]*"}, ["日"], []),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_objects_are_listed(tree, asked, items, prefixes, page_size):
    found = tree.list_blobs(**asked, page_size=page_size)
    assert (names(found), sorted(found.prefixes)) == (items, prefixes)


def test_a_page_holds_as_many_entries_as_asked_for(api, tree):
    path = f"/storage/v1/b/{tree.name}/o?delimiter=/&maxResults=4"
    page = api("GET", path).json()
    assert (names_of(page), page["prefixes"]) == (["a", "c"], ["a/", "b/"])
    following = api("GET", f"{path}&pageToken={page['nextPageToken']}").json()
    assert (names_of(following), following["prefixes"], "nextPageToken" in following) == (["日"], ["ü/"], False)


def names_of(page):
    return [item["name"] for item in page.get("items", [])]


def test_a_trailing_delimiter_is_listed_as_an_object_if_asked(bucket):
    put(bucket, "dir/")
    put(bucket, "dir/x")
    found = bucket.list_blobs(delimiter="/", include_trailing_delimiter=True)
    assert (names(found), found.prefixes) == (["dir/"], {"dir/"})


def test_the_s3_style_listing_pages_through_a_bucket(api, tree):
    found, folders, token = [], [], ""
    for _ in range(20):
        query = f"list-type=2&max-keys=2&delimiter=/&encoding-type=url&continuation-token={token}"
        root = ET.fromstring(api("GET", f"/{tree.name}?{query}").text)
        found += [item.findtext("{*}Key") for item in root.findall("{*}Contents")]
        folders += [item.findtext("{*}Prefix") for item in root.findall("{*}CommonPrefixes")]
        assert root.findtext("{*}KeyCount") in {"1", "2"}
        if root.findtext("{*}IsTruncated") == "false":
            break
        token = root.findtext("{*}NextContinuationToken")
    assert (found, folders) == (["a", "c", quote("日")], ["a/", "b/", quote("ü/")])


# ---------------------------------------------------------------- copies, composition, batches


def test_a_copy_keeps_the_metadata_and_shares_the_bytes(storage_server, storage_client, bucket):
    blob = bucket.blob("x")
    blob.metadata = {"a": "1"}
    blob.upload_from_string("content", content_type="text/csv")
    other = storage_client.create_bucket(f"{bucket.name}-other")
    before = storage_server.blob_files()
    bucket.copy_blob(blob, other, "copy")
    blob.delete()
    got = other.get_blob("copy")
    assert (got.metadata, got.content_type, got.download_as_text()) == ({"a": "1"}, "text/csv", "content")
    assert storage_server.blob_files() == before
    got.delete()
    assert len(before - storage_server.blob_files()) == 1


def test_a_rewrite_may_replace_the_metadata(bucket):
    put(bucket, "x", "content")
    target = bucket.blob("y")
    target.metadata = {"b": "2"}
    assert target.rewrite(bucket.blob("x"))[0] is None
    got = bucket.get_blob("y")
    assert (got.metadata, got.content_type, got.download_as_text()) == ({"b": "2"}, "text/plain", "content")


def test_a_copy_of_an_old_generation(bucket):
    bucket.versioning_enabled = True
    bucket.patch()
    old = put(bucket, "x", "old").generation
    put(bucket, "x", "new")
    bucket.copy_blob(bucket.blob("x"), bucket, "restored", source_generation=old)
    assert bucket.blob("restored").download_as_text() == "old"


def test_a_rename_and_a_move(bucket):
    put(bucket, "x", "content")
    bucket.rename_blob(bucket.blob("x"), "y")
    bucket.move_blob(bucket.blob("y"), "z")
    assert names(bucket.list_blobs()) == ["z"]
    assert bucket.blob("z").download_as_text() == "content"


def test_objects_are_composed(bucket):
    parts = [put(bucket, f"part-{n}", str(n) * 3) for n in range(4)]
    joined = bucket.blob("joined")
    joined.content_type = "text/csv"
    joined.compose(parts)
    got = bucket.get_blob("joined")
    assert (got.download_as_text(), got.component_count, got.md5_hash) == ("000111222333", 4, None)
    assert (got.crc32c, got.content_type) == (crc32c(b"000111222333"), "text/csv")
    joined.compose([joined, parts[0]])
    assert bucket.get_blob("joined").component_count == 5


@pytest.mark.parametrize(("count", "error"), [(33, exceptions.BadRequest), (0, exceptions.BadRequest)])
def test_a_compose_takes_1_to_32_objects(bucket, count, error):
    put(bucket, "x")
    with pytest.raises(error, match="1 to 32"):
        bucket.blob("joined").compose([bucket.blob("x")] * count)


def test_a_compose_of_a_missing_object_is_404(bucket):
    with pytest.raises(exceptions.NotFound):
        bucket.blob("joined").compose([bucket.blob("missing")])


def test_calls_in_a_batch_are_answered_one_by_one(storage_client, bucket):
    blobs = [put(bucket, f"x {n}/ü") for n in range(5)]
    with storage_client.batch(raise_exception=False) as batch:
        for blob in blobs[:3]:
            blob.delete()
        bucket.blob("missing").delete()
        blobs[3].metadata = {"in": "batch"}
        blobs[3].patch()
    assert [response.status_code for response in batch._responses] == [204, 204, 204, 404, 200]
    assert bucket.get_blob("x 3/ü").metadata == {"in": "batch"}
    assert names(bucket.list_blobs()) == ["x 3/ü", "x 4/ü"]


# ---------------------------------------------------------------- errors and connections


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/storage/v1/b/no-such-bucket", 404, "notFound"),
        ("GET", "/storage/v1/b/{}/o/missing", 404, "notFound"),
        ("DELETE", "/storage/v1/b/{}/o/missing", 404, "notFound"),
        ("GET", "/storage/v1/b/{}/o/x?ifGenerationMatch=1", 412, "conditionNotMet"),
        ("GET", "/storage/v1/b/{}/o/x?ifGenerationMatch=soon", 400, "invalid"),
        ("POST", "/storage/v1/b", 400, "invalid"),
        ("POST", "/upload/storage/v1/b/{}/o?uploadType=strange&name=x", 400, "invalid"),
        ("PUT", "/upload/storage/v1/b/{}/o?uploadType=resumable&upload_id=unknown", 404, "notFound"),
        ("GET", "/storage/v1/b/{}/o?pageToken=garbage", 400, "invalid"),
        ("GET", "/storage/v1/b/{}/o?softDeleted=true", 501, "notImplemented"),
        ("GET", "/storage/v1/b/{}/iam", 501, "notImplemented"),
        ("POST", "/storage/v1/b/{}/notificationConfigs", 501, "notImplemented"),
        ("GET", "/storage/v1/b/{}/o/x/acl", 501, "notImplemented"),
        ("GET", "/storage/v1/b/{}/o/a/b", 501, "notImplemented"),
        ("PATCH", "/batch", 501, "notImplemented"),
    ],
)
def test_an_error_has_googles_shape(api, bucket, method, path, status, reason):
    put(bucket, "x")
    error = api(method, path.format(bucket.name)).json()["error"]
    assert (error["code"], error["errors"][0]["reason"]) == (status, reason)
    assert error["message"] == error["errors"][0]["message"] != ""


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/{}/missing", 404, "NoSuchKey"),
        ("GET", "/no-such-bucket/x", 404, "NoSuchBucket"),
        ("GET", "/no-such-bucket", 404, "NoSuchBucket"),
        ("GET", "/{}?acl", 501, "NotImplemented"),
        ("PUT", "/{}/x?tagging", 501, "NotImplemented"),
        ("PATCH", "/{}/x", 501, "NotImplemented"),
    ],
)
def test_an_error_of_the_xml_api_is_xml(api, bucket, method, path, status, code):
    response = api(method, path.format(bucket.name))
    assert (response.status_code, ET.fromstring(response.text).findtext("Code")) == (status, code)


def test_the_xml_api_puts_conditionally_describes_and_deletes(api, bucket):
    headers = {"x-goog-if-generation-match": "0", "x-goog-meta-run": "r1", "Content-Type": "text/csv"}
    assert api("PUT", f"/{bucket.name}/dir/x", data=b"abc", headers=headers).status_code == 200
    assert api("PUT", f"/{bucket.name}/dir/x", data=b"abd", headers=headers).status_code == 412
    head = api("HEAD", f"/{bucket.name}/dir/x")
    assert (head.headers["Content-Length"], head.headers["Content-Type"], head.content) == ("3", "text/csv", b"")
    assert bucket.get_blob("dir/x").metadata == {"run": "r1"}
    assert api("DELETE", f"/{bucket.name}/dir/x").status_code == 204
    assert api("HEAD", f"/{bucket.name}/dir/x").status_code == 404


def test_encryption_keys_are_refused(bucket):
    blob = bucket.blob("x", encryption_key=os.urandom(32))
    with pytest.raises(exceptions.MethodNotImplemented, match="encryption keys"):
        blob.upload_from_string("secret")
    assert bucket.get_blob("x") is None


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/upload/storage/v1/b/no-such-bucket/o?uploadType=media&name=x", 404),
        ("POST", "/upload/storage/v1/b/{}/o?uploadType=media&name=x&ifGenerationMatch=5", 412),
        ("POST", "/upload/storage/v1/b/{}/o?uploadType=multipart", 400),
        ("PATCH", "/storage/v1/b/{}/o/missing", 400),
        ("POST", "/storage/v1/nothing/like/this", 501),
        ("DELETE", "/storage/v1/b/{}/o/missing", 404),
        ("GET", "/storage/v1/b/{}/o/missing", 404),
    ],
)
@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
def test_a_connection_stays_usable_after_an_error(storage_server, bucket, method, path, status, chunked):
    connection = http.client.HTTPConnection("127.0.0.1", storage_server.port, timeout=10)
    for _ in range(2):
        body = iter([b"{}" * 200_000] * 4) if chunked else b"{}" * 800_000
        connection.request(method, path.format(bucket.name), body=body, encode_chunked=chunked)
        response = connection.getresponse()
        assert (response.status, response.will_close) == (status, False)
        response.read()
    connection.request("GET", f"/storage/v1/b/{bucket.name}")
    assert json.load(connection.getresponse())["name"] == bucket.name
    connection.close()


@pytest.mark.parametrize("closing", [b"", b"--nonsense--", b"\r\n--B"])
def test_a_multipart_upload_cut_short_stores_nothing(api, storage_server, bucket, closing):
    before = storage_server.blob_files()
    body = b'--B\r\nContent-Type: application/json\r\n\r\n{"name": "x"}\r\n--B\r\nContent-Type: text/plain\r\n\r\nabc'
    path = f"/upload/storage/v1/b/{bucket.name}/o?uploadType=multipart"
    response = api("POST", path, data=body + closing, headers={"Content-Type": "multipart/related; boundary=B"})
    assert (response.status_code, bucket.get_blob("x")) == (400, None)
    assert storage_server.blob_files() == before


@pytest.mark.parametrize("content", [b"--B", b"\r\n--B--", b"\r\n--B\r\n", b"\n", b"\r\n\r\n", b"-" * 2**20])
def test_bytes_that_look_like_a_boundary_survive(api, bucket, content):
    start = b'--B\r\nContent-Type: application/json\r\n\r\n{"name": "x"}\r\n--B\r\nContent-Type: text/plain\r\n\r\n'
    path = f"/upload/storage/v1/b/{bucket.name}/o?uploadType=multipart"
    headers = {"Content-Type": 'multipart/related; boundary="B"'}
    assert api("POST", path, data=start + content + b"\r\n--B--\r\n", headers=headers).status_code == 200
    assert bucket.blob("x").download_as_bytes() == content


def test_an_upload_whose_sender_vanished_stores_nothing(storage_server, bucket):
    before = storage_server.blob_files()
    with socket.create_connection(("127.0.0.1", storage_server.port)) as connection:
        path = f"/upload/storage/v1/b/{bucket.name}/o?uploadType=media&name=x"
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n".encode())
        connection.sendall(b"x" * 2_000_000)
        wait_until(lambda: storage_server.blob_files() > before)
    wait_until(lambda: storage_server.blob_files() == before)
    assert bucket.get_blob("x") is None


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc")
def test_a_large_object_passes_through_in_little_memory(tmp_path):
    server = StorageProcess(tmp_path / "data")
    try:
        bucket = server.client().create_bucket("large")
        chunk, count = os.urandom(2**20), 200
        path = f"{server.url}/upload/storage/v1/b/large/o?uploadType"
        media = requests.post(f"{path}=media&name=media", data=itertools.repeat(chunk, count), timeout=60)
        head = b'--B\r\n\r\n{"name": "multipart"}\r\n--B\r\n\r\n'
        parts = itertools.chain([head], itertools.repeat(chunk, count), [b"\r\n--B--"])
        headers = {"Content-Type": "multipart/related; boundary=B"}
        multipart = requests.post(f"{path}=multipart", data=parts, headers=headers, timeout=60)
        assert media.json()["size"] == multipart.json()["size"] == str(count * 2**20)
        assert media.json()["md5Hash"] == multipart.json()["md5Hash"]
        bucket.blob("media").download_to_filename(tmp_path / "copy")
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        assert int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) < 80_000
    finally:
        server.end()


# ---------------------------------------------------------------- other clients


@pytest.fixture
def table():
    import pyarrow as pa

    return pa.table({"id": list(range(50_000)), "score": [n / 7 for n in range(50_000)]})


def test_gcsfs_writes_lists_reads_and_removes_parquet(storage_server, bucket, table, monkeypatch):
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import gcsfs
    import pyarrow.parquet as pq

    files = gcsfs.GCSFileSystem(project="local", token="anon", endpoint_url=storage_server.url)
    path = f"{bucket.name}/dt=2026-11-20/part 1.parquet"
    pq.write_table(table, path, filesystem=files)
    assert pq.read_table(path, filesystem=files).equals(table)
    assert files.ls(f"{bucket.name}/dt=2026-11-20") == [path]
    assert files.info(path)["size"] == bucket.get_blob("dt=2026-11-20/part 1.parquet").size
    with files.open(f"{bucket.name}/big", "wb", block_size=5 * 2**20) as out:
        for _ in range(4):
            out.write(b"x" * 3 * 2**20)
    files.invalidate_cache()
    assert files.cat_file(f"{bucket.name}/big", start=10, end=13) == b"xxx"
    assert bucket.get_blob("big").size == 12 * 2**20
    with pytest.raises(FileExistsError), files.open(f"{bucket.name}/big", "xb") as out:
        out.write(b"no")
    files.rm(f"{bucket.name}/dt=2026-11-20", recursive=True)
    assert names(bucket.list_blobs()) == ["big"]


def test_pyarrows_own_client_writes_lists_reads_and_removes_parquet(storage_server, bucket, table):
    import datetime as dt

    import pyarrow.parquet as pq
    from pyarrow import fs

    files = fs.GcsFileSystem(
        anonymous=True,
        scheme="http",
        endpoint_override=f"127.0.0.1:{storage_server.port}",
        retry_time_limit=dt.timedelta(seconds=5),
    )
    path = f"{bucket.name}/runs/part 1.parquet"
    files.create_dir(f"{bucket.name}/runs")
    pq.write_table(table, path, filesystem=files)
    assert pq.read_table(path, filesystem=files).equals(table)
    with files.open_output_stream(f"{bucket.name}/runs/big") as out:
        for _ in range(10):
            out.write(b"y" * 2**20)
    found = files.get_file_info(fs.FileSelector(f"{bucket.name}/runs", recursive=True))
    assert min((item.base_name, item.size) for item in found) == ("big", 10 * 2**20)
    files.copy_file(path, f"{bucket.name}/copy")
    files.move(f"{bucket.name}/copy", f"{bucket.name}/moved")
    files.delete_dir(f"{bucket.name}/runs")
    assert names(bucket.list_blobs()) == ["moved"]


# ---------------------------------------------------------------- many at once

INCREMENT = """
import sys
from google.api_core.client_options import ClientOptions
from google.api_core.exceptions import PreconditionFailed
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
url, bucket, count = sys.argv[1:]
options = ClientOptions(api_endpoint=url)
client = storage.Client(project="local", credentials=AnonymousCredentials(), client_options=options)
for _ in range(int(count)):
    while True:
        blob = client.bucket(bucket).get_blob("counter")
        value = int(blob.download_as_bytes(if_generation_match=blob.generation)) + 1
        try:
            client.bucket(bucket).blob("counter").upload_from_string(str(value), if_generation_match=blob.generation)
            break
        except PreconditionFailed:
            pass
"""


def test_of_sixteen_racing_creates_exactly_one_wins(storage_server, bucket):
    clients = [storage_server.client() for _ in range(16)]
    for attempt in range(6):
        start = threading.Barrier(16)

        def create(number, attempt=attempt, start=start):
            start.wait()
            try:
                put(clients[number].bucket(bucket.name), f"lock-{attempt}", str(number), if_generation_match=0)
            except exceptions.PreconditionFailed:
                return None
            return str(number)

        with ThreadPoolExecutor(16) as pool:
            winners = [winner for winner in pool.map(create, range(16)) if winner]
        assert len(winners) == 1
        assert bucket.blob(f"lock-{attempt}").download_as_text() == winners[0]


def test_increments_by_compare_and_swap_lose_none(storage_server, bucket):
    put(bucket, "counter", "0")

    def increment(_):
        blobs = storage_server.client().bucket(bucket.name)
        for _ in range(10):
            while True:
                blob = blobs.get_blob("counter")
                try:
                    value = int(blob.download_as_bytes(if_generation_match=blob.generation)) + 1
                    put(blobs, "counter", str(value), if_generation_match=blob.generation)
                    break
                except (exceptions.PreconditionFailed, exceptions.NotFound):
                    continue

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(increment, range(8)))
    assert bucket.blob("counter").download_as_text() == "80"


def test_increments_from_several_processes_lose_none(storage_server, bucket):
    put(bucket, "counter", "0")
    tolerant = INCREMENT.replace("        value =", "        try:\n            value =").replace(
        "+ 1\n", "+ 1\n        except Exception:\n            continue\n"
    )
    command = [sys.executable, "-c", tolerant, storage_server.url, bucket.name, "15"]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    assert bucket.blob("counter").download_as_text() == "45"


def test_readers_of_an_object_that_is_overwritten_never_see_parts_of_it(storage_server, bucket):
    put(bucket, "x", b"0" * 400_000)
    done = threading.Event()
    seen = []

    def read():
        blobs = storage_server.client().bucket(bucket.name)
        while not done.is_set():
            seen.append(set(blobs.blob("x").download_as_bytes()))

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(4)]
        for n in range(60):
            put(bucket, "x", str(n % 10).encode() * (300_000 + n))
        done.set()
        for reader in readers:
            reader.result()
    assert len(seen) > 4
    assert {len(digits) for digits in seen} == {1}


# ---------------------------------------------------------------- crashes and restarts


@pytest.fixture
def own_server(tmp_path):
    """Start servers over one data directory, which end with the test."""
    servers = []

    def start():
        servers.append(StorageProcess(tmp_path / "data"))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.end(signal.SIGKILL)


def _record(writer, number):
    """Return bytes that prove by themselves whether they are complete."""
    body = os.urandom((number * 7919) % 300_000)
    return f"{writer}/{number}/{hashlib.sha256(body).hexdigest()}\n".encode() + body


def test_acknowledged_writes_survive_kill_9(own_server):
    server = own_server()
    server.client().create_bucket("crash")
    acknowledged, attempted = {}, {}
    for round_ in range(2):

        def write(writer, round_=round_, url=server.url):
            with requests.Session() as session:
                for number in itertools.count():
                    name = f"{writer}-{number % 5}"
                    content = _record(f"{round_}-{writer}", number)
                    attempted.setdefault(name, set()).add(content)
                    path = f"{url}/upload/storage/v1/b/crash/o?uploadType=media&name={name}"
                    try:
                        answer = session.post(path, data=content, timeout=10)
                    except requests.ConnectionError:
                        return
                    assert answer.status_code == 200
                    acknowledged[name] = content
                    attempted[name] = {content}

        with ThreadPoolExecutor(6) as pool:
            writers = [pool.submit(write, n) for n in range(6)]
            time.sleep(1.2)
            server.end(signal.SIGKILL)
            for writer in writers:
                writer.result()
        server = own_server()
        blobs = {blob.name: blob for blob in server.client().list_blobs("crash")}
        assert len(acknowledged) == 30
        assert set(acknowledged) <= set(blobs) <= set(attempted)
        for name, blob in blobs.items():
            content = blob.download_as_bytes(checksum="crc32c")
            header, _, body = content.partition(b"\n")
            assert header.split(b"/")[2].decode() == hashlib.sha256(body).hexdigest()
            assert content in attempted[name]
            acknowledged[name] = content
            attempted[name] = {content}
        assert len(server.blob_files()) == len(blobs), "the start sweeps away what the crash left"


def test_a_resumable_upload_survives_kill_9(own_server):
    server = own_server()
    bucket = server.client().create_bucket("crash")
    content = os.urandom(5 * GRAIN + 9)
    session = bucket.blob("x").create_resumable_upload_session(size=len(content))
    span = {"Content-Range": f"bytes 0-{2 * GRAIN - 1}/{len(content)}"}
    assert requests.put(session, data=content[: 2 * GRAIN], headers=span, timeout=10).status_code == 308
    server.end(signal.SIGKILL)
    server = own_server()
    session = server.url + _path(session)
    answer = requests.put(session, headers={"Content-Range": "bytes */*"}, timeout=10)
    assert (answer.status_code, answer.headers["Range"]) == (308, f"bytes=0-{2 * GRAIN - 1}")
    assert server.client().bucket("crash").get_blob("x") is None
    span = {"Content-Range": f"bytes {2 * GRAIN}-{len(content) - 1}/{len(content)}"}
    assert requests.put(session, data=content[2 * GRAIN :], headers=span, timeout=10).status_code == 200
    assert server.client().bucket("crash").blob("x").download_as_bytes() == content


def test_the_clients_own_resumable_upload_goes_on_after_a_restart(own_server, monkeypatch):
    server = own_server()
    bucket = server.client().create_bucket("crash")
    content = os.urandom(4 * GRAIN)
    stream = io.BytesIO(content)
    upload, transport = bucket.blob("x", chunk_size=GRAIN)._initiate_resumable_upload(
        server.client(), stream, "text/plain", len(content)
    )
    upload.transmit_next_chunk(transport)
    server.end(signal.SIGKILL)
    server = own_server()
    upload._resumable_url = server.url + _path(upload.resumable_url)
    upload._make_invalid()
    upload.recover(transport)
    assert upload.bytes_uploaded == GRAIN
    while not upload.finished:
        upload.transmit_next_chunk(transport)
    assert server.client().bucket("crash").blob("x").download_as_bytes() == content


def test_everything_is_there_after_an_ordinary_restart(own_server):
    server = own_server()
    bucket = server.client().create_bucket("kept")
    bucket.versioning_enabled = True
    bucket.patch()
    first, second = put(bucket, "x", "1").generation, put(bucket, "x", "2").generation
    assert server.end() == 0
    bucket = own_server().client().get_bucket("kept")
    assert bucket.versioning_enabled
    assert [blob.generation for blob in bucket.list_blobs(versions=True)] == [first, second]
    assert bucket.blob("x").download_as_text() == "2"
    assert put(bucket, "x", "3").generation > second


def test_a_second_server_refuses_the_same_data_directory(own_server):
    server = own_server()
    command = [sys.executable, "-m", "nightscore.local.storage_server", "--data-dir", str(server.data_dir)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert second.returncode == 2
    assert f"{server.data_dir} is in use by another storage server (process {server.process.pid})" in second.stderr


def test_a_port_that_is_taken_is_named(storage_server, tmp_path):
    command = [sys.executable, "-m", "nightscore.local.storage_server", "--data-dir", str(tmp_path / "data")]
    command += ["--port", str(storage_server.port)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert second.returncode == 2
    assert f"Cannot listen on 127.0.0.1:{storage_server.port}" in second.stderr


def test_bytes_are_on_disk_before_metadata_names_them(tmp_path, monkeypatch):
    """A power cut cannot be had in a test; the order of the syncs can."""
    from nightscore.local.storage_errors import Preconditions
    from nightscore.local.storage_objects import ObjectId
    from nightscore.local.storage_store import Store

    synced = {}
    with Store(tmp_path / "data") as store, sqlite3.connect(tmp_path / "data" / "metadata.sqlite") as reader:
        store.buckets.create({"name": "bucket"})
        really = os.fsync

        def fsync(handle):
            really(handle)
            synced[os.fstat(handle).st_ino] = reader.execute("SELECT count(*) FROM objects").fetchone()[0]

        monkeypatch.setattr(os, "fsync", fsync)
        blob = store.files.write([b"abc", b"def"])
        store.objects.insert(ObjectId("bucket", "x"), blob, {}, Preconditions())
        blobs = tmp_path / "data" / "blobs"
        assert synced == {(blobs / blob.file).stat().st_ino: 0, blobs.stat().st_ino: 0}
        assert reader.execute("SELECT count(*) FROM objects").fetchone()[0] == 1
        full = 2
        assert store._database._connection.execute("PRAGMA synchronous").fetchone()[0] == full


def test_no_writer_can_remove_the_bytes_that_a_reader_is_about_to_open(tmp_path, monkeypatch):
    from nightscore.local.storage_errors import Preconditions
    from nightscore.local.storage_objects import ObjectId
    from nightscore.local.storage_store import Store

    with Store(tmp_path / "data") as store:
        store.buckets.create({"name": "bucket"})

        def write(content):
            store.objects.insert(ObjectId("bucket", "x"), store.files.write([content]), {}, Preconditions())

        really, writer = store.files.open, threading.Thread(target=write, args=[b"new"])

        def slowly(file):
            writer.start()
            writer.join(timeout=0.3)
            return really(file)

        write(b"old")
        monkeypatch.setattr(store.files, "open", slowly)
        _, file = store.objects.open(ObjectId("bucket", "x"), Preconditions())
        writer.join(timeout=10)
        assert not writer.is_alive()
        with file:
            assert file.read() == b"old"
        assert len(list((tmp_path / "data" / "blobs").iterdir())) == 1


def test_the_server_says_where_it_listens(storage_server):
    assert storage_server.first_line.strip().endswith(storage_server.url)


def test_the_server_starts_without_heavy_imports():
    code = "import sys, nightscore.local.storage_server; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "nightscore.local.storage_server" in loaded
    heavy = {"google.api_core", "pandas", "pyarrow", "numpy", "airflow", "great_expectations", "pydantic", "requests"}
    assert heavy & set(loaded) == set()


# ---------------------------------------------------------------- against a model


class AgainstModel(RuleBasedStateMachine):
    """The server and a dict must agree on every answer."""

    client: storage.Client
    some_name = st.sampled_from(["a", "a/b", "a/b/c", "ü", "z"])
    some_condition = st.sampled_from(["none", "absent", "current", "stale"])

    def __init__(self):
        super().__init__()
        self.bucket = self.client.create_bucket(f"m-{uuid.uuid4().hex[:12]}")
        self.model = {}

    def condition(self, name, kind):
        current = self.model.get(name, (0, b""))[0]
        values = {"none": {}, "absent": 0, "current": current, "stale": current + 1}
        return {} if kind == "none" else {"if_generation_match": values[kind]}

    @rule(name=some_name, kind=some_condition, content=st.binary(max_size=40))
    def put(self, name, kind, content):
        when = self.condition(name, kind)
        current = self.model.get(name, (0, b""))[0]
        allowed = when.get("if_generation_match", current) == current
        try:
            blob = put(self.bucket, name, content, **when)
        except exceptions.PreconditionFailed:
            assert not allowed
        else:
            assert allowed
            assert blob.generation > current
            self.model[name] = (blob.generation, content)

    @rule(name=some_name, kind=some_condition)
    def delete(self, name, kind):
        when = self.condition(name, kind)
        current = self.model.get(name, (0, b""))[0]
        try:
            self.bucket.blob(name).delete(**when)
        except exceptions.NotFound:
            assert current == 0
        except exceptions.PreconditionFailed:
            assert when["if_generation_match"] != current
        else:
            assert when.get("if_generation_match", current) == current
            del self.model[name]

    @rule(source=some_name, copy=some_name, kind=some_condition)
    def duplicate(self, source, copy, kind):
        when = self.condition(copy, kind)
        current = self.model.get(copy, (0, b""))[0]
        try:
            blob = self.bucket.copy_blob(self.bucket.blob(source), self.bucket, copy, **when)
        except exceptions.NotFound:
            assert source not in self.model
        except exceptions.PreconditionFailed:
            assert when["if_generation_match"] != current
        else:
            assert when.get("if_generation_match", current) == current
            self.model[copy] = (blob.generation, self.model[source][1])

    @rule(name=some_name)
    def read(self, name):
        blob = self.bucket.get_blob(name)
        found = (blob.generation, blob.download_as_bytes()) if blob else None
        assert found == self.model.get(name)

    @rule(prefix=st.sampled_from(["", "a", "a/", "ü"]), size=st.sampled_from([1, 2, 100]))
    def list_page_by_page(self, prefix, size):
        found = [(blob.name, blob.generation) for blob in self.bucket.list_blobs(prefix=prefix, page_size=size)]
        wanted = {name: generation for name, (generation, _) in self.model.items() if name.startswith(prefix)}
        assert found == sorted(wanted.items())

    @invariant()
    def sizes_agree(self):
        found = {blob.name: blob.size for blob in self.bucket.list_blobs()}
        assert found == {name: len(content) for name, (_, content) in self.model.items()}


def test_the_server_agrees_with_a_model(storage_client):
    AgainstModel.client = storage_client
    run_state_machine_as_test(
        AgainstModel,
        settings=settings(
            max_examples=25,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
