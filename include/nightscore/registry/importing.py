"""Importing a version of another registry: audited, constructed and tried like any other, then a version of ours.

    registry/models/<name>/imports/<kind>-<…>-<n>.json    the manifests that were made of version n there

The record is replaced by compare-and-swap before the manifest is written as the version's own. It decides: of two
imports of one registration, the second to come finds the first's manifest, and returns its version. A number that was
taken for nothing has no manifest, and is skipped like that of a crash.
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from nightscore.arguments import require_name
from nightscore.names import MODEL_NAME
from nightscore.objects import Json, retry_swap, to_json
from nightscore.registry.examination import Facts, examine
from nightscore.registry.manifest import Manifest, Origin, digest
from nightscore.registry.signature import SampleError
from nightscore.registry.sources.source import ModelSource, SourceAccessError
from nightscore.registry.store import ROOT, ModelNotFoundError, Registry, Version
from nightscore.spec import ModelReference

CLASSES = "classes"  # the tag with the labels of a model whose file does not hold them, joined by commas
SETTINGS = {"mlflow": "NIGHTSCORE_MLFLOW_TRACKING_URI", "vertex": "NIGHTSCORE_VERTEX_LOCATION"}


def resolve_elsewhere(registry: Registry, reference: ModelReference) -> Version:
    """Return our version of what a reference to another registry means now, importing it where that is missing.

    A version number that was imported before needs no answer from the other registry.

    Raises:
        ConfigurationError: there is no such model there, or it is refused.
        TransientError: the other registry cannot be asked.
    """
    source = _source(registry, reference)
    name = local_name(reference.name)
    if reference.version is not None:
        asked = _record(name, reference.source or "", source.server, reference.name, reference.version)
        known = _imports(registry, asked)
        if known:
            return _version(registry, known[-1])
    origin = source.resolve(reference)
    same = [found for found in _imports(registry, _record_of(name, origin)) if _is_from(found, origin)]
    return _version(registry, same[-1]) if same else _import(registry, source, origin, name)


def import_model(
    registry: Registry,
    reference: ModelReference,
    *,
    name: str | None = None,
    sample: Path | None = None,
    alias: str | None = None,
) -> Version:
    """Import what a reference to another registry means now; the same files again are the same version again.

    Args:
        registry: ours.
        reference: the model there.
        name: what it is called here, by default what `local_name` makes of its name there.
        sample: Parquet or CSV file of input rows, instead of the one that is there.
        alias: an alias of ours to move to the version.

    Raises:
        AliasMovedError: somebody else moved the alias meanwhile; the version is imported.
        ConfigurationError: there is no such model there, or it is refused; nothing of it was run.
        TransientError: the other registry cannot be asked.
    """
    source = _source(registry, reference)
    name = name or local_name(reference.name)
    require_name(name, "a model's name")
    if alias is not None:
        require_name(alias, "an alias")
    seen = registry.alias(name, alias) if alias is not None else None
    origin = source.resolve(reference)
    version = _import(registry, source, origin, name, sample)
    if seen is not None and seen.version != version.manifest.version:
        registry.move_alias(seen, version, f"imported from {origin}", kind="register")
    return version


def local_name(name: str) -> str:
    """Return what a model of another registry is called here.

    >>> local_name("credit_default"), local_name("Credit Default.v2"), local_name("2026 model")
    ('credit_default', 'credit_default_v2', 'model_2026_model')
    """
    made = re.sub(r"[^a-z0-9_-]", "_", name.lower())[:90]
    return made if re.fullmatch(MODEL_NAME, made) else f"model_{made}"


def _source(registry: Registry, reference: ModelReference) -> ModelSource:
    kind = reference.source or ""
    source = registry.sources.get(kind)
    if source is None:
        raise SourceAccessError(f"{reference} cannot be looked up: set {SETTINGS[kind]}. See docs/importing-models.md.")
    return source


def _import(registry: Registry, source: ModelSource, origin: Origin, name: str, sample: Path | None = None) -> Version:
    with tempfile.TemporaryDirectory(prefix="nightscore-import-") as folder:
        fetched = source.fetch(origin, Path(folder))
        rows = sample or fetched.sample
        if rows is None:
            raise SampleError(
                f"{origin}: {fetched.no_sample} Or import it once with rows of your own: "
                f"`nightscore models import {origin} --sample FILE`."
            )
        facts = Facts(
            metrics=fetched.metrics,
            description=fetched.description,
            git_revision=fetched.git_revision,
            classes=tuple(label.strip() for label in origin.tags.get(CLASSES, "").split(",") if label.strip()),
        )
        agree = _agreement(registry, _record_of(name, origin), origin)
        return registry.store(examine(name, fetched.file, rows, facts), source=origin, agree=agree)


def _agreement(registry: Registry, path: str, origin: Origin) -> Callable[[bytes], bytes]:
    """Return what makes a manifest that is about to be written the first one of its registration, or finds that one."""

    def agree(data: bytes) -> bytes:
        files = Manifest.from_bytes(data).files
        decided = data

        def attempt() -> bool:
            nonlocal decided
            stored = registry.bucket.read(path)
            content = stored.json() if stored else {"imports": []}
            same = [e for e in content["imports"] if _is_from(e, origin) and Manifest.model_validate(e).files == files]
            if same:
                decided = to_json(same[-1])
                return True
            content["imports"].append(json.loads(data))
            return registry.bucket.swap(path, to_json(content), stored.generation if stored else 0)

        retry_swap(attempt, f"recording the import of {origin}")
        return decided

    return agree


def _version(registry: Registry, entry: Json) -> Version:
    """Return the version of a recorded manifest, and complete it where the process that recorded it was killed."""
    data = to_json(entry)
    try:
        return registry.load_manifest(entry["name"], entry["version"], digest(data))
    except ModelNotFoundError:
        return registry.complete(data)


def _imports(registry: Registry, path: str) -> list[Json]:
    content = registry.bucket.read_json(path)
    return [] if content is None else list(content["imports"])


def _is_from(entry: Json, origin: Origin) -> bool:
    return Origin.model_validate(entry["source"]).is_same(origin)


def _record_of(name: str, origin: Origin) -> str:
    return _record(name, origin.kind, origin.server, origin.name, origin.version)


def _record(name: str, kind: str, server: str, theirs: str, version: int) -> str:
    which = hashlib.sha256(f"{server}\n{theirs}".encode()).hexdigest()[:16]
    return f"{ROOT}{name}/imports/{kind}-{which}-{version}.json"
