"""What must hold of a skops file as an archive, before anything in it is read for what it says.

A zip can hold names that lead elsewhere and members of any size, and an array's header promise memory that its file
does not hold. skops also creates a few compiled objects whose constructors trust their arguments.
"""

import io
import json
import math
import re
import zipfile
from collections.abc import Iterator
from typing import Any

from nightscore.errors import shorten
from nightscore.registry.format import LARGEST_ARTIFACT, ArtifactError
from nightscore.registry.trees import refuse

MOST_MEMBERS = 200_000
LARGEST_SCHEMA = 2**28
MOST_COMPRESSED = 100  # bytes of one stored byte, once it is more than SMALL of them
SMALL = 2**26

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


def require_archive(what: str, data: bytes) -> frozenset[str]:
    """Check a skops file as an archive; return the names of all that it would create or refer to.

    Raises:
        ArtifactError: it is no zip, would become too large, has strange names, or arrays that are not as long as they
            say.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_members(what, archive.infolist(), len(data))
            for member in archive.infolist():
                if member.filename.endswith(".npy"):
                    _check_array(what, archive, member)
                elif member.filename.endswith(".npz"):
                    with zipfile.ZipFile(io.BytesIO(archive.read(member))) as inner:
                        _check_members(what, inner.infolist(), member.file_size)
                        for part in inner.infolist():
                            _check_array(what, inner, part)
            return _check_schema(what, archive) if "schema.json" in archive.namelist() else frozenset()
    except ArtifactError:
        raise
    except Exception as error:
        raise ArtifactError(f"{what} is not a readable skops file: {shorten(error)}") from error


def _check_members(what: str, members: list[zipfile.ZipInfo], size: int) -> None:
    names = [member.filename for member in members]
    if len(names) > MOST_MEMBERS:
        raise ArtifactError(f"{what} is not a skops file: it has {len(names):,} members.")
    strange = [name for name in names if not _NAME.fullmatch(name) or ".." in name]
    if strange:
        raise ArtifactError(
            f"{what} is not a skops file: a member is called {shorten(strange[0], 60)!r}, which leads elsewhere or is "
            "no name that skops gives. Nothing of it was unpacked."
        )
    if len(set(names)) != len(names):
        raise ArtifactError(f"{what} is not a skops file: two of its members have the same name.")
    total = sum(member.file_size for member in members)
    if total > LARGEST_ARTIFACT or (total > SMALL and total > MOST_COMPRESSED * size):
        raise ArtifactError(
            f"{what} would unpack to {total:,} bytes from {size:,}, which no model does. Nothing of it was unpacked."
        )
    if any(member.filename == "schema.json" and member.file_size > LARGEST_SCHEMA for member in members):
        raise ArtifactError(f"{what} has a schema of more than {LARGEST_SCHEMA:,} bytes.")


def _check_array(what: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Check that an array's header promises the bytes that follow it."""
    from numpy.lib import format as npy

    with archive.open(member) as file:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, kind = read(file)
        start = file.tell()
    if kind.hasobject:
        return  # a pickle: never read, since nothing here allows pickles; skops says so where it is met
    if any(length < 0 for length in shape) or math.prod(shape) * kind.itemsize != member.file_size - start:
        raise ArtifactError(f"{what} is damaged: the array {shorten(member.filename, 60)!r} is not as long as it says.")


def _check_schema(what: str, archive: zipfile.ZipFile) -> frozenset[str]:
    """Check that an object's number means one object, and the arguments that trees are created from; return names."""
    schema = json.loads(archive.read("schema.json"))
    told: dict[Any, Any] = {}
    names: set[str] = set()
    for node in _nodes(schema):
        names.add(f"{node.get('__module__')}.{node.get('__class__')}")
        # skops takes the first object of a number for every other one of that number, whatever that says of itself.
        identity = node.get("__id__")
        if identity is not None and told.setdefault(identity, _summary(node)) != _summary(node):
            raise ArtifactError(f"{what} is not a readable skops file: two objects in it have the same number.")
        if node.get("__loader__") == "TreeNode":
            _check_tree(what, archive, node)
    return frozenset(names)


def _nodes(schema: Any) -> Iterator[dict[str, Any]]:
    waiting = [schema]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            if "__loader__" in found:
                yield found
            waiting.extend(found.values())
        elif isinstance(found, list):
            waiting.extend(found)


def _summary(node: dict[str, Any]) -> tuple[Any, ...]:
    content = node.get("content")
    parts = [part.get("__id__") for part in content if isinstance(part, dict)] if isinstance(content, list) else content
    kept = parts if isinstance(parts, (str, list)) else None
    return (*(str(node.get(key)) for key in ("__class__", "__module__", "__loader__", "file", "type")), str(kept))


def _check_tree(what: str, archive: zipfile.ZipFile, node: dict[str, Any]) -> None:
    """Check the arguments of scikit-learn's Tree: how many columns, the classes of each output, how many outputs."""
    import numpy as np

    try:
        columns, classes, outputs = node["__reduce__"]["args"]["content"]
        numbers = [json.loads(part["content"]) for part in (columns, outputs)]
        counts = np.load(io.BytesIO(archive.read(classes["file"])), allow_pickle=False)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{what} is not a readable skops file: it creates a tree of something else.") from error
    if not all(type(number) is int and 1 <= number < 2**31 for number in numbers):
        refuse(what, "a tree has no columns or no outputs")
    if counts.ndim != 1 or counts.dtype != np.intp or len(counts) != numbers[1] or (counts < 1).any():
        refuse(what, "a tree has not as many numbers of classes as outputs")
