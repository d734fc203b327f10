"""The SQLite file behind the local Cloud Storage server: one writer, every commit synced to disk."""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nightscore.local.storage_blobs import BlobFiles

SCHEMA = """
CREATE TABLE IF NOT EXISTS buckets (
    name TEXT PRIMARY KEY,
    resource TEXT NOT NULL
) WITHOUT ROWID;
-- Every generation of every object. A blob may be shared: a copy is a second row over the same file.
CREATE TABLE IF NOT EXISTS objects (
    bucket TEXT NOT NULL,
    name TEXT NOT NULL,
    generation INTEGER NOT NULL,
    live INTEGER NOT NULL,
    blob TEXT NOT NULL,
    resource TEXT NOT NULL,
    PRIMARY KEY (bucket, name, generation)
) WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS live_objects ON objects (bucket, name) WHERE live;
CREATE INDEX IF NOT EXISTS objects_of_blob ON objects (blob);
-- Resumable uploads. A finished one keeps the object it made, so that a repeated last request gets the same answer.
CREATE TABLE IF NOT EXISTS uploads (
    id TEXT PRIMARY KEY,
    bucket TEXT NOT NULL,
    name TEXT NOT NULL,
    request TEXT NOT NULL,
    blob TEXT,
    received INTEGER NOT NULL DEFAULT 0,
    started INTEGER NOT NULL,
    finished TEXT
) WITHOUT ROWID;
-- Parts of XML multipart uploads; the upload itself is a row of `uploads` without a blob.
CREATE TABLE IF NOT EXISTS parts (
    upload TEXT NOT NULL,
    number INTEGER NOT NULL,
    blob TEXT NOT NULL,
    size INTEGER NOT NULL,
    etag TEXT NOT NULL,
    PRIMARY KEY (upload, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS last_generation (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    value INTEGER NOT NULL
);
INSERT OR IGNORE INTO last_generation VALUES (1, 0);
"""

BLOBS_IN_USE = """
SELECT blob FROM objects UNION SELECT blob FROM uploads WHERE blob IS NOT NULL UNION SELECT blob FROM parts
"""


class Transaction:
    """An open transaction, and the blobs that it lets go of."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._released: set[str] = set()

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        """Run one statement."""
        return self._connection.execute(statement, values)

    def release(self, blob: str | None) -> None:
        """Mark a blob whose row was deleted; its file goes after the commit unless another row has it."""
        if blob is not None:
            self._released.add(blob)

    def next_generation(self) -> int:
        """Return a number above every generation given out before, even if the clock was set back."""
        statement = "UPDATE last_generation SET value = max(value + 1, ?) RETURNING value"
        (value,) = self.execute(statement, time.time_ns() // 1000).fetchone()
        return int(value)

    def unused_blobs(self) -> list[str]:
        """Return the released blobs that no object has any more; only objects share blobs."""
        statement = "SELECT 1 FROM objects WHERE blob = ? LIMIT 1"
        return [blob for blob in self._released if self.execute(statement, blob).fetchone() is None]


class Database:
    """One SQLite connection behind one lock, so that what is checked in a transaction holds when it commits."""

    def __init__(self, path: Path, files: BlobFiles) -> None:
        self._files = files
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode = WAL")
        # FULL, because with NORMAL a commit that was acknowledged can be lost in a power cut.
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.executescript(SCHEMA)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Transaction]:
        """Give a view that nobody changes meanwhile; a blob opened here exists."""
        with self._lock:
            yield Transaction(self._connection)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Transaction]:
        """Commit what the block did, durably, or nothing of it; then delete the files it let go of."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                transaction = Transaction(self._connection)
                yield transaction
                unused = transaction.unused_blobs()
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        self._files.remove(unused)

    def blobs_in_use(self) -> set[str]:
        """Return every blob that a row names."""
        with self.reading() as view:
            return {str(row[0]) for row in view.execute(BLOBS_IN_USE)}

    def close(self) -> None:
        """Wait for the transaction under way and close the file."""
        with self._lock:
            self._connection.close()


def timestamp() -> str:
    """Return the present moment as the JSON API writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
