"""Releases of DAGs and specs in Airflow's bucket: uploaded once, activated by one object, rolled back by the same.

    dags/nightscore/<version>/manifest.json     every file and its SHA-256; created first, it claims the version
    dags/nightscore/<version>/...               the files, created once; none of them looks like a DAG file
    dags/nightscore.py                          the pointer: which version is active, and every move before

Only the pointer changes, by compare-and-swap, and only to a version that is whole.
"""

import ast
import base64
import datetime as dt
import pprint
import re
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightscore.errors import ConfigurationError, counted, listed, near_miss, shorten
from nightscore.history import standing
from nightscore.objects import Bucket, Found, Json, to_json
from nightscore.release_files import (
    FOLDER,
    LARGEST_FILE,
    LARGEST_MANIFEST,
    MANIFEST,
    MOST_FILES,
    POINTER,
    VERSION,
    Manifest,
    NotWholeError,
    ReleasedFile,
    ReleaseFileError,
    digest_of,
    is_dag_file,
    parse_manifest,
    require_path,
)
from nightscore.settings import user_name

LARGEST_POINTER = 2**20
MOST_MOVES = 200  # remembered in the pointer, which every parse of Airflow's reads
AT_ONCE = 8
NOTHING = "nothing"

_POINTER = '''\
"""The DAGs of nightscore's active release for Airflow. `nightscore release` writes this file; do not edit it."""

from nightscore.orchestration.released import released_dags

RELEASE = {release}

globals().update(released_dags(__file__, RELEASE))
'''


class VersionNameError(ConfigurationError):
    """A release cannot be called so."""

    def __init__(self, version: str) -> None:
        super().__init__(
            f"{shorten(version)!r} is not a version of a release: use up to 80 lower-case letters, digits, `.`, `_` "
            "and `-`, and begin with a letter or digit."
        )


class VersionTakenError(ConfigurationError):
    """Another release has the version already."""

    def __init__(self, version: str, differing: list[str]) -> None:
        super().__init__(
            f"The release {version} is there with other files ({listed(differing)}), and releases never change. "
            "Nothing of yours is active. Upload it under another version."
        )


class UnknownVersionError(ConfigurationError):
    """There is no such release."""


class PointerError(ConfigurationError):
    """The pointer is not what nightscore writes, or something is in its way."""


class ReleaseMovedError(ConfigurationError):
    """Somebody else activated a release meanwhile; nothing was changed."""

    def __init__(self, expected: str, active: str | None, last: Json | None) -> None:
        who = f", activated by {last['by']} at {last['at']}" if last else ""
        super().__init__(
            f"{expected} is not active any more, but {active or NOTHING}{who}. Nothing was changed. Look at "
            "`nightscore release list`, and decide again."
        )


@dataclass(frozen=True)
class Active:
    """The pointer as it was read.

    Attributes:
        version: the active release; None where nothing was ever activated.
        manifest: its manifest's digest.
        moves: every move that is remembered, the first one first.
        generation: the object's; 0 where there is none.
    """

    version: str | None
    manifest: str | None
    moves: tuple[Json, ...]
    generation: int

    @property
    def last(self) -> Json | None:
        """The last move."""
        return self.moves[-1] if self.moves else None


@dataclass(frozen=True)
class Listed:
    """A release as `nightscore release list` shows it; without a manifest, somebody wrote there by hand."""

    version: str
    manifest: Manifest | None
    uploaded: dt.datetime | None
    faults: tuple[str, ...]


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the files of a DAGs' folder that are released: all but hidden ones and what Python compiles.

    Raises:
        ReleaseFileError: there are none, one cannot be released, or they are too many.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_dir() or any(part.startswith(".") or part == "__pycache__" for part in parts):
            continue
        name = require_path("/".join(parts))
        if path.is_symlink():
            raise ReleaseFileError(f"{name!r} cannot be released: it is a link. Put the file itself there.")
        if path.stat().st_size > LARGEST_FILE:
            raise ReleaseFileError(f"{name!r} cannot be released: it is larger than {LARGEST_FILE // 2**20} MiB.")
        found[name] = path.read_bytes()
    if not any(is_dag_file(name) for name in found):
        raise ReleaseFileError(f"There is no DAG file in {folder}: a release needs one, like scoring.py.")
    if len(found) > MOST_FILES:
        raise ReleaseFileError(f"{folder} holds {counted(len(found), 'file')}; a release has at most {MOST_FILES:,}.")
    return found


