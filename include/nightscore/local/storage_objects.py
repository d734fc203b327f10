"""Objects of the local Cloud Storage server: every generation a row in SQLite over a blob file.

A change is one transaction: preconditions are judged, the new generation inserted and the old one archived or deleted
together. Blobs are on disk before the transaction starts and are deleted only after it has committed.
"""

import base64
import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import BinaryIO, Self

from nightscore.local.storage_blobs import Blob, BlobFiles, iter_chunks
from nightscore.local.storage_buckets import changed, keeps_versions, require_bucket
from nightscore.local.storage_database import Database, Transaction, timestamp
from nightscore.local.storage_errors import (
    ApiError,
    Preconditions,
    Resource,
    bad_request,
    no_such_object,
    whole_number,
)
from nightscore.local.storage_listing import Page, Question, read_page

LONGEST_NAME = 1024
MOST_COMPONENTS = 32
# What the server decides; everything else in a resource is the client's to set.
READ_ONLY = frozenset({
    "kind", "id", "name", "bucket", "generation", "metageneration", "size", "md5Hash", "crc32c", "etag", "selfLink",
    "mediaLink", "timeCreated", "updated", "timeDeleted", "timeFinalized", "timeStorageClassUpdated", "componentCount",
    "owner",
})  # fmt: skip
MERGED = frozenset({"metadata"})


@dataclass(frozen=True)
class StoredObject:
    """One generation of an object: its resource, and the file with its bytes."""

    resource: Resource
    blob: str
    live: bool

    @property
    def size(self) -> int:
        """The number of bytes."""
        return int(self.resource["size"])

    @property
    def bytes(self) -> Blob:
        """The blob with the size and checksums that were computed when it was written."""
        return Blob(self.blob, self.size, self.resource["crc32c"], self.resource.get("md5Hash"))


@dataclass(frozen=True)
class ObjectId:
    """An object, or one generation of it."""

    bucket: str
    name: str
    generation: int | None = None

    @classmethod
    def parse(cls, bucket: str, name: str, query: Mapping[str, str], parameter: str = "generation") -> Self:
        """Take the generation from the query, if it names one."""
        return cls(bucket, name, whole_number(query, parameter))


