"""Uploads in several requests: resumable uploads of the JSON API and multipart uploads of the XML API.

The object appears only when an upload is complete. What was acknowledged survives a restart of the server: bytes are
synced before the row that counts them, and a completed upload remembers its object, so that a client whose connection
broke on the very last request may repeat it.
"""

import contextlib
import json
import re
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any

from nightscore.local.storage_blobs import Blob, BlobFiles, iter_chunks
from nightscore.local.storage_buckets import require_bucket
from nightscore.local.storage_database import Database, Transaction
from nightscore.local.storage_errors import ApiError, Preconditions, Resource, bad_request
from nightscore.local.storage_objects import ObjectId, Objects, find_object, require_checksums, require_name

# Cloud Storage keeps whole multiples of this of an unfinished upload, so a client must not count on more.
GRAIN = 256 * 1024
SMALLEST_PART = 5 * 1024 * 1024
MOST_PARTS = 10_000
LONGEST_WAIT = 20.0
LONGEST_LIFE = 7 * 24 * 3600
CONTENT_RANGE = re.compile(r"bytes (?:(?P<first>\d+)-(?P<last>\d+)|\*)/(?P<total>\d+|\*)")


@dataclass(frozen=True)
class Extent:
    """The Content-Range of one request: where its bytes begin and how long the object will be, as far as known."""

    first: int | None
    last: int | None
    total: int | None

    @classmethod
    def parse(cls, header: str | None) -> "Extent":
        """Read the header; without one, the request carries the whole object."""
        if header is None:
            return cls(0, None, None)
        match = CONTENT_RANGE.fullmatch(header.strip())
        if match is None:
            raise bad_request(f"Invalid Content-Range: {header!r}")
        first, last, total = (None if part in (None, "*") else int(part) for part in match.groups())
        if first is not None and last is not None and (last < first or (total is not None and last >= total)):
            raise bad_request(f"Invalid Content-Range: {header!r}")
        return cls(first, last, total)

    @property
    def is_query(self) -> bool:
        """Whether the request only asks how many bytes have arrived."""
        return self.first is None and self.total is None


@dataclass(frozen=True)
class Progress:
    """How far an upload is: the bytes that are safe, and the object once there is one."""

    received: int
    finished: Resource | None = None


