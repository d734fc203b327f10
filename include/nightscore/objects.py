"""Objects in the bucket: create once, compare and swap, read. Everything that must be exact stands on these three.

Errors of the Cloud Storage client leave this module as `TransientError` or `ConfigurationError`.
"""

import contextlib
import contextvars
import datetime as dt
import json
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nightscore.errors import ConfigurationError, TransientError, shorten

Json = dict[str, Any]

UPLOAD_CHUNK = 8 * 2**20  # bytes of one request, a multiple of 256 KiB
UPLOAD_PIECE = 2**20  # bytes handed to the uploading thread at a time
UPLOAD_PIECES = 8  # how many of them may wait


class ObjectStoreError(TransientError):
    """Cloud Storage failed or could not be reached."""

    def __init__(self, doing: str, cause: BaseException) -> None:
        super().__init__(f"Cloud Storage failed while {doing}: {shorten(cause, 400)}")


class ObjectAccessError(ConfigurationError):
    """Cloud Storage refused a request that a retry would only repeat."""

    def __init__(self, doing: str, cause: BaseException) -> None:
        super().__init__(f"Cloud Storage refused a request while {doing}: {shorten(cause, 400)}")


@dataclass(frozen=True)
class Stored:
    """An object's bytes and the generation they were read at."""

    data: bytes
    generation: int

    def json(self) -> Json:
        """Parse the bytes as a JSON object."""
        content = json.loads(self.data)
        if not isinstance(content, dict):
            raise TypeError("not a JSON object")
        return content


def to_json(content: Json) -> bytes:
    """Return the canonical bytes of a JSON object: sorted keys, two spaces, one trailing newline.

    >>> print(to_json({"b": 1, "a": "é"}).decode(), end="")
    {
      "a": "é",
      "b": 1
    }
    """
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


@dataclass(frozen=True)
class Found:
    """An object of a listing: size in bytes, time of its last change (UTC), generation, CRC32C in base64."""

    name: str
    size: int
    updated: dt.datetime
    generation: int
    crc32c: str


