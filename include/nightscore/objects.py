"""Objects in the bucket: create once, compare and swap, read. Everything that must be exact stands on these three.

Errors of the Cloud Storage client leave this module as `TransientError` or `ConfigurationError`.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nightscore.errors import ConfigurationError, TransientError, shorten

Json = dict[str, Any]


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


class Bucket:
    """One bucket, seen through the operations that correctness stands on."""

    def __init__(self, client: Any, name: str) -> None:
        self.name = name
        self._bucket = client.bucket(name)
        self._client = client

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

    def upload_new(self, name: str, path: str, content_type: str = "application/octet-stream") -> None:
        """Write an object from a file, under a name that nobody else can have chosen."""
        with _translated(f"uploading {name}"):
            self._bucket.blob(name).upload_from_filename(path, content_type=content_type, checksum="crc32c")

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

    def read(self, name: str) -> Stored | None:
        """Return an object's bytes and generation, or None when there is no such object."""
        blob = self._bucket.blob(name)
        try:
            with _translated(f"reading {name}"):
                data = blob.download_as_bytes()  # sets the blob's generation to that of the bytes
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
            for blob in self._client.list_blobs(self.name, prefix=prefix, match_glob=match_glob, fields=_NAMES_ONLY):
                yield blob.name

    def iter_folders(self, prefix: str) -> Iterator[str]:
        """Yield the names directly under a prefix that have objects below them, without slashes."""
        with _translated(f"listing {prefix}"):
            pages = self._client.list_blobs(self.name, prefix=prefix, delimiter="/").pages
            for page in pages:
                for found in sorted(page.prefixes):
                    yield found[len(prefix) :].rstrip("/")


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

    try:
        yield
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


def retry_swap(attempt: Callable[[], bool], doing: str, times: int = 20) -> None:
    """Repeat a read-change-swap until it wins.

    Raises:
        ObjectStoreError: others won `times` times in a row.
    """
    for _ in range(times):
        if attempt():
            return
    raise ObjectStoreError(doing, RuntimeError(f"others changed the object {times} times in a row"))
