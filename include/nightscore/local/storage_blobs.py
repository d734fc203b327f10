"""Files that hold the bytes of objects: written once, synced before anyone is told, never changed afterwards."""

import base64
import contextlib
import fcntl
import hashlib
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from nightscore.errors import ConfigurationError

CHUNK = 1 << 20


class DataDirectoryInUseError(ConfigurationError):
    """Another storage server has this data directory open."""

    def __init__(self, directory: Path, owner: str) -> None:
        super().__init__(
            f"The data directory {directory} is in use by another storage server (process {owner or 'unknown'}). "
            "Stop that server, or pass a different --data-dir."
        )


class Checksums:
    """The crc32c and MD5 of bytes as they pass by, in base64 as Cloud Storage writes them."""

    def __init__(self) -> None:
        self._crc32c = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self.size = 0

    def update(self, chunk: bytes) -> None:
        """Take the next bytes into account."""
        self._crc32c = google_crc32c.extend(self._crc32c, chunk)
        self._md5.update(chunk)
        self.size += len(chunk)

    @property
    def crc32c(self) -> str:
        """The crc32c so far."""
        return base64.b64encode(self._crc32c.to_bytes(4, "big")).decode()

    @property
    def md5(self) -> str:
        """The MD5 so far."""
        return base64.b64encode(self._md5.digest()).decode()


@dataclass(frozen=True)
class Blob:
    """A file of bytes that is safely on disk; composed objects have no MD5, as on Google Cloud."""

    file: str
    size: int
    crc32c: str
    md5: str | None


class BlobFiles:
    """A directory of blobs under random names: an object's name is never part of a path."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory

    def write(self, chunks: Iterable[bytes]) -> Blob:
        """Store `chunks` in a new file; when this returns they survive a power cut."""
        file = self.create()
        checksums = Checksums()
        try:
            with self._path(file).open("r+b") as out:
                for chunk in chunks:
                    checksums.update(chunk)
                    out.write(chunk)
                _sync(out)
        except BaseException:
            self.remove([file])
            raise
        return Blob(file, checksums.size, checksums.crc32c, checksums.md5)

    def create(self) -> str:
        """Make an empty file whose directory entry survives a power cut, and return its name."""
        file = uuid.uuid4().hex
        self._path(file).touch(exist_ok=False)
        sync_directory(self._directory)
        return file

    def extend(self, file: str, offset: int, chunks: Iterable[bytes], saved: Callable[[int], None]) -> None:
        """Write `chunks` from `offset` on and call `saved` with the new end; also when the sender breaks off."""
        with self._path(file).open("r+b") as out:
            out.seek(offset)
            try:
                for chunk in chunks:
                    out.write(chunk)
            finally:
                _sync(out)
                saved(out.tell())

    def finish(self, file: str, size: int) -> Blob:
        """Cut `file` to `size` bytes, read it through and return it as a blob."""
        checksums = Checksums()
        with self._path(file).open("r+b") as grown:
            grown.truncate(size)
            _sync(grown)
            for chunk in iter_chunks(grown):
                checksums.update(chunk)
        return Blob(file, checksums.size, checksums.crc32c, checksums.md5)

    def open(self, file: str) -> BinaryIO:
        """Open a blob for reading; the bytes stay readable through this handle even when the blob is removed."""
        return self._path(file).open("rb")

    def remove(self, files: Iterable[str]) -> None:
        """Delete blobs; one that is already gone is no error."""
        for file in files:
            self._path(file).unlink(missing_ok=True)

    def sweep(self, keep: set[str]) -> int:
        """Delete every file that is not in `keep`, the leftovers of a crash, and return how many there were."""
        leftovers = [path.name for path in self._directory.iterdir() if path.name not in keep]
        self.remove(leftovers)
        return len(leftovers)

    def _path(self, file: str) -> Path:
        return self._directory / file


def iter_chunks(file: BinaryIO) -> Iterator[bytes]:
    """Yield the rest of a file in pieces of at most a mebibyte."""
    while chunk := file.read(CHUNK):
        yield chunk


def sync_directory(directory: Path) -> None:
    """Make the directory's entries survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def lock_directory(directory: Path) -> BinaryIO:
    """Claim `directory` for this process until the returned handle is closed or the process dies."""
    directory.mkdir(parents=True, exist_ok=True)
    handle = (directory / "lock").open("a+b")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.seek(0)
        owner = handle.read(32).decode(errors="replace").strip()
        handle.close()
        raise DataDirectoryInUseError(directory, owner) from None
    with contextlib.suppress(OSError):  # the number is for the message only; the lock is what counts
        handle.truncate(0)
        handle.write(str(os.getpid()).encode())
        handle.flush()
    return handle


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
