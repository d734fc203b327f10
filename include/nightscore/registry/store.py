"""Versions and aliases of models in the bucket.

    registry/models/<name>/versions/<n>/reference.json   created once, first: with it the number is taken
    registry/models/<name>/versions/<n>/model.…          created once
    registry/models/<name>/versions/<n>/manifest.json    created once, last: with it the version exists
    registry/models/<name>/aliases/<alias>.json          replaced by compare-and-swap, holds its own history
    registry/models/<name>/imports/<…>.json              likewise; see `nightscore.registry.importing`

Loading reads in this order: resolve → read manifest → verify digest → audit types → construct.
"""

import datetime as dt
import itertools
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from nightscore.arguments import require_name
from nightscore.errors import ConfigurationError, listed, near_miss, shorten
from nightscore.objects import Bucket, Json
from nightscore.registry.aliases import Alias, Kind, iter_aliases, move_alias, read_alias, require_known
from nightscore.registry.examination import Examined, Facts, examine
from nightscore.registry.formats import FORMATS
from nightscore.registry.libraries import require_libraries
from nightscore.registry.manifest import MANIFEST_FILE, REFERENCE_FILE, Manifest, Origin, digest
from nightscore.registry.model import Model
from nightscore.registry.signing import FOLDER as SIGNATURES
from nightscore.registry.signing import LARGEST_SIGNATURE, SUFFIX, read_signers, require_signature
from nightscore.settings import user_name
from nightscore.spec import ModelReference

if TYPE_CHECKING:
    from nightscore.registry.sources.source import ModelSource

ROOT = "registry/models/"
LARGEST_MANIFEST = 64 * 2**20
MOST_SIGNATURES = 20

log = logging.getLogger(__name__)


class ModelNotFoundError(ConfigurationError):
    """The registry has no such model, version or alias."""


class DigestError(ConfigurationError):
    """Stored bytes are not those that were registered; nothing of them was run."""

    def __init__(self, uri: str, wanted: str, found: str) -> None:
        super().__init__(
            f"{uri} was changed after it was registered: its SHA-256 is {found[:16]}…, not {wanted[:16]}…. "
            "It was not loaded. Restore the object's earlier generation, or register the model again."
        )


@dataclass(frozen=True)
class Version:
    """A version as it was resolved: its manifest and the manifest's digest, which is its identity."""

    manifest: Manifest
    digest: str

    @property
    def label(self) -> str:
        """`name/version`."""
        return f"{self.manifest.name}/{self.manifest.version}"

    def require_libraries(self) -> list[str]:
        """Check that the libraries installed here can be trusted with it; return a sentence for harmless differences.

        Raises:
            LibraryError: one is missing, or too different.
        """
        return require_libraries(self.label, self.manifest.libraries, FORMATS[self.manifest.format].EXTRA)