class Releases:
    """The releases in one bucket, below one prefix."""

    def __init__(self, bucket: Bucket, prefix: str = "dags") -> None:
        self.bucket = bucket
        self.prefix = prefix.strip("/")

    def upload(self, version: str, folder: Path, git_revision: str | None = None) -> tuple[Manifest, int]:
        """Upload a folder of DAGs and specs under a version; return its manifest and how many files were missing.

        The manifest is created first. Of two who upload different files under one version, one is told before a file
        of theirs is there. Who was killed uploads again, and only what is missing; Airflow sees none of it.

        Raises:
            VersionNameError: that is no version's name.
            ReleaseFileError: the folder cannot be released.
            VersionTakenError: the version is there with other files.
        """
        from nightscore import __version__

        _require_version(version)
        files = read_files(folder)
        described = {
            path: ReleasedFile(path, len(data), digest_of(data), _crc32c(data)) for path, data in files.items()
        }
        manifest = Manifest(version, __version__, git_revision, described)
        if not self.bucket.create(self._name(version, MANIFEST), to_json(manifest.to_json())):
            manifest = self.manifest(version)
            differing = sorted({p for p in {*manifest.files, *files} if manifest.files.get(p) != described.get(p)})
            if differing:
                raise VersionTakenError(version, differing)
        there = self._objects(version)
        missing = [file for file in manifest.files.values() if not _is_there(file, there)]

        def create(file: ReleasedFile) -> str | None:
            done = self.bucket.create(self._name(version, file.stored), files[file.path], "text/plain")
            return None if done else file.path

        with ThreadPoolExecutor(AT_ONCE) as threads:
            refused = [path for path in threads.map(create, missing) if path]
        if refused:
            raise VersionTakenError(version, refused)
        return manifest, len(missing)

    def active(self) -> Active:
        """Return which release is active.

        Raises:
            PointerError: the pointer is not what nightscore writes.
        """
        name = f"{self.prefix}/{POINTER}"
        stored = self.bucket.read(name, LARGEST_POINTER)
        if stored is None:
            return Active(None, None, (), 0)
        try:
            release = read_pointer(stored.data)
            return Active(release["version"], release["manifest"], tuple(release["moves"]), stored.generation)
        except (ValueError, TypeError, KeyError, SyntaxError) as error:
            raise PointerError(
                f"{self.bucket.uri(name)} is not the pointer to a release: {shorten(error)}. Delete it, or restore its "
                "earlier generation."
            ) from error

    def activate(self, version: str, reason: str, *, replacing: str | None = None, kind: str = "activate") -> Active:
        """Make a whole release the active one; return the pointer as it is then.

        Args:
            version: the release.
            reason: kept in the pointer.
            replacing: what must be active now for this to happen, or `nothing`; whoever decided earlier says so.
            kind: `activate` or `rollback`.

        Raises:
            NotWholeError: an object is missing or differs; the upload was not finished.
            PointerError: a DAG file of the release lies beside the pointer as well.
            ReleaseMovedError: another release was activated meanwhile.
        """
        seen = self.active()
        if replacing is not None and replacing != (seen.version or NOTHING):
            raise ReleaseMovedError(replacing, seen.version, seen.last)
        manifest, digest = self._whole(version)
        if seen.version == version:
            return seen
        self._require_alone(manifest)
        move = {
            "from": seen.version,
            "to": version,
            "kind": kind,
            "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "by": user_name(),
            "reason": shorten(reason, 500),
            "id": uuid.uuid4().hex[:12],  # tells this move from an equal one, should the answer be lost
        }
        previous = None if seen.version is None else {"version": seen.version, "manifest": seen.manifest}
        moves = [*seen.moves, move][-MOST_MOVES:]
        data = write_pointer(
            {"version": version, "manifest": digest, "at": move["at"], "previous": previous, "moves": moves}
        )
        if not self.bucket.swap(f"{self.prefix}/{POINTER}", data, seen.generation):
            now = self.active()
            raise ReleaseMovedError(seen.version or NOTHING, now.version, now.last)
        return self.active()

    def roll_back(self, reason: str) -> Active:
        """Make the release active that the present one has replaced; a second time goes further back.

        Raises:
            UnknownVersionError: the present one has replaced none.
        """
        seen = self.active()
        before = standing(seen.moves)[:-1]
        if not before:
            raise UnknownVersionError(
                f"{seen.version or 'Nothing'} is active and has replaced no release. Activate one with "
                "`nightscore release activate VERSION`."
            )
        return self.activate(before[-1], reason, replacing=seen.version, kind="rollback")

    def versions(self) -> list[str]:
        """Return the versions of which something is there."""
        return [*self.bucket.iter_folders(f"{self.prefix}/{FOLDER}/")]

    def iter_listed(self) -> Iterator[Listed]:
        """Yield the releases, the last one uploaded last."""
        found = []
        for version in self.versions():
            there = self._objects(version)
            claimed = there.get(MANIFEST)
            try:
                manifest = self.manifest(version)
            except ConfigurationError as error:
                found.append(Listed(version, None, claimed.updated if claimed else None, (str(error),)))
                continue
            faults = tuple(_faults(manifest, there))
            found.append(Listed(version, manifest, claimed.updated if claimed else None, faults))
        yield from sorted(found, key=lambda item: (item.uploaded is not None, item.uploaded, item.version))

    def manifest(self, version: str) -> Manifest:
        """Return the manifest of a version.

        Raises:
            UnknownVersionError: there is none; names the near miss.
        """
        return self._manifest(version)[0]

    def download(self, version: str, folder: Path) -> Manifest:
        """Write a version's files into an empty folder, each compared with the manifest, under their own names.

        Raises:
            NotWholeError: an object is missing or differs.
            ReleaseFileError: there is something in the folder.
        """
        if folder.exists() and any(folder.iterdir()):
            raise ReleaseFileError(f"{folder} is not empty; name a folder that is, or that does not exist.")
        manifest = self.manifest(version)

        def fetch(file: ReleasedFile) -> tuple[ReleasedFile, bytes | None]:
            stored = self.bucket.read(self._name(version, file.stored), LARGEST_FILE)
            return file, None if stored is None else stored.data

        faults = []
        with ThreadPoolExecutor(AT_ONCE) as threads:
            for file, data in threads.map(fetch, manifest.files.values()):
                if data is None or digest_of(data) != file.sha256:
                    faults.append(f"{file.path} is missing" if data is None else f"{file.path} differs")
                    continue
                path = folder / file.path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        if faults:
            raise NotWholeError(version, self.bucket.uri(self._name(version, "")), faults)
        return manifest

    def clean(self, keep: int, *, dry_run: bool = False) -> list[str]:
        """Delete the oldest releases but the newest `keep`; return their versions.

        The active release stays, and the one that it has replaced: workers go on with it while they are copied to.
        """
        seen = self.active()
        move = seen.last or {}
        kept = {seen.version, move.get("from"), *standing(seen.moves)[-2:]}
        old = [item.version for item in self.iter_listed()]
        doomed = [version for version in (old[:-keep] if keep else old) if version not in kept]
        if not dry_run:
            for version in doomed:
                there = self._objects(version)
                # The manifest last: what is left of a deletion that was killed is then still a version to delete.
                for path, found in sorted(there.items(), key=lambda item: item[0] == MANIFEST):
                    self.bucket.delete(self._name(version, path), found.generation)
        return doomed

    def _manifest(self, version: str) -> tuple[Manifest, str]:
        name = self._name(_require_version(version), MANIFEST)
        stored = self.bucket.read(name, LARGEST_MANIFEST)
        if stored is None:
            hint = near_miss(version, self.versions())
            raise UnknownVersionError(f"There is no release {version} in {self.bucket.uri(self.prefix)}. {hint}")
        return parse_manifest(version, stored.data, self.bucket.uri(name)), digest_of(stored.data)

    def _whole(self, version: str) -> tuple[Manifest, str]:
        manifest, digest = self._manifest(version)
        faults = [*_faults(manifest, self._objects(version))]
        if faults:
            raise NotWholeError(version, self.bucket.uri(self._name(version, "")), faults)
        return manifest, digest

    def _require_alone(self, manifest: Manifest) -> None:
        """See that no DAG file of a release lies beside the pointer, where it would define its DAGs again."""
        names = sorted(path for path in manifest.files if is_dag_file(path))
        twice = [name for name in names if self.bucket.read(f"{self.prefix}/{name}", 1) is not None]
        if twice:
            raise PointerError(
                f"{self.bucket.uri(self.prefix)} holds {listed(twice)} beside the releases, which would define the "
                "same DAGs again. Delete what was copied there by hand, and activate again."
            )

    def _objects(self, version: str) -> dict[str, Found]:
        prefix = self._name(version, "")
        return {found.name.removeprefix(prefix): found for found in self.bucket.iter_objects(prefix)}

    def _name(self, version: str, path: str) -> str:
        return f"{self.prefix}/{FOLDER}/{version}/{path}"