class Objects:
    """Every object of one data directory."""

    def __init__(self, database: Database, files: BlobFiles) -> None:
        self._database = database
        self._files = files

    def read(self, target: ObjectId, conditions: Preconditions) -> Resource:
        """Return an object's resource."""
        with self._database.reading() as view:
            stored = require_object(view, target)
        conditions.require(stored.resource, reading=True)
        return stored.resource

    def open(self, target: ObjectId, conditions: Preconditions) -> tuple[Resource, BinaryIO]:
        """Return an object's resource and its bytes, which stay readable when the object is overwritten meanwhile."""
        with self._database.reading() as view:
            stored = require_object(view, target)
            conditions.require(stored.resource, reading=True)
            return stored.resource, self._files.open(stored.blob)

    def find(self, bucket: str, question: Question) -> Page:
        """Return one page of a bucket's objects."""
        with self._database.reading() as view:
            return read_page(view, bucket, question)

    def insert(self, target: ObjectId, blob: Blob, metadata: Resource, conditions: Preconditions) -> Resource:
        """Make `blob` the live generation of an object, or delete it and raise why not."""
        with self.discarding(blob), self._database.writing() as change:
            return self.publish(change, target, blob, metadata, conditions)

    @contextlib.contextmanager
    def discarding(self, blob: Blob) -> Iterator[None]:
        """Delete the blob when it is refused."""
        try:
            yield
        except ApiError:
            # Only for a refusal: after an I/O error of the commit the row may exist, so the file has to stay. If the
            # row does not exist, the next start sweeps the file away.
            self._files.remove([blob.file])
            raise

    def publish(
        self,
        change: Transaction,
        target: ObjectId,
        blob: Blob,
        metadata: Resource,
        conditions: Preconditions,
        components: int | None = None,
    ) -> Resource:
        """Insert a generation inside a transaction that is already open."""
        require_name(target.name)
        require_checksums(blob, metadata)
        bucket = require_bucket(change, target.bucket)
        current = find_object(change, target)
        conditions.require(current.resource if current else None)
        if current:
            self._retire(change, current, archive=keeps_versions(bucket))
        generation = change.next_generation()
        resource = _new_resource(target, generation, blob, metadata, components)
        change.execute(
            "INSERT INTO objects VALUES (?, ?, ?, 1, ?, ?)",
            target.bucket,
            target.name,
            generation,
            blob.file,
            json.dumps(resource),
        )
        return resource

    def delete(self, target: ObjectId, conditions: Preconditions) -> None:
        """Delete the live generation (archived if the bucket keeps versions), or exactly the generation named."""
        with self._database.writing() as change:
            stored = require_object(change, target)
            conditions.require(stored.resource)
            archive = target.generation is None and keeps_versions(require_bucket(change, target.bucket))
            self._retire(change, stored, archive=archive)

    def update(self, target: ObjectId, body: Resource, conditions: Preconditions, *, replace: bool) -> Resource:
        """Change the given metadata (null removes a field), or replace it all; the generation stays."""
        with self._database.writing() as change:
            stored = require_object(change, target)
            conditions.require(stored.resource)
            resource = changed(stored.resource, body, READ_ONLY | {"storageClass"}, MERGED, replace)
            resource["etag"] = _etag(resource)
            _save(change, resource, live=stored.live)
        return resource

    def copy(
        self,
        source: ObjectId,
        target: ObjectId,
        metadata: Resource,
        conditions: Preconditions,
        source_conditions: Preconditions,
        *,
        move: bool = False,
    ) -> Resource:
        """Copy an object, or move it, in one transaction; the bytes are shared, not copied.

        Metadata given replaces the source's; with none given the copy keeps it.
        """
        with self._database.writing() as change:
            stored = require_object(change, source)
            source_conditions.require(stored.resource)
            own = _settable(metadata)
            combined = {"contentType": stored.resource["contentType"], **own} if own else _settable(stored.resource)
            components = stored.resource.get("componentCount")
            resource = self.publish(change, target, stored.bytes, combined, conditions, components)
            if move and (source.bucket, source.name) != (target.bucket, target.name):
                archive = keeps_versions(require_bucket(change, source.bucket))
                self._retire(change, stored, archive=archive)
        return resource

    def compose(self, target: ObjectId, body: Resource, conditions: Preconditions) -> Resource:
        """Join up to 32 objects of one bucket into a new one, each under its own precondition."""
        asked = body.get("sourceObjects") or []
        if not 1 <= len(asked) <= MOST_COMPONENTS:
            raise bad_request(f"A compose request takes 1 to {MOST_COMPONENTS} source objects, not {len(asked)}.")
        with contextlib.ExitStack() as opened:
            sources: list[StoredObject] = []
            handles: list[BinaryIO] = []
            with self._database.reading() as view:
                for item in asked:
                    source = ObjectId.parse(target.bucket, str(item.get("name")), _strings(item))
                    stored = require_object(view, source)
                    Preconditions.parse(_strings(item.get("objectPreconditions") or {})).require(stored.resource)
                    handles.append(opened.enter_context(self._files.open(stored.blob)))
                    sources.append(stored)
            written = self._files.write(chunk for handle in handles for chunk in iter_chunks(handle))
        blob = Blob(written.file, written.size, written.crc32c, md5=None)
        # Clients send the destination as they last read it: its checksums are those of the bytes before.
        metadata = _settable(body.get("destination") or {})
        metadata.setdefault("contentType", sources[0].resource["contentType"])
        components = sum(int(source.resource.get("componentCount", 1)) for source in sources)
        with self.discarding(blob), self._database.writing() as change:
            resource = self.publish(change, target, blob, metadata, conditions, components)
            if body.get("deleteSourceObjects"):
                archive = keeps_versions(require_bucket(change, target.bucket))
                for name, generation in {(used.resource["name"], used.resource["generation"]) for used in sources}:
                    current = find_object(change, ObjectId(target.bucket, name))
                    if current and current.resource["generation"] == generation:
                        self._retire(change, current, archive=archive)
        return resource

    def _retire(self, change: Transaction, stored: StoredObject, *, archive: bool) -> None:
        resource = stored.resource
        if resource.get("temporaryHold") or resource.get("eventBasedHold"):
            raise ApiError(
                HTTPStatus.FORBIDDEN,
                f"Object '{resource['bucket']}/{resource['name']}' is under active hold and cannot be deleted, "
                "overwritten or archived until the hold is removed.",
                reason="objectUnderActiveHold",
            )
        if archive:
            _save(change, {**resource, "timeDeleted": timestamp()}, live=False)
            return
        change.execute(
            "DELETE FROM objects WHERE bucket = ? AND name = ? AND generation = ?",
            resource["bucket"],
            resource["name"],
            int(resource["generation"]),
        )
        change.release(stored.blob)