class Bucket:
    """One bucket, seen through the operations that correctness stands on."""

    def __init__(self, client: Any, name: str) -> None:
        self.name = name
        self.client = client
        self._bucket = client.bucket(name)

    def settings(self) -> Json | None:
        """Return the bucket's own resource, or None when there is no such bucket."""
        from google.api_core.exceptions import NotFound

        with _translated(f"looking at the bucket {self.name}"):
            try:
                found = self.client.get_bucket(self.name)
            except NotFound:
                return None
        return dict(found._properties)  # noqa: SLF001 - as the JSON API describes it, and complete

    def held_permissions(self, wanted: list[str]) -> set[str]:
        """Return which of the permissions this process has on the bucket."""
        with _translated(f"testing permissions on the bucket {self.name}"):
            return set(self._bucket.test_iam_permissions(wanted))

    def uri(self, name: str) -> str:
        """Return the object's gs:// address."""
        return f"gs://{self.name}/{name}"

    def create(self, name: str, data: bytes, content_type: str = "application/json") -> bool:
        """Write an object that must not exist yet; return whether these bytes are the ones that are there now.

        An upload whose answer was lost is retried by the client and then finds its own object, which counts as written.
        """
        try:
            with _translated(f"creating {name}"):
                self._bucket.blob(name).upload_from_string(data, content_type=content_type, if_generation_match=0)
        except _PreconditionError:
            stored = self.read(name)
            return stored is not None and stored.data == data
        return True

    def create_new(self, name: str, data: bytes, content_type: str = "application/octet-stream") -> bool:
        """Write an object that must not exist yet; return False when one does, even one of the same bytes.

        A lost answer makes this say False for an object it wrote itself: use it where a name may be wasted.
        """
        try:
            with _translated(f"creating {name}"):
                self._bucket.blob(name).upload_from_string(data, content_type=content_type, if_generation_match=0)
        except _PreconditionError:
            return False
        return True

    @contextmanager
    def stream_new(self, name: str, expires: dt.datetime | None = None) -> "Iterator[Upload]":
        """Write an object that must not exist yet from a stream: the block writes to the Upload it is given.

        The object appears when the block ends, whole. When the block raises, there is no object.

        Args:
            name: the object's name, one that nobody else can have chosen.
            expires: written as the object's custom time, which a lifecycle rule may go by.

        Raises:
            ObjectStoreError: the upload failed; the same upload under another name may succeed.
        """
        blob = self._bucket.blob(name)
        if expires is not None:
            blob.custom_time = expires
        upload = Upload(blob, f"uploading {name}")
        try:
            yield upload
        except BaseException:
            upload.cancel()
            raise
        upload.close()

    def swap(self, name: str, data: bytes, generation: int) -> bool:
        """Replace an object only if it is still at `generation` (0: absent); return whether it was replaced."""
        try:
            with _translated(f"replacing {name}"):
                self._bucket.blob(name).upload_from_string(
                    data, content_type="application/json", if_generation_match=generation
                )
        except _PreconditionError:
            stored = self.read(name)
            return stored is not None and stored.data == data
        return True

    def read(self, name: str, largest: int | None = None) -> Stored | None:
        """Return an object's bytes and generation, or None when there is no such object.

        Args:
            name: the object's name.
            largest: the size in bytes that is expected at most, > 0; of a larger object only one byte more is read. Its
                checksum is then the caller's to compare.
        """
        blob = self._bucket.blob(name)
        try:
            with _translated(f"reading {name}"):
                # Either sets the blob's generation to that of the bytes.
                data = blob.download_as_bytes() if largest is None else _download_at_most(blob, largest)
        except _AbsentError:
            return None
        return Stored(data, int(blob.generation))

    def read_json(self, name: str) -> Json | None:
        """Return a JSON object, or None when there is no such object."""
        stored = self.read(name)
        return None if stored is None else stored.json()

    def iter_names(self, prefix: str, match_glob: str | None = None) -> Iterator[str]:
        """Yield the names of the objects under a prefix, in order."""
        with _translated(f"listing {prefix}"):
            for blob in self.client.list_blobs(self.name, prefix=prefix, match_glob=match_glob, fields=_NAMES_ONLY):
                yield blob.name

    def iter_objects(self, prefix: str, match_glob: str | None = None) -> Iterator[Found]:
        """Yield the objects under a prefix, in order."""
        with _translated(f"listing {prefix}"):
            for blob in self.client.list_blobs(self.name, prefix=prefix, match_glob=match_glob):
                yield Found(blob.name, int(blob.size), blob.updated, int(blob.generation), blob.crc32c)

    def delete(self, name: str, generation: int) -> bool:
        """Delete an object only if it is still at `generation`; return whether it was."""
        try:
            with _translated(f"deleting {name}"):
                self._bucket.blob(name).delete(if_generation_match=generation)
        except (_PreconditionError, _AbsentError):
            return False
        return True

    def iter_folders(self, prefix: str) -> Iterator[str]:
        """Yield the names directly under a prefix that have objects below them, without slashes."""
        with _translated(f"listing {prefix}"):
            pages = self.client.list_blobs(self.name, prefix=prefix, delimiter="/").pages
            for page in pages:
                for found in sorted(page.prefixes):
                    yield found[len(prefix) :].rstrip("/")