def read_pointer(data: bytes) -> dict[str, Any]:
    """Return what a pointer says, without running it.

    Raises:
        ValueError: it says nothing.
    """
    for statement in ast.parse(data).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "RELEASE":
            found = ast.literal_eval(statement.value)
            if isinstance(found, dict):
                return found
    raise ValueError("it has no RELEASE")


def write_pointer(release: Mapping[str, Any]) -> bytes:
    """Return the bytes of a pointer: a DAG file, as Airflow looks for one.

    >>> read_pointer(write_pointer({"version": "1", "moves": []}))
    {'version': '1', 'moves': []}
    """
    shown = pprint.pformat(dict(release), width=110, sort_dicts=False)
    return _POINTER.format(release=shown).encode()


def _require_version(version: str) -> str:
    if not re.fullmatch(VERSION, version) or version == NOTHING or version.endswith((".py", ".zip")):
        raise VersionNameError(version)
    return version


def _faults(manifest: Manifest, there: Mapping[str, Found]) -> Iterator[str]:
    for file in manifest.files.values():
        if file.stored not in there:
            yield f"{file.path} is missing"
        elif not _is_there(file, there):
            yield f"{file.path} differs"
    strangers = sorted(there.keys() - {file.stored for file in manifest.files.values()} - {MANIFEST})
    if strangers:
        yield f"{counted(len(strangers), 'file')} that it does not name, like {shorten(strangers[0])}"


def _is_there(file: ReleasedFile, there: Mapping[str, Found]) -> bool:
    found = there.get(file.stored)
    return found is not None and (found.size, found.crc32c) == (file.size, file.crc32c)


def _crc32c(data: bytes) -> str:
    import google_crc32c

    return base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()
