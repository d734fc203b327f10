"""Aliases: one small object each, moved by compare-and-swap, with everything that ever happened to it.

    registry/models/<name>/aliases/<alias>.json    {version, digest, history: [{from, to, digest, at, by, reason, …}]}

Whoever moves an alias says at which generation they have read it. Of two who have read the same one, one moves it, and
the other is told.
"""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from nightscore.errors import ConfigurationError, near_miss
from nightscore.history import standing
from nightscore.objects import Bucket, Json, to_json

Kind = Literal["register", "promote", "rollback"]
LARGEST_ALIAS = 64 * 2**20  # bytes, of some hundred thousand moves


class AliasMovedError(ConfigurationError):
    """Somebody else moved the alias meanwhile; nothing was changed."""

    def __init__(self, name: str, alias: str, entry: Json | None) -> None:
        who = "is gone" if entry is None else f"was moved to {name}/{entry['to']} by {entry['by']} at {entry['at']}"
        super().__init__(
            f"{name}@{alias} {who} while this was decided; nothing was changed. Look at `nightscore models history "
            f"{name}`, and decide again."
        )


class AliasFileError(ConfigurationError):
    """An alias's object is not what this registry writes."""


class SameVersionError(ConfigurationError):
    """The alias points there already."""


class NoEarlierVersionError(ConfigurationError):
    """The alias has pointed to nothing before."""


@dataclass(frozen=True)
class Alias:
    """An alias as it was read.

    Attributes:
        name: the model.
        alias: what it is called.
        version: where it points; None of an alias that there is not yet.
        digest: the manifest's digest of that version.
        history: every move, the first one first.
        generation: the object's; 0 of an alias that there is not yet.
    """

    name: str
    alias: str
    version: int | None
    digest: str | None
    history: tuple[Json, ...]
    generation: int

    @property
    def last(self) -> Json | None:
        """The last move."""
        return self.history[-1] if self.history else None

    def before(self) -> tuple[int, str | None]:
        """Return the version that the present one has replaced, and its digest as it was then.

        Raises:
            NoEarlierVersionError: there is none.
        """
        stack = standing(self.history)
        if len(stack) < 2:
            raise NoEarlierVersionError(
                f"{self.name}@{self.alias} points to {self.version or 'nothing'} and has replaced no version. Point it "
                f"to one with `nightscore models promote {self.name} VERSION --alias {self.alias}`."
            )
        earlier = int(stack[-2])
        digest = next((e.get("digest") for e in reversed(self.history) if e["to"] == earlier), None)
        return earlier, digest


def read_alias(bucket: Bucket, folder: str, name: str, alias: str) -> Alias:
    """Return an alias as it is now; where there is none, one that points to nothing."""
    stored = bucket.read(f"{folder}{alias}.json", LARGEST_ALIAS)
    if stored is None:
        return Alias(name, alias, None, None, (), 0)
    try:
        content = stored.json()
        moves = tuple({**entry, "to": int(entry["to"])} for entry in content["history"])
        return Alias(name, alias, int(content["version"]), str(content["digest"]), moves, stored.generation)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise AliasFileError(
            f"{bucket.uri(f'{folder}{alias}.json')} is not an alias. Restore the object's earlier generation."
        ) from error


def iter_aliases(bucket: Bucket, folder: str, name: str) -> Iterator[Alias]:
    """Yield a model's aliases, in the order of their names."""
    for alias in alias_names(bucket, folder):
        found = read_alias(bucket, folder, name, alias)
        if found.version is not None:
            yield found


def alias_names(bucket: Bucket, folder: str) -> list[str]:
    """Return the names of a model's aliases."""
    return [path.rsplit("/", 1)[-1].removesuffix(".json") for path in bucket.iter_names(folder)]


def move_alias(bucket: Bucket, folder: str, seen: Alias, entry: Json) -> Alias:
    """Point an alias to another version, if it still is as it was seen; return it as it is then.

    Args:
        bucket: the registry's.
        folder: of the model's aliases.
        seen: the alias as it was read before this was decided.
        entry: `to`, `digest`, `at`, `by`, `reason`, `kind` and whatever else shall be remembered.

    Raises:
        SameVersionError: it points there already.
        AliasMovedError: it was moved meanwhile.
    """
    if seen.version == entry["to"]:
        raise SameVersionError(f"{seen.name}@{seen.alias} points to {seen.name}/{seen.version} already.")
    # The id tells this move from an equal one: a lost answer is found out by comparing bytes.
    full = {"from": seen.version, **entry, "id": uuid.uuid4().hex[:12]}
    content = {"version": entry["to"], "digest": entry["digest"], "history": [*seen.history, full]}
    if not bucket.swap(f"{folder}{seen.alias}.json", to_json(content), seen.generation):
        raise AliasMovedError(seen.name, seen.alias, read_alias(bucket, folder, seen.name, seen.alias).last)
    return read_alias(bucket, folder, seen.name, seen.alias)


def require_known(seen: Alias, others: Iterator[Alias]) -> Alias:
    """Return an alias that points somewhere.

    Raises:
        NoEarlierVersionError: there is no such alias; names the near miss.
    """
    if seen.version is None:
        hint = near_miss(seen.alias, [other.alias for other in others])
        raise NoEarlierVersionError(f"The model {seen.name} has no alias {seen.alias!r}. {hint}")
    return seen
