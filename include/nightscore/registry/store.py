"""Versions and aliases of models in the bucket.

    registry/models/<name>/versions/<n>/model.skops    created once
    registry/models/<name>/versions/<n>/manifest.json  created once, last: with it the version exists
    registry/models/<name>/aliases/<alias>.json        replaced by compare-and-swap, holds its own history

Loading reads in this order: resolve → read manifest → verify digest → audit types → construct.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from nightscore.arguments import require_name
from nightscore.errors import ConfigurationError, listed, near_miss, shorten
from nightscore.objects import Bucket, Json, retry_swap, to_json
from nightscore.registry.formats import sklearn_skops
from nightscore.registry.manifest import MANIFEST_FILE, File, Input, Manifest, digest
from nightscore.registry.model import Model
from nightscore.registry.signature import SampleError, input_type, read_sample, select_inputs
from nightscore.settings import user_name
from nightscore.spec import ModelReference

if TYPE_CHECKING:
    import pyarrow as pa

ROOT = "registry/models/"
LARGEST_ARTIFACT = 2 * 2**30
PROBE_ROWS = 32


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


class Registry:
    """The models of one bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket

    def names(self) -> list[str]:
        """Return the names of the registered models."""
        return sorted(self.bucket.iter_folders(ROOT))

    def versions(self, name: str) -> list[int]:
        """Return the numbers of a model's complete versions, ascending."""
        found = self.bucket.iter_names(f"{ROOT}{name}/versions/", match_glob=f"**/{MANIFEST_FILE}")
        return sorted(int(path.split("/")[-2]) for path in found if path.split("/")[-2].isdigit())

    def aliases(self, name: str) -> dict[str, int]:
        """Return a model's aliases and the versions they point to."""
        found: dict[str, int] = {}
        for path in self.bucket.iter_names(f"{ROOT}{name}/aliases/"):
            content = self.bucket.read_json(path)
            if content is not None:
                found[path.rsplit("/", 1)[-1].removesuffix(".json")] = int(content["version"])
        return found

    def register(
        self,
        name: str,
        file: Path,
        sample: Path,
        *,
        alias: str | None = None,
        metrics: Mapping[str, float] | None = None,
        description: str = "",
    ) -> Version:
        """Store a file as the next version of a model, after trying it on a sample.

        Args:
            name: the model's name.
            file: a fitted scikit-learn estimator, saved by `skops.io.dump`.
            sample: Parquet or CSV file of input rows; further columns are ignored where the estimator knows its names.
            alias: an alias to move to the new version.
            metrics: figures for people.
            description: for people.

        Raises:
            ConfigurationError: the file is refused; nothing was stored, nothing of it was run.
        """
        require_name(name, "a model's name")
        if alias is not None:
            require_name(alias, "an alias")
        if not file.is_file():
            raise ModelNotFoundError(f"There is no model file {file}.")
        if file.stat().st_size > LARGEST_ARTIFACT:
            raise sklearn_skops.ArtifactError(f"{file} is larger than {LARGEST_ARTIFACT:,} bytes.")
        data = file.read_bytes()
        types = sklearn_skops.describe(file.name, data)
        sklearn_skops.audit(file.name, types)
        estimator = sklearn_skops.construct(file.name, data)
        task, classes = sklearn_skops.task_of(file.name, estimator)
        rows = read_sample(sample)
        names = getattr(estimator, "feature_names_in_", None)
        named = names is not None
        rows = select_inputs(rows, None if names is None else list(names), getattr(estimator, "n_features_in_", None))
        draft = Manifest(
            name=name,
            version=1,
            format=sklearn_skops.FORMAT,
            estimator=_class_name(estimator),
            task=task,
            classes=classes,
            named_inputs=named,
            inputs=tuple(
                Input(name=field.name, type=input_type(field.name, field.type), nullable=False) for field in rows.schema
            ),
            missing_text=sklearn_skops.missing_text(estimator),
            files={sklearn_skops.FILE: File(sha256=digest(data), size=len(data))},
            types=types,
            libraries=sklearn_skops.libraries(),
            metrics=dict(metrics or {}),
            sample_rows=rows.num_rows,
            created_at=_now(),
            created_by=user_name(),
            description=description,
        )
        draft = draft.model_copy(update={"inputs": _probe(file.name, draft, estimator, rows)})
        version = self._store(draft, data)
        if alias:
            self.move_alias(name, alias, version)
        return version

    def move_alias(self, name: str, alias: str, version: Version, reason: str = "registered") -> None:
        """Point an alias to a version, appending to its history."""
        path = f"{ROOT}{name}/aliases/{alias}.json"

        def attempt() -> bool:
            stored = self.bucket.read(path)
            before = stored.json() if stored else {"history": []}
            entry = {
                "from": before.get("version"),
                "to": version.manifest.version,
                "at": _now(),
                "by": user_name(),
                "reason": reason,
            }
            content: Json = {
                "version": version.manifest.version,
                "digest": version.digest,
                "history": [*before["history"], entry],
            }
            return self.bucket.swap(path, to_json(content), stored.generation if stored else 0)

        retry_swap(attempt, f"moving the alias {alias} of {name}")

    def resolve(self, reference: ModelReference) -> Version:
        """Return the version that a reference means now.

        Raises:
            ModelNotFoundError: there is no such model, version or alias; names the near miss.
            DigestError: the manifest is not the one that the alias was pointed to.
        """
        wanted: str | None = None
        number = reference.version
        if number is None:
            alias = self.bucket.read_json(f"{ROOT}{reference.name}/aliases/{reference.alias_name}.json")
            if alias is None:
                self._require_model(reference.name)
                known = sorted(self.aliases(reference.name))
                hint = near_miss(reference.alias_name, known)
                raise ModelNotFoundError(f"The model {reference.name} has no alias {reference.alias_name!r}. {hint}")
            number, wanted = int(alias["version"]), str(alias["digest"])
        return self._read(reference.name, number, wanted)

    def load(self, version: Version) -> Model:
        """Construct a resolved version: verify the digest, audit the types, and only then create anything.

        Raises:
            DigestError: the stored file is not the registered one.
            UntrustedTypesError: it would create a class that is not on our list.
        """
        manifest = version.manifest
        path = self._path(manifest.name, manifest.version, sklearn_skops.FILE)
        stored = self.bucket.read(path)
        if stored is None:
            raise ModelNotFoundError(f"{self.bucket.uri(path)} is gone; the version {version.label} cannot be loaded.")
        wanted = manifest.files[sklearn_skops.FILE].sha256
        if digest(stored.data) != wanted:
            raise DigestError(self.bucket.uri(path), wanted, digest(stored.data))
        sklearn_skops.audit(version.label, sklearn_skops.describe(version.label, stored.data))
        estimator = sklearn_skops.construct(version.label, stored.data)
        shape = sklearn_skops.prepare(estimator, manifest.inputs, named=manifest.named_inputs)
        return Model(manifest, version.digest, estimator, shape)

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

    def _read(self, name: str, number: int, wanted: str | None) -> Version:
        path = self._path(name, number, MANIFEST_FILE)
        stored = self.bucket.read(path)
        if stored is None:
            self._require_model(name)
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

    def _require_model(self, name: str) -> None:
        known = self.names()
        if name not in known:
            hint = near_miss(name, known) if known else "Register one with `nightscore models register`."
            raise ModelNotFoundError(f"There is no model {shorten(name)!r} in {self.bucket.uri(ROOT)}. {hint}")

    def _store(self, draft: Manifest, data: bytes) -> Version:
        """Take the next free number by creating its artifact; the manifest, written last, makes the version exist."""
        prefix = f"{ROOT}{draft.name}/versions/"
        while True:
            # A crash between the two writes leaves a number without a manifest; it is skipped, never reused.
            taken = [int(folder) for folder in self.bucket.iter_folders(prefix) if folder.isdigit()]
            number = max(taken, default=0) + 1
            if self.bucket.create_new(self._path(draft.name, number, sklearn_skops.FILE), data):
                break
        manifest = draft.model_copy(update={"version": number})
        if not self.bucket.create(self._path(draft.name, number, MANIFEST_FILE), manifest.to_bytes()):
            raise ModelNotFoundError(f"The version {draft.name}/{number} was written by someone else; register again.")
        return Version(manifest, digest(manifest.to_bytes()))

    @staticmethod
    def _path(name: str, version: int, file: str) -> str:
        return f"{ROOT}{name}/versions/{version}/{file}"


