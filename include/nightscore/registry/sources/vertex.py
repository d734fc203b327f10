"""Google's Vertex AI Model Registry, through its own client; its files lie in Cloud Storage."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightscore.errors import listed, near_miss, shorten
from nightscore.objects import Bucket, Found
from nightscore.registry.manifest import Origin
from nightscore.registry.sources.source import (
    LARGEST_DOWNLOAD,
    LARGEST_SAMPLE,
    MOST_TAGS,
    Fetched,
    RefusedModelError,
    SourceAccessError,
    SourceUnavailableError,
)
from nightscore.registry.store import ModelNotFoundError
from nightscore.spec import ModelReference

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1.services.model_service import ModelServiceClient

SILENCE = 30.0  # seconds
MODELS = ("model.skops", "model.onnx", "model.txt", "model.lgb", "model.json")
SAMPLES = ("sample.parquet", "sample.csv")
INSTEAD = (
    "Upload a new version whose folder holds one of model.skops (`skops.io.dump`), model.onnx, model.txt "
    "(`booster.save_model` of LightGBM) or model.json (`model.save_model` of XGBoost)."
)


class VertexSource:
    """The models of one project and region."""

    def __init__(
        self, project: str, location: str, client: "Callable[[], ModelServiceClient]", storage: Callable[[], Any]
    ) -> None:
        self.server = f"projects/{project}/locations/{location}"
        self._make_client = client
        self._storage = storage

    def resolve(self, reference: ModelReference) -> Origin:
        """Return the version that a reference means now; a name of digits is a model's id, any other a display name.

        Raises:
            ModelNotFoundError: there is no such model, version or alias; names the near miss.
            SourceUnavailableError: Vertex AI cannot be asked.
        """
        with self._speaking("preparing its client"):
            client = self._make_client()
        which = str(reference.version or reference.alias_name)
        path = self._path(client, reference)
        try:
            with self._speaking(f"looking up {reference}"):
                found = client.get_model(name=f"{path}@{which}", timeout=SILENCE)
        except _AbsentError as error:
            raise self._not_found(client, path, reference) from error
        if not found.artifact_uri:
            raise RefusedModelError(f"{reference} has no artifact folder in Cloud Storage; nothing can be imported.")
        return Origin(
            kind="vertex",
            server=self.server,
            name=reference.name,
            version=int(found.version_id),
            uri=found.artifact_uri,
            registered_at=found.version_create_time.isoformat(),
            alias=None if reference.version is not None else reference.alias_name,
            tags={name: shorten(value, 200) for name, value in sorted(found.labels.items())[:MOST_TAGS]},
        )

    def fetch(self, origin: Origin, folder: Path) -> Fetched:
        """Download the one model file of a version's folder, and the sample beside it.

        Raises:
            RefusedModelError: the folder holds no file of an accepted format, or several.
            ObjectStoreError: Cloud Storage failed.
        """
        what, (name, prefix) = str(origin), _split(origin)
        bucket = Bucket(self._storage(), name)
        # What a model was trained with may lie deeper, and is not ours.
        there = {found.name[len(prefix) :]: found for found in bucket.iter_objects(prefix, match_glob=f"{prefix}*")}
        models = [name for name in MODELS if name in there]
        if len(models) != 1:
            raise RefusedModelError(
                f"{what}: {origin.uri} holds {listed(models) or 'no model that can be imported'}"
                f"{'' if models else ', but ' + (listed(sorted(there)) or 'nothing')}; exactly one is needed. "
                f"A pickle, or a binary booster, is refused. Nothing was downloaded. {INSTEAD}"
            )
        file = _download(bucket, what, there[models[0]], folder / models[0], LARGEST_DOWNLOAD)
        samples = [name for name in SAMPLES if name in there]
        if not samples:
            return Fetched(file, None, f"there is no {' or '.join(SAMPLES)} beside {models[0]}; put one there.")
        return Fetched(file, _download(bucket, what, there[samples[0]], folder / samples[0], LARGEST_SAMPLE))

    def _path(self, client: "ModelServiceClient", reference: ModelReference) -> str:
        """Return the resource name of a model, without a version."""
        if reference.name.isdigit():
            return f"{self.server}/models/{reference.name}"
        wanted = {"parent": self.server, "filter": f'display_name="{reference.name}"'}
        with self._speaking(f"looking up {reference}"):
            found = [model.name.partition("@")[0] for model in client.list_models(wanted, timeout=SILENCE)]
        if len(found) == 1:
            return found[0]
        if found:
            ids = listed(path.rsplit("/", 1)[-1] for path in found)
            raise ModelNotFoundError(
                f"Vertex AI has {len(found)} models called {reference.name!r} in {self.server}; write the id of one, "
                f"like vertex:{found[0].rsplit('/', 1)[-1]}@{reference.version or reference.alias_name}. Ids: {ids}."
            )
        with self._speaking("listing its models"):
            names = sorted({model.display_name for model in client.list_models(parent=self.server, timeout=SILENCE)})
        hint = near_miss(reference.name, names)
        raise ModelNotFoundError(f"Vertex AI has no model {reference.name!r} in {self.server}. {hint}")

    def _not_found(self, client: "ModelServiceClient", path: str, reference: ModelReference) -> ModelNotFoundError:
        try:
            with self._speaking(f"listing the versions of {reference.name}"):
                versions = list(client.list_model_versions(name=path, timeout=SILENCE))
        except _AbsentError:
            return ModelNotFoundError(f"Vertex AI has no model {reference.name!r} in {self.server}.")
        if reference.version is not None:
            known = listed(sorted(int(found.version_id) for found in versions), most=12)
            return ModelNotFoundError(
                f"The model {reference.name} in Vertex AI has no version {reference.version}; it has {known}."
            )
        hint = near_miss(reference.alias_name, sorted(alias for found in versions for alias in found.version_aliases))
        return ModelNotFoundError(
            f"The model {reference.name} in Vertex AI has no alias {reference.alias_name!r}. {hint}"
        )

    @contextmanager
    def _speaking(self, doing: str) -> Iterator[None]:
        import requests
        from google.api_core import exceptions
        from google.auth.exceptions import GoogleAuthError

        try:
            yield
        except exceptions.NotFound as error:
            raise _AbsentError from error
        except (exceptions.ServerError, exceptions.TooManyRequests, exceptions.RetryError) as error:
            raise SourceUnavailableError(f"Vertex AI failed while {doing}: {shorten(error, 400)}") from error
        except (requests.RequestException, ConnectionError, TimeoutError) as error:
            raise SourceUnavailableError(f"Vertex AI cannot be reached while {doing}: {shorten(error, 400)}") from error
        except GoogleAuthError as error:
            kind = SourceUnavailableError if error.retryable else SourceAccessError
            raise kind(f"Vertex AI cannot be asked while {doing}: {shorten(error, 400)}") from error
        except exceptions.GoogleAPICallError as error:
            raise SourceAccessError(f"Vertex AI refused a request while {doing}: {shorten(error, 400)}") from error


class _AbsentError(Exception):
    """Vertex AI has no such thing."""


def _split(origin: Origin) -> tuple[str, str]:
    """Return the bucket of a version's folder, and the folder with a slash at its end."""
    scheme, _, rest = origin.uri.partition("://")
    bucket, _, path = rest.partition("/")
    if scheme != "gs" or not bucket:
        raise RefusedModelError(f"{origin}: its files lie at {shorten(origin.uri)}, which is not in Cloud Storage.")
    return bucket, f"{path.strip('/')}/" if path.strip("/") else ""


def _download(bucket: Bucket, what: str, found: Found, target: Path, largest: int) -> Path:
    if found.size > largest:
        raise RefusedModelError(f"{what}: {found.name} has {found.size:,} bytes; at most {largest:,} are imported.")
    stored = bucket.read(found.name, max(found.size, 1))
    if stored is None or stored.generation != found.generation:
        raise SourceUnavailableError(f"{what}: {found.name} was changed while it was imported.")
    target.write_bytes(stored.data)
    return target