class Registry:
    """The models of one bucket.

    Attributes:
        bucket: where they are.
        signers: folder of the trusted signers; where it is given, only what one of them has signed is loaded.
        sources: registries of others that models are imported from, by their kinds.
    """

    def __init__(
        self, bucket: Bucket, *, signers: Path | None = None, sources: "Mapping[str, ModelSource] | None" = None
    ) -> None:
        self.bucket = bucket
        self.signers = signers
        self.sources = sources or {}

    def names(self) -> list[str]:
        """Return the names of the registered models."""
        return sorted(self.bucket.iter_folders(ROOT))

    def versions(self, name: str) -> list[int]:
        """Return the numbers of a model's complete versions, ascending."""
        found = self.bucket.iter_names(f"{ROOT}{name}/versions/", match_glob=f"**/{MANIFEST_FILE}")
        return sorted(number for path in found if (number := number_of(path.split("/")[-2])))

    def numbers(self, name: str) -> list[int]:
        """Return the numbers that are taken, also by versions that were not completed, ascending."""
        found = self.bucket.iter_folders(f"{ROOT}{name}/versions/")
        return sorted(number for folder in found if (number := number_of(folder)))

    def aliases(self, name: str) -> dict[str, int]:
        """Return a model's aliases and the versions they point to."""
        return {found.alias: found.version for found in self.iter_aliases(name) if found.version is not None}

    def iter_aliases(self, name: str) -> Iterator[Alias]:
        """Yield a model's aliases with their histories."""
        return iter_aliases(self.bucket, f"{ROOT}{name}/aliases/", name)

    def alias(self, name: str, alias: str) -> Alias:
        """Return an alias as it is now; where there is none, one that points to nothing."""
        return read_alias(self.bucket, f"{ROOT}{name}/aliases/", name, alias)

    def require_model(self, name: str) -> None:
        """Check that there is such a model.

        Raises:
            ModelNotFoundError: there is none; names the near miss.
        """
        known = self.names()
        if name not in known:
            hint = near_miss(name, known) if known else "Register one with `nightscore models register`."
            raise ModelNotFoundError(f"There is no model {shorten(name)!r} in {self.bucket.uri(ROOT)}. {hint}")

    def register(
        self, name: str, file: Path, sample: Path, *, alias: str | None = None, facts: Facts | None = None
    ) -> Version:
        """Store a file as the next version of a model, after trying it on a sample.

        Args:
            name: the model's name.
            file: a fitted model, of one of `registry.formats`.
            sample: Parquet or CSV file of input rows; further columns are ignored where the model knows its names.
            alias: an alias to move to the new version.
            facts: what its owner says of it.

        Raises:
            AliasMovedError: somebody else moved the alias meanwhile; the version is registered.
            ConfigurationError: the file is refused; nothing was stored, nothing of it was run.
        """
        require_name(name, "a model's name")
        if alias is not None:
            require_name(alias, "an alias")
        seen = self.alias(name, alias) if alias else None
        version = self.store(examine(name, file, sample, facts))
        if seen:
            self.move_alias(seen, version, "registered", kind="register")
        return version

    def store(
        self,
        examined: Examined,
        *,
        source: Origin | None = None,
        agree: Callable[[bytes], bytes] = lambda manifest: manifest,
    ) -> Version:
        """Store an examined file as the next version of its model.

        Args:
            examined: what `examine` made of the file.
            source: where the file was found, if in another registry.
            agree: is given the manifest's bytes before they are written, and returns those that count.
        """
        said = {"created_at": _now(), "created_by": user_name(), "source": source}
        draft = examined.manifest.model_copy(update=said)
        # A number that an alias has ever pointed to is never another version's, even where its folder was deleted.
        pointed = [entry["to"] for alias in self.iter_aliases(draft.name) for entry in alias.history]
        reference = examined.files[REFERENCE_FILE]
        while True:
            # A crash before the manifest leaves a number without one; it is skipped, never reused. The file that takes
            # it has one name whatever the model's format.
            number = max([*self.numbers(draft.name), *pointed], default=0) + 1
            if self.bucket.create_new(self._path(draft.name, number, REFERENCE_FILE), reference, "application/json"):
                break
        for file in examined.files:
            if file != REFERENCE_FILE and not self.bucket.create(
                self._path(draft.name, number, file), examined.files[file]
            ):
                raise ModelNotFoundError(
                    f"The version {draft.name}/{number} was written by someone else; register again."
                )
        return self.complete(agree(draft.model_copy(update={"version": number}).to_bytes()))

    def complete(self, data: bytes) -> Version:
        """Write a manifest, which makes its version exist, or find it written; return the version.

        Raises:
            ModelNotFoundError: the number belongs to another version.
        """
        manifest = Manifest.from_bytes(data)
        label = f"{manifest.name}/{manifest.version}"
        if not self.bucket.create(self._path(manifest.name, manifest.version, MANIFEST_FILE), data):
            raise ModelNotFoundError(f"The version {label} was written by someone else; register again.")
        return Version(manifest, digest(data))

    def move_alias(
        self, seen: Alias, version: Version, reason: str, *, kind: Kind = "promote", by: str | None = None, **more: Any
    ) -> Alias:
        """Point an alias to a version; return it as it is then.

        Args:
            seen: the alias as it was when this was decided.
            version: where to.
            reason: why.
            kind: what the move is.
            by: who moves it; by default the user of this process.
            more: what else its history shall hold.

        Raises:
            SignatureRequiredError: nobody who is trusted has signed the version, where the settings name anybody.
            SameVersionError: it points there already.
            AliasMovedError: somebody else moved it meanwhile.
        """
        self.require_signed(version)
        entry: Json = {
            "to": version.manifest.version,
            "digest": version.digest,
            "at": _now(),
            "by": by or user_name(),
            "reason": reason,
            "kind": kind,
            **more,
        }
        return move_alias(self.bucket, f"{ROOT}{seen.name}/aliases/", seen, entry)

    def roll_back(self, name: str, alias: str, reason: str) -> Alias:
        """Point an alias to the version that its present one has replaced; return it as it is then.

        Raises:
            NoEarlierVersionError: there is no such alias, or nothing before.
            DigestError: that version is no longer what it was.
            AliasMovedError: somebody else moved it meanwhile.
        """
        self.require_model(name)
        seen = require_known(self.alias(name, alias), self.iter_aliases(name))
        number, wanted = seen.before()
        version = self._read(name, number, wanted)
        self.require_whole(version)
        return self.move_alias(seen, version, reason, kind="rollback")

    def resolve(self, reference: ModelReference) -> Version:
        """Return the version that a reference means now; a model of another registry is imported where it is missing.

        Raises:
            ModelNotFoundError: there is no such model, version or alias; names the near miss.
            DigestError: the manifest is not the one that the alias was pointed to.
            TransientError: the other registry cannot be asked.
        """
        if reference.source is not None:
            from nightscore.registry.importing import resolve_elsewhere  # which imports this module

            return resolve_elsewhere(self, reference)
        if reference.version is not None:
            return self._read(reference.name, reference.version, None)
        alias = self.alias(reference.name, reference.alias_name)
        if alias.version is None:
            self.require_model(reference.name)
            hint = near_miss(reference.alias_name, sorted(self.aliases(reference.name)))
            raise ModelNotFoundError(f"The model {reference.name} has no alias {reference.alias_name!r}. {hint}")
        return self._read(reference.name, alias.version, alias.digest)

    def load(self, version: Version) -> Model:
        """Construct a resolved version: verify the digest, audit the types, and only then create anything.

        Raises:
            DigestError: the stored file is not the registered one.
            SignatureRequiredError: it has no valid signature by a trusted signer, where the settings name any.
            UntrustedTypesError: it would create a class that is not on our list.
            LibraryError: a library is missing here, or too different.
        """
        manifest = version.manifest
        form = FORMATS[manifest.format]
        for warning in version.require_libraries():
            log.warning("%s", warning)
        data = self.read_file(version, form.FILE)
        self.require_signed(version, {form.FILE: data})
        form.audit(version.label, form.describe(version.label, data))
        fitted = form.fitted(version.label, form.construct(version.label, data), manifest.classes)
        return Model(manifest, version.digest, fitted, fitted.prepare(manifest.inputs, named=manifest.named_inputs))

    def load_manifest(self, name: str, version: int, wanted_digest: str) -> Version:
        """Return the version that a plan pinned, without constructing the model.

        Raises:
            DigestError: the manifest is not what was planned.
        """
        return self._read(name, version, wanted_digest)

    def load_pinned(self, name: str, version: int, wanted_digest: str) -> Model:
        """Construct the version that a plan pinned.

        Raises:
            DigestError: the manifest or the file is not what was planned.
        """
        return self.load(self._read(name, version, wanted_digest))

    def reference(self, version: Version) -> Json | None:
        """Return the reference histograms of a version, or None of one that was registered without.

        Raises:
            DigestError: the stored file is not the registered one.
        """
        if REFERENCE_FILE not in version.manifest.files:
            return None
        content: Json = json.loads(self.read_file(version, REFERENCE_FILE))
        return content

    def read_file(self, version: Version, file: str) -> bytes:
        """Return one of a version's files, verified.

        Raises:
            DigestError: it is not the registered one.
            ModelNotFoundError: it is gone.
        """
        path = self._path(version.manifest.name, version.manifest.version, file)
        wanted = version.manifest.files[file]
        stored = self.bucket.read(path, largest=wanted.size)
        if stored is None:
            raise ModelNotFoundError(f"{self.bucket.uri(path)} is gone; the version {version.label} cannot be loaded.")
        if digest(stored.data) != wanted.sha256:
            raise DigestError(self.bucket.uri(path), wanted.sha256, digest(stored.data))
        return stored.data

    def require_whole(self, version: Version) -> None:
        """Check that every file of a version is the registered one, and signed where that is required.

        Raises:
            DigestError: one is not.
            ModelNotFoundError: one is gone.
            SignatureRequiredError: there is no valid signature by a trusted signer.
        """
        self.require_signed(version, {file: self.read_file(version, file) for file in version.manifest.files})

    def require_signed(self, version: Version, known: Mapping[str, bytes] | None = None) -> str | None:
        """Check the signature of a version, where the settings name trusted signers; return the signer's name.

        Args:
            version: the version.
            known: files that were read already.

        Raises:
            SignatureRequiredError: none of its signatures is valid and by one of them.
        """
        if self.signers is None:
            return None
        files = self.signed_files(version, known)
        return require_signature(version.label, files, self.signatures(version), read_signers(self.signers))

    def signed_files(self, version: Version, known: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
        """Return what a signature is about: the manifest and every file that it names, verified."""
        known = known or {}
        files = {file: known.get(file) or self.read_file(version, file) for file in version.manifest.files}
        path = self._path(version.manifest.name, version.manifest.version, MANIFEST_FILE)
        stored = self.bucket.read(path, LARGEST_MANIFEST)
        if stored is None or digest(stored.data) != version.digest:
            raise DigestError(self.bucket.uri(path), version.digest, digest(stored.data if stored else b""))
        return {**files, MANIFEST_FILE: stored.data}

    def signatures(self, version: Version) -> list[bytes]:
        """Return the signatures of a version, valid or not, at most `MOST_SIGNATURES`."""
        prefix = self._path(version.manifest.name, version.manifest.version, SIGNATURES)
        names = itertools.islice(self.bucket.iter_names(prefix), MOST_SIGNATURES)
        found = (self.bucket.read(name, LARGEST_SIGNATURE) for name in names)
        return [stored.data for stored in found if stored is not None]

    def add_signature(self, version: Version, signature: bytes) -> str:
        """Keep a signature of a version; return its URI."""
        file = f"{SIGNATURES}{digest(signature)[:16]}{SUFFIX}"
        path = self._path(version.manifest.name, version.manifest.version, file)
        self.bucket.create(path, signature)
        return self.bucket.uri(path)

    def _read(self, name: str, number: int, wanted: str | None) -> Version:
        path = self._path(name, number, MANIFEST_FILE)
        stored = self.bucket.read(path, LARGEST_MANIFEST)
        if stored is None:
            self.require_model(name)
            known = self.versions(name)
            raise ModelNotFoundError(f"The model {name} has no version {number}; it has {listed(known, most=12)}.")
        if wanted is not None and digest(stored.data) != wanted:
            raise DigestError(self.bucket.uri(path), wanted, digest(stored.data))
        try:
            manifest = Manifest.from_bytes(stored.data)
        except ValidationError as error:
            raise ModelNotFoundError(f"{self.bucket.uri(path)} is not a manifest: {shorten(error, 400)}") from error
        if (manifest.name, manifest.version) != (name, number):
            raise ModelNotFoundError(f"{self.bucket.uri(path)} is the manifest of {manifest.name}/{manifest.version}.")
        return Version(manifest, digest(stored.data))

    @staticmethod
    def _path(name: str, version: int, file: str) -> str:
        return f"{ROOT}{name}/versions/{version}/{file}"


def number_of(folder: str) -> int | None:
    """Return the number of a version from its folder's name, or None of a folder that is no version's.

    >>> number_of("12"), number_of("012"), number_of("²"), number_of("x")
    (12, None, None, None)
    """
    return int(folder) if re.fullmatch(r"[1-9][0-9]{0,17}", folder, re.ASCII) else None


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