class Uploads:
    """Every upload under way in one data directory."""

    def __init__(self, database: Database, files: BlobFiles, objects: Objects) -> None:
        self._database = database
        self._files = files
        self._objects = objects
        self._busy: dict[str, threading.Lock] = {}

    def start(self, target: ObjectId, metadata: Resource, conditions: Preconditions) -> str:
        """Open a resumable upload and return its id; preconditions are judged now and again at the end."""
        require_name(target.name)
        with self._database.reading() as view:
            require_bucket(view, target.bucket)
            current = find_object(view, target)
        conditions.require(current.resource if current else None)
        return self._insert(target, metadata, conditions, self._files.create())

    def progress(self, bucket: str, upload: str) -> Progress:
        """Return how far a resumable upload is."""
        with self._database.reading() as view:
            return _progress(_require_upload(view, bucket, upload))

    def receive(
        self, bucket: str, upload: str, extent: Extent, chunks: Iterable[bytes], expected: Mapping[str, str]
    ) -> Progress:
        """Take the next bytes; with the last of them the object is created, if its `expected` checksums hold."""
        if extent.is_query:
            return self.progress(bucket, upload)
        with self._claim(upload):
            before = self.progress(bucket, upload)
            if before.finished is not None:
                return before
            end = self._append(bucket, upload, extent, before.received, chunks)
            total = end if extent.last is None and extent.total is None else extent.total
            if total is None or end < total:
                return self.progress(bucket, upload)
            finished = self._finish(bucket, upload, total, expected)
        self._busy.pop(upload, None)
        return Progress(total, finished)

    def cancel(self, bucket: str, upload: str) -> None:
        """Forget an upload and its bytes; an object that it already made stays."""
        with self._claim(upload):
            self._drop(bucket, upload)
        self._busy.pop(upload, None)

    def _append(self, bucket: str, upload: str, extent: Extent, received: int, chunks: Iterable[bytes]) -> int:
        """Write what is new of a request's bytes and return where they end."""
        if extent.first is None:
            return received
        if extent.first > received:
            raise bad_request(f"The upload has {received} bytes, so it cannot continue at byte {extent.first}.")
        row = self._row(bucket, upload)

        def saved(end: int) -> None:
            complete = extent.last is None or end == extent.last + 1
            final = complete and (extent.total == end or (extent.last is None and extent.total is None))
            kept = max(received, end if final else end - end % GRAIN)
            with self._database.writing() as change:
                change.execute("UPDATE uploads SET received = ? WHERE id = ?", kept, upload)

        limit = None if extent.last is None else extent.last + 1 - extent.first
        fresh = _skip(_exactly(chunks, limit), received - extent.first)
        self._files.extend(row["blob"], received, fresh, saved)
        return self.progress(bucket, upload).received

    def _finish(self, bucket: str, upload: str, total: int, expected: Mapping[str, str]) -> Resource:
        row = self._row(bucket, upload)
        if row["received"] > total:
            raise bad_request(f"The upload has {row['received']} bytes, more than the {total} announced.")
        asked = json.loads(row["request"])
        blob = self._files.finish(row["blob"], total)
        try:
            require_checksums(blob, dict(expected))
            with self._database.writing() as change:
                target = ObjectId(bucket, row["name"])
                conditions = Preconditions(**asked["conditions"])
                resource = self._objects.publish(change, target, blob, asked["metadata"], conditions)
                change.execute(
                    "UPDATE uploads SET finished = ?, blob = NULL WHERE id = ?", json.dumps(resource), upload
                )
        except ApiError:
            self._drop(bucket, upload)
            raise
        return resource

    def start_parts(self, target: ObjectId, metadata: Resource, conditions: Preconditions) -> str:
        """Open an XML multipart upload and return its id."""
        require_name(target.name)
        with self._database.reading() as view:
            require_bucket(view, target.bucket)
        return self._insert(target, metadata, conditions, None)

    def put_part(self, target: ObjectId, upload: str, number: int, blob: Blob, expected: Mapping[str, str]) -> str:
        """Keep one numbered part, in place of an earlier one of that number, and return its ETag."""
        with self._objects.discarding(blob):
            if not 1 <= number <= MOST_PARTS:
                raise bad_request(f"Part numbers are 1 to {MOST_PARTS}, not {number}.")
            require_checksums(blob, dict(expected))
            with self._database.writing() as change:
                _require_parts_upload(change, target, upload)
                old = change.execute(
                    "SELECT blob FROM parts WHERE upload = ? AND number = ?", upload, number
                ).fetchone()
                change.release(old["blob"] if old else None)
                etag = f'"{blob.file}"'
                change.execute(
                    "INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?)", upload, number, blob.file, blob.size, etag
                )
        return etag

    def complete_parts(self, target: ObjectId, upload: str, wanted: list[tuple[int, str]]) -> Resource:
        """Join the parts named by number and ETag, in the order of their numbers, into the object."""
        with self._claim(upload), contextlib.ExitStack() as opened:
            with self._database.reading() as view:
                asked = _require_parts_upload(view, target, upload)
                rows = view.execute("SELECT * FROM parts WHERE upload = ? ORDER BY number", upload).fetchall()
                chosen = _choose_parts({row["number"]: row for row in rows}, wanted)
                handles = [opened.enter_context(self._files.open(blob)) for blob in chosen]
            written = self._files.write(chunk for handle in handles for chunk in iter_chunks(handle))
            blob = Blob(written.file, written.size, written.crc32c, md5=None)
            with self._objects.discarding(blob), self._database.writing() as change:
                conditions = Preconditions(**asked["conditions"])
                resource = self._objects.publish(change, target, blob, asked["metadata"], conditions, len(chosen))
                _delete_upload(change, upload)
        self._busy.pop(upload, None)
        return resource

    def cancel_parts(self, target: ObjectId, upload: str) -> None:
        """Forget an XML multipart upload and its parts."""
        with self._database.writing() as change:
            _require_parts_upload(change, target, upload)
            _delete_upload(change, upload)

    def expire(self) -> None:
        """Forget the uploads that began more than a week ago, as Cloud Storage does."""
        with self._database.writing() as change:
            for (upload,) in change.execute(
                "SELECT id FROM uploads WHERE started < ?", int(time.time()) - LONGEST_LIFE
            ).fetchall():
                _delete_upload(change, upload)

    def _insert(self, target: ObjectId, metadata: Resource, conditions: Preconditions, blob: str | None) -> str:
        upload = uuid.uuid4().hex
        request = json.dumps({"metadata": metadata, "conditions": asdict(conditions)})
        with self._database.writing() as change:
            change.execute(
                "INSERT INTO uploads (id, bucket, name, request, blob, started) VALUES (?, ?, ?, ?, ?, ?)",
                upload,
                target.bucket,
                target.name,
                request,
                blob,
                int(time.time()),
            )
        return upload

    def _row(self, bucket: str, upload: str) -> Mapping[str, Any]:
        with self._database.reading() as view:
            return _require_upload(view, bucket, upload)

    def _drop(self, bucket: str, upload: str) -> None:
        with self._database.writing() as change:
            _require_upload(change, bucket, upload)
            _delete_upload(change, upload)

    @contextlib.contextmanager
    def _claim(self, upload: str) -> Iterator[None]:
        """Let one request at a time change an upload: a client may return before its broken request was noticed."""
        lock = self._busy.setdefault(upload, threading.Lock())
        if not lock.acquire(timeout=LONGEST_WAIT):
            raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "Another request is still sending to this upload.")
        try:
            yield
        finally:
            lock.release()