def _probe(what: str, draft: Manifest, estimator: Any, rows: "pa.Table") -> tuple[Input, ...]:
    """Predict the sample, and then each column as NULL on a few rows, which tells the inputs that may be NULL."""
    import numpy as np
    import pyarrow as pa

    model = Model(draft, "", estimator, sklearn_skops.prepare(estimator, draft.inputs, named=draft.named_inputs))
    try:
        predictions = model.predict(rows)
    except Exception as error:
        # The estimator is its author's: whatever it raises, the message belongs to them.
        raise SampleError(f"The estimator in {what} cannot predict the sample: {shorten(error, 400)}") from error
    if not np.isfinite(predictions).all():
        count = int((~np.isfinite(predictions)).sum())
        raise SampleError(f"The estimator in {what} predicts {count} values of the sample as NaN or infinite.")
    shape = (rows.num_rows, len(draft.classes)) if draft.classes else (rows.num_rows,)
    if predictions.shape != shape:
        raise SampleError(f"The estimator in {what} predicts the shape {predictions.shape}; {shape} was expected.")
    few = rows.slice(0, PROBE_ROWS)
    inputs: list[Input] = []
    for index, item in enumerate(draft.inputs):
        nulls = few.set_column(index, few.schema.field(index), pa.nulls(few.num_rows, few.schema.field(index).type))
        try:
            nullable = bool(np.isfinite(model.predict(nulls)).all())
        except Exception:  # noqa: BLE001 - the estimator's own way of saying that it takes no NULL here
            nullable = False
        inputs.append(item.model_copy(update={"nullable": nullable}))
    return tuple(inputs)


def _class_name(estimator: Any) -> str:
    final = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    inner = "" if final is estimator else f"({type(final).__name__})"
    return f"{type(estimator).__name__}{inner}"


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
