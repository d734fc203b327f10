"""Buckets of the local Cloud Storage server: their settings, versioning flag and metageneration."""

import json
import re
from collections.abc import Mapping
from http import HTTPStatus

from nightscore.local.storage_database import Database, Transaction, timestamp
from nightscore.local.storage_errors import ApiError, Preconditions, Resource, bad_request, no_such_bucket

BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
READ_ONLY = frozenset({"kind", "id", "name", "projectNumber", "metageneration", "timeCreated", "updated", "etag"})
# Maps whose keys a patch merges one by one; every other field is replaced as a whole.
MERGED = frozenset({"labels"})


class Buckets:
    """Every bucket of one data directory."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, body: Resource) -> Resource:
        """Create the bucket that `body` describes; a name that is taken is 409."""
        name = body.get("name")
        if not isinstance(name, str) or not BUCKET_NAME.fullmatch(name):
            raise bad_request(f"Invalid bucket name: {name!r}")
        now = timestamp()
        resource = {
            "kind": "storage#bucket",
            "id": name,
            "name": name,
            "projectNumber": "0",
            "location": str(body.get("location", "US")).upper(),
            "locationType": "region" if "-" in str(body.get("location", "")) else "multi-region",
            "storageClass": "STANDARD",
            "metageneration": "1",
            "etag": "CAE=",
            "timeCreated": now,
            "updated": now,
        } | {
            field: value for field, value in body.items() if field not in READ_ONLY | {"location"} and value is not None
        }
        with self._database.writing() as change:
            if change.execute("SELECT 1 FROM buckets WHERE name = ?", name).fetchone():
                raise ApiError(
                    HTTPStatus.CONFLICT,
                    "Your previous request to create the named bucket succeeded and you already own it.",
                    code="BucketAlreadyOwnedByYou",
                )
            change.execute("INSERT INTO buckets VALUES (?, ?)", name, json.dumps(resource))
        return resource

    def read(self, name: str, conditions: Preconditions) -> Resource:
        """Return a bucket's resource."""
        with self._database.reading() as view:
            resource = require_bucket(view, name)
        conditions.require(resource, reading=True)
        return resource

    def find(self, prefix: str, after: str, size: int) -> tuple[list[Resource], str | None]:
        """Return at most `size` buckets named `prefix…` and later than `after`, and where the next page begins."""
        with self._database.reading() as view:
            rows = view.execute("SELECT resource FROM buckets WHERE name > ? ORDER BY name", after).fetchall()
        found = [bucket for (text,) in rows if (bucket := json.loads(text))["name"].startswith(prefix)]
        return found[:size], found[size - 1]["name"] if len(found) > size else None

    def update(self, name: str, body: Resource, conditions: Preconditions, *, replace: bool) -> Resource:
        """Change the given settings (null removes one), or replace them all."""
        with self._database.writing() as change:
            resource = require_bucket(change, name)
            conditions.require(resource)
            resource = changed(
                resource, body, READ_ONLY | {"location", "locationType", "storageClass"}, MERGED, replace
            )
            change.execute("UPDATE buckets SET resource = ? WHERE name = ?", json.dumps(resource), name)
        return resource

    def delete(self, name: str, conditions: Preconditions) -> None:
        """Delete an empty bucket and the unfinished uploads into it; any object, archived or live, is 409."""
        with self._database.writing() as change:
            conditions.require(require_bucket(change, name))
            if change.execute("SELECT 1 FROM objects WHERE bucket = ? LIMIT 1", name).fetchone():
                raise ApiError(
                    HTTPStatus.CONFLICT, "The bucket you tried to delete is not empty.", code="BucketNotEmpty"
                )
            uploads = "SELECT id FROM uploads WHERE bucket = ?"
            for (blob,) in change.execute(
                f"SELECT blob FROM uploads WHERE bucket = ? UNION SELECT blob FROM parts WHERE upload IN ({uploads})",
                name,
                name,
            ).fetchall():
                change.release(blob)
            change.execute(f"DELETE FROM parts WHERE upload IN ({uploads})", name)
            change.execute("DELETE FROM uploads WHERE bucket = ?", name)
            change.execute("DELETE FROM buckets WHERE name = ?", name)


def require_bucket(view: Transaction, name: str) -> Resource:
    """Return a bucket's resource, or raise 404."""
    row = view.execute("SELECT resource FROM buckets WHERE name = ?", name).fetchone()
    if row is None:
        raise no_such_bucket(name)
    resource: Resource = json.loads(row["resource"])
    return resource


def keeps_versions(bucket: Resource) -> bool:
    """Return whether overwritten and deleted objects of the bucket stay readable by generation."""
    return bool(bucket.get("versioning", {}).get("enabled"))


def changed(
    resource: Resource, body: Resource, fixed: frozenset[str], merged: frozenset[str], replace: bool
) -> Resource:
    """Return `resource` after a patch or a full update by `body`, one metageneration later.

    >>> before = {"id": "b", "metageneration": "1", "labels": {"a": "1", "b": "2"}, "cors": []}
    >>> after = changed(before, {"labels": {"a": None}, "id": "c"}, frozenset({"id"}), frozenset({"labels"}), False)
    >>> after["labels"], after["cors"], after["id"], after["metageneration"]
    ({'b': '2'}, [], 'b', '2')
    """
    after = {field: value for field, value in resource.items() if not replace or field in fixed}
    for field, value in body.items():
        if field in fixed:
            continue
        if field in merged and isinstance(value, Mapping):
            together = {**({} if replace else after.get(field) or {}), **value}
            after[field] = {key: item for key, item in together.items() if item is not None}
        else:
            after[field] = value
    after = {field: value for field, value in after.items() if value is not None}
    after["metageneration"] = str(int(resource["metageneration"]) + 1)
    after["updated"] = timestamp()
    return after
