"""A release's files: what its manifest says of them, and whether a folder holds them, whole.

Airflow's bucket is copied to every worker object by object, in no order. So what is released is never changed: a
version is a folder of its own, its manifest names every file by its SHA-256, and whoever loads it compares them first.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightscore.errors import ConfigurationError, TransientError, counted, listed, shorten

MANIFEST = "manifest.json"
FOLDER = "nightscore"  # of all versions, beside the pointer
POINTER = f"{FOLDER}.py"  # the one file that Airflow finds DAGs in
VERSION = r"[a-z0-9][a-z0-9._-]{0,79}"
PATH = r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*"
# Airflow looks for DAGs in every .py and .zip below its folder. Nothing of a version may look like one of them.
DISGUISE = ".txt"
LARGEST_FILE = 8 * 2**20  # bytes
LARGEST_MANIFEST = 16 * 2**20
MOST_FILES = 20_000


class ReleaseFileError(ConfigurationError):
    """A file cannot be released as it is."""


class ManifestError(ConfigurationError):
    """A manifest is not what nightscore writes."""


class NotWholeError(TransientError):
    """A folder does not hold a release as its manifest describes it; copying it may not be done yet."""

    def __init__(self, version: str, folder: object, faults: list[str]) -> None:
        super().__init__(
            f"The release {version} is not whole in {folder}: {listed(faults)}. If it was activated a moment ago, "
            "Airflow's folder is still being copied; if not, activate another with `nightscore release rollback`."
        )
        self.faults = faults


@dataclass(frozen=True)
class ReleasedFile:
    """One file of a release: its path in the DAGs' folder, size in bytes, SHA-256 in hex, CRC32C in base64."""

    path: str
    size: int
    sha256: str
    crc32c: str

    @property
    def stored(self) -> str:
        """The path under which it is kept.

        >>> ReleasedFile("scoring.py", 0, "", "").stored, ReleasedFile("pipelines/a/pipeline.yaml", 0, "", "").stored
        ('scoring.py.txt', 'pipelines/a/pipeline.yaml')
        """
        return self.path + DISGUISE if is_dag_file(self.path) else self.path


@dataclass(frozen=True)
class Manifest:
    """What a version holds, which nightscore has uploaded it, and of which commit."""

    version: str
    package: str
    git_revision: str | None
    files: Mapping[str, ReleasedFile]

    def to_json(self) -> dict[str, Any]:
        """Return what is written."""
        return {
            "version": self.version,
            "package": self.package,
            "git_revision": self.git_revision,
            "files": {
                file.path: {"size": file.size, "sha256": file.sha256, "crc32c": file.crc32c}
                for file in self.files.values()
            },
        }


def is_dag_file(path: str) -> bool:
    """Return whether a path is that of a Python file."""
    return path.endswith(".py")


def parse_manifest(version: str, data: bytes, where: str) -> Manifest:
    """Return a manifest from its bytes.

    Raises:
        ManifestError: it is no manifest, or names a path that leads elsewhere.
    """
    try:
        content = json.loads(data)
        found, revision = str(content["version"]), content["git_revision"]
        files = {
            path: ReleasedFile(path, int(file["size"]), str(file["sha256"]), str(file["crc32c"]))
            for path, file in content["files"].items()
        }
        for path in files:
            require_path(path)
        manifest = Manifest(found, str(content["package"]), None if revision is None else str(revision), files)
    except (ValueError, TypeError, KeyError, AttributeError, ReleaseFileError) as error:
        raise ManifestError(f"{where} is not the manifest of the release {version}: {shorten(error)}.") from error
    if found != version:
        raise ManifestError(f"{where} is the manifest of another release, {shorten(found)}.")
    return manifest


def require_path(path: str) -> str:
    """Return the path of a file that can be released.

    Raises:
        ReleaseFileError: Airflow would find DAGs in it, or its name is not safe.
    """
    if not re.fullmatch(PATH, path) or len(path) > 500:
        raise ReleaseFileError(
            f"{shorten(path)!r} cannot be released: use letters, digits, `.`, `_` and `-`, and begin with none of the "
            "last two."
        )
    if path.endswith(".zip") or (is_dag_file(path) and "/" in path):
        raise ReleaseFileError(
            f"{shorten(path)!r} cannot be released: DAG files lie directly in the folder, as .py; modules that they "
            "share belong into an installed package, and archives nowhere."
        )
    if path in (MANIFEST, POINTER) or path.endswith(f".py{DISGUISE}"):
        raise ReleaseFileError(f"{shorten(path)!r} cannot be released: the name is taken for releases' own files.")
    return path


def digest_of(data: bytes) -> str:
    """Return the SHA-256 in hex.

    >>> digest_of(b"")[:16]
    'e3b0c44298fc1c14'
    """
    return hashlib.sha256(data).hexdigest()


def require_whole(folder: Path, version: str, manifest_digest: str) -> Manifest:
    """Return the manifest of a version's folder, when every file is there as it says, and no other.

    Raises:
        NotWholeError: a file is missing, differs, or is not named.
    """
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NotWholeError(version, folder, [f"{MANIFEST} is missing"]) from error
    if digest_of(data) != manifest_digest:
        raise NotWholeError(version, folder, [f"{MANIFEST} differs"])
    manifest = parse_manifest(version, data, str(path))
    faults = [*_faults(folder, manifest)]
    if faults:
        raise NotWholeError(version, folder, faults)
    return manifest


def _faults(folder: Path, manifest: Manifest) -> Iterator[str]:
    # A file that nobody named may be a pipeline that nobody released.
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    wanted = {file.stored: file for file in manifest.files.values()}
    for stored, file in wanted.items():
        if stored not in there:
            yield f"{file.path} is missing"
        elif digest_of((folder / stored).read_bytes()) != file.sha256:
            yield f"{file.path} differs"
    strangers = sorted(there - wanted.keys() - {MANIFEST})
    if strangers:
        yield f"{counted(len(strangers), 'file')} that it does not name, like {shorten(strangers[0])}"
