"""Verifying the registry: every file hashed again, every alias followed, whatever does not belong there named."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from nightscore.errors import ConfigurationError, shorten
from nightscore.objects import Json
from nightscore.registry.manifest import MANIFEST_FILE
from nightscore.registry.signing import FOLDER
from nightscore.registry.store import ROOT, Registry
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
    remembered = _remembered(registry, name)
    folders = [folder for folder in registry.bucket.iter_folders(f"{ROOT}{name}/versions/") if folder.isdigit()]
    for number in sorted(int(folder) for folder in folders):
        yield _verify_version(registry, name, number, remembered.get(number, {}))
    for alias in registry.iter_aliases(name):
        label = f"{name}@{alias.alias}"
        try:
            registry.resolve(ModelReference(name=name, alias=alias.alias))
        except ConfigurationError as error:
            yield Verified(label, faults=(shorten(error, 400),))
        else:
            yield Verified(label, notes=(f"points to {alias.version}",))


def _remembered(registry: Registry, name: str) -> Mapping[int, Mapping[str, str]]:
    """Return the digests that aliases have ever pointed to: version → digest → alias."""
    found: dict[int, dict[str, str]] = {}
    for alias in registry.iter_aliases(name):
        for entry in alias.history:
            if entry.get("digest"):
                found.setdefault(int(entry["to"]), {}).setdefault(str(entry["digest"]), alias.alias)
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
    for digest, alias in remembered.items():
        if digest != version.digest:
            faults.append(
                f"its manifest is not the one that {name}@{alias} was pointed to: its SHA-256 is "
                f"{version.digest[:16]}…, not {digest[:16]}…"
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
    return Verified(label, len(version.manifest.files) + 1, size, tuple(faults), tuple(notes))
