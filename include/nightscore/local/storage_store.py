"""One data directory of the local Cloud Storage server, opened by one process at a time."""

from pathlib import Path
from types import TracebackType
from typing import Self

from nightscore.local.storage_blobs import BlobFiles, lock_directory, sync_directory
from nightscore.local.storage_buckets import Buckets
from nightscore.local.storage_database import Database
from nightscore.local.storage_objects import Objects
from nightscore.local.storage_uploads import Uploads


class Store:
    """Buckets, objects and uploads under one directory; opening it sweeps away what a crash left behind."""

    def __init__(self, directory: Path) -> None:
        self._lock = lock_directory(directory)
        self.files = BlobFiles(directory / "blobs")
        self._database = Database(directory / "metadata.sqlite", self.files)
        self.buckets = Buckets(self._database)
        self.objects = Objects(self._database, self.files)
        self.uploads = Uploads(self._database, self.files, self.objects)
        self.uploads.expire()
        self.swept = self.files.sweep(keep=self._database.blobs_in_use())
        sync_directory(directory)

    def close(self) -> None:
        """Close the database and let another process open the directory."""
        self._database.close()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