class Upload:
    """A file-like object, for writing only, whose bytes a thread of its own uploads while they come."""

    def __init__(self, blob: Any, doing: str) -> None:
        self.closed = False
        self._doing = doing
        self._held = bytearray()
        self._pieces: queue.Queue[bytes | None] = queue.Queue(maxsize=UPLOAD_PIECES)
        self._error: BaseException | None = None
        self._is_cancelled = False
        writer = blob.open("wb", chunk_size=UPLOAD_CHUNK, if_generation_match=0, checksum="crc32c")
        run = contextvars.copy_context().run  # a log's lines of the thread then say whose they are
        self._thread = threading.Thread(target=run, args=(self._send, writer), name="nightscore-upload", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> int:
        """Take bytes; wait when the network is slower than they come.

        Raises:
            ObjectStoreError: the upload has failed.
        """
        if self.closed:  # a Parquet writer that is collected after an error still wants to write its end
            return len(data)
        self._held += data
        if len(self._held) >= UPLOAD_PIECE:
            self._hand_over()
        return len(data)

    def flush(self) -> None:
        """Do nothing: an object has no state between beginning and end."""

    def close(self) -> None:
        """Finish the object.

        Raises:
            ObjectStoreError: the upload failed; there is no object.
        """
        self._hand_over()
        self._end()
        if self._error is not None:
            raise self._error

    def cancel(self) -> None:
        """Give the upload up; there will be no object."""
        self._is_cancelled = True
        self._end()

    def _hand_over(self) -> None:
        if self._error is not None:
            raise self._error
        self._pieces.put(bytes(self._held))
        self._held = bytearray()

    def _end(self) -> None:
        self.closed = True
        self._pieces.put(None)
        self._thread.join()

    def _send(self, writer: Any) -> None:
        pieces = iter(self._pieces.get, None)
        try:
            with _translated(self._doing):
                for piece in pieces:
                    if self._is_cancelled:
                        break
                    writer.write(piece)
                if not self._is_cancelled:
                    writer.close()
        except ValueError as error:  # the server has kept less of a chunk than it was sent
            self._error = ObjectStoreError(self._doing, error)
        except BaseException as error:  # noqa: BLE001 - raised to whoever writes
            self._error = error
        finally:
            _abandon(writer)
        for _ in pieces:  # whoever writes must not wait for a thread that has ended
            pass


def _abandon(writer: Any) -> None:
    """Make sure that a writer, unless it is closed, never finishes its object.

    A `BlobWriter` that is garbage-collected closes itself, and thereby finishes an object that was torn off; and its
    `terminate()` sends the cancellation to the address of new uploads instead of that of its own.
    """
    if writer.closed:
        return
    if writer._upload_and_transport:  # noqa: SLF001 - see above
        upload, transport = writer._upload_and_transport  # noqa: SLF001
        with contextlib.suppress(Exception):  # the server forgets the upload by itself, after a week
            transport.delete(upload.resumable_url, timeout=10)
    writer._buffer.close()  # noqa: SLF001


def _download_at_most(blob: Any, largest: int) -> bytes:
    from google.api_core.exceptions import RequestRangeNotSatisfiable

    try:
        found = blob.download_as_bytes(end=largest, checksum=None)
    except RequestRangeNotSatisfiable:  # an empty object has no first byte
        found = blob.download_as_bytes()
    return bytes(found)


_NAMES_ONLY = "items(name),nextPageToken"


class _PreconditionError(Exception):
    """A generation precondition did not hold."""


class _AbsentError(Exception):
    """There is no such object."""


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    import requests
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError, TransportError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

    try:
        yield
    except InvalidResponse as error:  # of uploads in several requests, which know no other error
        said = RuntimeError(f"HTTP {error.response.status_code} {error.response.text}")
        raise (ObjectAccessError if _is_refusal(error.response) else ObjectStoreError)(doing, said) from error
    except DataCorruption as error:
        raise ObjectStoreError(doing, error) from error
    except exceptions.PreconditionFailed as error:
        raise _PreconditionError from error
    except exceptions.NotFound as error:
        if "bucket does not exist" in str(error):
            raise ObjectAccessError(doing, error) from error
        raise _AbsentError from error
    except (exceptions.ServerError, exceptions.TooManyRequests, exceptions.RetryError) as error:
        raise ObjectStoreError(doing, error) from error
    except (requests.RequestException, TransportError, ConnectionError, TimeoutError) as error:
        raise ObjectStoreError(doing, error) from error
    except GoogleAuthError as error:
        raise (ObjectStoreError if error.retryable else ObjectAccessError)(doing, error) from error
    except exceptions.GoogleAPICallError as error:
        raise ObjectAccessError(doing, error) from error


def _is_refusal(response: Any) -> bool:
    """Return whether a retry of a whole upload would only repeat the answer; not so for bytes that were garbled."""
    if response.status_code == 404:  # of the bucket, or of an upload that the server has forgotten
        return "bucket does not exist" in response.text
    return response.status_code in (400, 401, 403) and "crc32c" not in response.text.lower()


def retry_swap(attempt: Callable[[], bool], doing: str, times: int = 20) -> None:
    """Repeat a read-change-swap until it wins.

    Raises:
        ObjectStoreError: others won `times` times in a row.
    """
    for _ in range(times):
        if attempt():
            return
    raise ObjectStoreError(doing, RuntimeError(f"others changed the object {times} times in a row"))