def find_object(view: Transaction, target: ObjectId) -> StoredObject | None:
    """Return the live generation of an object or the generation named, or None."""
    which, value = ("live = ?", 1) if target.generation is None else ("generation = ?", target.generation)
    statement = f"SELECT resource, blob, live FROM objects WHERE bucket = ? AND name = ? AND {which}"
    row = view.execute(statement, target.bucket, target.name, value).fetchone()
    return StoredObject(json.loads(row["resource"]), row["blob"], bool(row["live"])) if row else None


def require_object(view: Transaction, target: ObjectId) -> StoredObject:
    """Return an object, or raise 404 for it or for its bucket."""
    stored = find_object(view, target)
    if stored is None:
        require_bucket(view, target.bucket)
        raise no_such_object(target.bucket, target.name)
    return stored


def require_name(name: str) -> None:
    """Raise 400 unless `name` may name an object.

    >>> require_name("dt=2026-11-20/../part 1.parquet")
    """
    if not 1 <= len(name.encode()) <= LONGEST_NAME:
        raise bad_request(f"An object's name has 1 to {LONGEST_NAME} bytes, not {len(name.encode())}.")
    if name in {".", ".."} or "\r" in name or "\n" in name or name.startswith(".well-known/acme-challenge/"):
        raise bad_request(f"Invalid object name: {name!r}")


def require_checksums(blob: Blob, metadata: Resource) -> None:
    """Raise 400 when the client expects other bytes than those that arrived."""
    for field, found in (("crc32c", blob.crc32c), ("md5Hash", blob.md5)):
        wanted = metadata.get(field)
        if wanted and found and wanted != found:
            raise bad_request(
                f"Provided {field} {wanted!r} doesn't match the {field} of the bytes received, {found!r}.", "BadDigest"
            )


def _new_resource(
    target: ObjectId, generation: int, blob: Blob, metadata: Resource, components: int | None
) -> Resource:
    now = timestamp()
    resource = {
        "kind": "storage#object",
        "id": f"{target.bucket}/{target.name}/{generation}",
        "name": target.name,
        "bucket": target.bucket,
        "generation": str(generation),
        "metageneration": "1",
        "storageClass": "STANDARD",
        **_settable(metadata),
        "contentType": metadata.get("contentType") or "application/octet-stream",
        "size": str(blob.size),
        "crc32c": blob.crc32c,
        "timeCreated": now,
        "updated": now,
        "timeFinalized": now,
        "timeStorageClassUpdated": now,
    }
    if blob.md5:
        resource["md5Hash"] = blob.md5
    if components:
        resource["componentCount"] = components
    resource["etag"] = _etag(resource)
    return resource


def _settable(metadata: Resource) -> Resource:
    return {field: value for field, value in metadata.items() if field not in READ_ONLY and value is not None}


def _etag(resource: Resource) -> str:
    return base64.b64encode(f"{resource['generation']}/{resource['metageneration']}".encode()).decode()


def _save(change: Transaction, resource: Resource, *, live: bool) -> None:
    change.execute(
        "UPDATE objects SET resource = ?, live = ? WHERE bucket = ? AND name = ? AND generation = ?",
        json.dumps(resource),
        int(live),
        resource["bucket"],
        resource["name"],
        int(resource["generation"]),
    )


def _strings(values: Resource) -> dict[str, str]:
    return {key: str(value) for key, value in values.items() if value is not None}