def _progress(row: Mapping[str, Any]) -> Progress:
    return Progress(row["received"], json.loads(row["finished"]) if row["finished"] else None)


def _require_upload(view: Transaction, bucket: str, upload: str) -> Mapping[str, Any]:
    row = view.execute("SELECT * FROM uploads WHERE id = ? AND bucket = ?", upload, bucket).fetchone()
    if row is None or (row["blob"] is None and row["finished"] is None):
        raise ApiError(HTTPStatus.NOT_FOUND, f"No such upload: {upload}", code="NoSuchUpload")
    return dict(row)


def _require_parts_upload(view: Transaction, target: ObjectId, upload: str) -> dict[str, Any]:
    row = view.execute(
        "SELECT request FROM uploads WHERE id = ? AND bucket = ? AND name = ? AND blob IS NULL AND finished IS NULL",
        upload,
        target.bucket,
        target.name,
    ).fetchone()
    if row is None:
        raise ApiError(HTTPStatus.NOT_FOUND, f"No such upload: {upload}", code="NoSuchUpload")
    request: dict[str, Any] = json.loads(row["request"])
    return request


def _delete_upload(change: Transaction, upload: str) -> None:
    for (blob,) in change.execute(
        "SELECT blob FROM uploads WHERE id = ? UNION SELECT blob FROM parts WHERE upload = ?", upload, upload
    ).fetchall():
        change.release(blob)
    change.execute("DELETE FROM parts WHERE upload = ?", upload)
    change.execute("DELETE FROM uploads WHERE id = ?", upload)


def _choose_parts(parts: Mapping[int, Mapping[str, Any]], wanted: list[tuple[int, str]]) -> list[str]:
    numbers = [number for number, _ in wanted]
    if not numbers or numbers != sorted(set(numbers)):
        raise bad_request("Parts must be named once each, in ascending order.", "InvalidPartOrder")
    for number, etag in wanted:
        if number not in parts or parts[number]["etag"].strip('"') != etag.strip('"'):
            raise bad_request(f"Part {number} was not uploaded, or has another ETag.", "InvalidPart")
    for number in numbers[:-1]:
        if parts[number]["size"] < SMALLEST_PART:
            raise bad_request(
                f"Part {number} has {parts[number]['size']} bytes; every part but the last needs {SMALLEST_PART}.",
                "EntityTooSmall",
            )
    return [parts[number]["blob"] for number in numbers]


def _skip(chunks: Iterable[bytes], count: int) -> Iterator[bytes]:
    """Yield `chunks` without their first `count` bytes: those that an earlier request already brought."""
    for chunk in chunks:
        if count < len(chunk):
            yield chunk[count:]
        count = max(0, count - len(chunk))


def _exactly(chunks: Iterable[bytes], length: int | None) -> Iterator[bytes]:
    """Yield `chunks`, and raise 400 as soon as they are not `length` bytes long."""
    seen = 0
    for chunk in chunks:
        seen += len(chunk)
        if length is not None and seen > length:
            raise bad_request(f"The request has more bytes than the {length} of its Content-Range.")
        yield chunk
    if length is not None and seen < length:
        raise bad_request(f"The request has {seen} bytes, but its Content-Range {length}.")
