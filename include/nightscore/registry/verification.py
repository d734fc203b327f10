"""Verifying the registry: every file hashed again, every alias followed, whatever does not belong there named."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass

from nightscore.errors import ConfigurationError, counted, shorten
from nightscore.objects import Json
from nightscore.registry.aliases import Alias, alias_names
from nightscore.registry.manifest import MANIFEST_FILE, digest
from nightscore.registry.signing import FOLDER
from nightscore.registry.store import LARGEST_MANIFEST, ROOT, Registry
from nightscore.spec import ModelReference


@dataclass(frozen=True)
class Verified:
    """What was found of a version or an alias.

    Attributes:
        label: `name/version` or `name@alias`.
        files: how many files were hashed.
        size: their bytes.
        faults: what is wrong, a sentence each.
        notes: what is worth knowing and not wrong.
    """

    label: str
    files: int = 0
    size: int = 0
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> Json:
        """Return it as JSON."""
        return asdict(self)


def verify(registry: Registry, name: str | None = None) -> Iterator[Verified]:
    """Verify the versions and aliases of one model, or of all; yield what was found of each.

    Raises:
        ModelNotFoundError: there is no such model.
    """
    if name is not None:
        registry.require_model(name)
    for model in [name] if name else registry.names():
        yield from _verify_model(registry, model)


def _verify_model(registry: Registry, name: str) -> Iterator[Verified]:
    folder = f"{ROOT}{name}/aliases/"
    aliases = [_verify_alias(registry, name, alias) for alias in alias_names(registry.bucket, folder)]
    remembered = _remembered(found for _, found in aliases if found is not None)
    numbers = registry.numbers(name)
    for number in sorted({*numbers, *remembered}):
        if number in numbers:
            yield _verify_version(registry, name, number, remembered.get(number, {}))
        else:
            pointed = ", ".join(f"{name}@{alias}" for alias in remembered[number].values())
            yield Verified(f"{name}/{number}", faults=(f"it is gone; {pointed} has pointed to it",))
    for verified, _ in aliases:
        yield verified


def _verify_alias(registry: Registry, name: str, alias: str) -> tuple[Verified, Alias | None]:
    """Return what was found of an alias, and the alias where it can be read."""
    label = f"{name}@{alias}"
    try:
        found = registry.alias(name, alias)
    except ConfigurationError as error:
        return Verified(label, faults=(shorten(error, 400),)), None
    faults = [fault for entry in found.history for fault in _kept_faults(registry, name, entry)]
    try:
        registry.resolve(ModelReference(name=name, alias=alias))
    except ConfigurationError as error:
        faults.append(shorten(error, 400))
    return Verified(label, faults=tuple(faults), notes=(f"points to {found.version}",)), found


def _kept_faults(registry: Registry, name: str, entry: Json) -> Iterator[str]:
    """Yield a sentence for every proposal and every evidence of a move that is not what it was."""
    kept = [("proposals", entry.get("proposal"))]
    kept += [("evidence", item.get("evidence")) for item in entry.get("evidence", [])]
    for folder, wanted in kept:
        if wanted is None:
            continue
        stored = registry.bucket.read(f"{ROOT}{name}/{folder}/{wanted}.json", LARGEST_MANIFEST)
        if stored is None or digest(stored.data) != wanted:
            what = "is gone" if stored is None else "was changed"
            yield f"{folder}/{shorten(wanted, 20)}.json of the move at {entry.get('at')} {what}"


def _remembered(aliases: Iterable[Alias]) -> Mapping[int, Mapping[str, str]]:
    """Return the digests that aliases have ever pointed to: version → digest → alias."""
    found: dict[int, dict[str, str]] = {}
    for alias in aliases:
        for entry in alias.history:
            found.setdefault(entry["to"], {}).setdefault(str(entry.get("digest")), alias.alias)
    return found


def _verify_version(registry: Registry, name: str, number: int, remembered: Mapping[str, str]) -> Verified:
    label = f"{name}/{number}"
    prefix = f"{ROOT}{name}/versions/{number}/"
    there = {path.removeprefix(prefix) for path in registry.bucket.iter_names(prefix)}
    if MANIFEST_FILE not in there:
        return Verified(label, notes=("its registration was not completed; it is no version",))
    faults, notes = [], []
    try:
        version = registry.resolve(ModelReference(name=name, version=number))
    except ConfigurationError as error:
        return Verified(label, faults=(shorten(error, 400),))
    for known, alias in remembered.items():
        if known not in ("None", version.digest):
            faults.append(
                f"its manifest is not the one that {name}@{alias} was pointed to: its SHA-256 is "
                f"{version.digest[:16]}…, not {known[:16]}…"
            )
    for file in sorted(version.manifest.files):
        try:
            registry.read_file(version, file)
        except ConfigurationError as error:
            faults.append(shorten(error, 400))
    strange = {file for file in there - {MANIFEST_FILE, *version.manifest.files} if not file.startswith(FOLDER)}
    if registry.signers is not None and not faults:
        try:
            notes.append(f"ok, signed by {registry.require_signed(version)}")
        except ConfigurationError as error:
            faults.append(shorten(error, 400))
    faults += [f"{shorten(file)} is not part of it" for file in sorted(strange)]
    size = sum(file.size for file in version.manifest.files.values())
    if registry.signers is None:
        count = sum(1 for file in there if file.startswith(FOLDER))
        notes.append(f"ok, {counted(count, 'signature')} that nobody was asked about" if count else "ok, not signed")
    return Verified(label, len(version.manifest.files) + 1, size, tuple(faults), tuple(notes))
