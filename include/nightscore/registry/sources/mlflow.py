"""MLflow's model registry, through MLflow's own client.

Of a model, three files can be downloaded: `MLmodel`, the model's data, and the input example. MLflow's own loading,
which would run whatever a pickle holds, is never called.
"""

import datetime as dt
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from nightscore.errors import listed, near_miss, shorten
from nightscore.registry.manifest import Origin
from nightscore.registry.signature import SampleError
from nightscore.registry.sources.mlmodel import EXAMPLE, SIGNATURE, MLmodel, parse_mlmodel, read_example
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
from nightscore.settings import default_environment
from nightscore.spec import ModelReference

if TYPE_CHECKING:
    from mlflow import MlflowClient

LARGEST_MLMODEL = 2**20
MOST_NAMES = 1000
MOST_METRICS = 100

# Whoever plans a night waits for the answer, and Airflow tries again. And a night tells nobody that it took place.
_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}

# MLflow's words for what a retry can cure; INTERNAL_ERROR is also what its client says of a lost connection.
_PASSING = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED")
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "ENDPOINT_NOT_FOUND")


class MlflowSource:
    """One MLflow server, or whatever else a tracking URI names."""

    def __init__(self, tracking_uri: str) -> None:
        self._uri = tracking_uri

    @property
    def server(self) -> str:
        """The tracking URI without user, password and query.

        Raises:
            SourceAccessError: it is no address; it is not shown, for it may hold a password.
        """
        try:
            parts = urlsplit(self._uri)
        except ValueError:
            raise SourceAccessError("MLflow's tracking URI is not an address like https://mlflow.example.") from None
        if not parts.netloc:
            return self._uri.split("?", 1)[0]
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")).rstrip("/")

    def resolve(self, reference: ModelReference) -> Origin:
        """Return the version that a reference means now.

        Raises:
            ModelNotFoundError: there is no such model, version or alias; names the near miss.
            SourceUnavailableError: MLflow cannot be asked.
        """
        client = self._client()
        try:
            with self._speaking(f"looking up {reference}", hint=_only_mlflow_knows(reference)):
                if reference.version is not None:
                    found = client.get_model_version(reference.name, str(reference.version))
                else:
                    found = _by_alias(client, reference)
                uri = client.get_model_version_download_uri(reference.name, found.version)
        except _AbsentError as error:
            raise self._not_found(client, reference) from error
        if found.status != "READY":
            raise RefusedModelError(f"{reference} is {shorten(found.status)} in MLflow, not READY.")
        return Origin(
            kind="mlflow",
            server=self.server,
            name=reference.name,
            version=int(found.version),
            run_id=found.run_id or "",
            uri=_bare(uri),
            registered_at=dt.datetime.fromtimestamp(found.creation_timestamp / 1000, dt.UTC).isoformat(),
            alias=None if reference.version is not None else reference.alias_name,
            tags={shorten(name): shorten(value, 200) for name, value in sorted(found.tags.items())[:MOST_TAGS]},
        )

    def fetch(self, origin: Origin, folder: Path) -> Fetched:
        """Download `MLmodel`, and what it names as the model's data and its input example.

        Raises:
            RefusedModelError: the model was logged in a format that is refused; its data was not downloaded.
            SourceUnavailableError: it cannot be downloaded now.
        """
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        what, client = str(origin), self._client()
        with self._speaking(f"reading the files of {what}"):
            repository = get_artifact_repository(origin.uri, tracking_uri=self._uri)
            files = _Files(self, what, repository, folder)
            mlmodel = files.download("MLmodel", LARGEST_MLMODEL)
        said = parse_mlmodel(what, mlmodel.read_text(encoding="utf-8", errors="replace"))
        with self._speaking(f"downloading {what}"):
            file = files.download(said.file, LARGEST_DOWNLOAD)
            sample, no_sample = _sample(what, said, files)
            found = client.get_model_version(origin.name, str(origin.version))
        metrics, commit = self._run(client, origin)
        return Fetched(file, sample, no_sample, metrics, shorten(found.description or "", 1000), commit)

    def _run(self, client: "MlflowClient", origin: Origin) -> tuple[dict[str, float], str]:
        """Return the metrics of the run that made a model, and the commit of its code."""
        if not origin.run_id:
            return {}, ""
        try:
            with self._speaking(f"reading the metrics of {origin}"):
                found = client.get_run(origin.run_id).data
        except _AbsentError:  # runs are cleared away before the models that they made
            return {}, ""
        first = sorted(found.metrics.items())[:MOST_METRICS]
        metrics = {name: float(value) for name, value in first if math.isfinite(value)}
        return metrics, shorten(found.tags.get("mlflow.source.git.commit", ""), 64)

    def _client(self) -> "MlflowClient":
        default_environment(_DEFAULTS)
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise SourceAccessError("Models of MLflow need its client: `pip install 'nightscore[mlflow]'`.") from error
        with self._speaking("preparing its client"):
            return MlflowClient(tracking_uri=self._uri)

    def _not_found(self, client: "MlflowClient", reference: ModelReference) -> ModelNotFoundError:
        where = f"MLflow at {self.server}"
        try:
            with self._speaking(f"listing the aliases of {reference.name}"):
                model = client.get_registered_model(reference.name)
        except _AbsentError:
            with self._speaking("listing its models"):
                names = [found.name for found in client.search_registered_models(max_results=MOST_NAMES)]
            return ModelNotFoundError(f"{where} has no model {reference.name!r}. {near_miss(reference.name, names)}")
        if reference.version is None:
            hint = near_miss(reference.alias_name, sorted(model.aliases))
            return ModelNotFoundError(
                f"The model {reference.name} in {where} has no alias {reference.alias_name!r}. {hint}"
            )
        with self._speaking(f"listing the versions of {reference.name}"):
            versions = client.search_model_versions(f"name='{reference.name}'", max_results=MOST_NAMES)
        known = sorted(int(found.version) for found in versions)
        return ModelNotFoundError(
            f"The model {reference.name} in {where} has no version {reference.version}; "
            f"it has {listed(known, most=12) or 'none'}."
        )

    @contextmanager
    def _speaking(self, doing: str, hint: str = "") -> Iterator[None]:
        """Turn what MLflow's client raises into errors of ours.

        Its messages hold addresses, and those may hold a password: what we say is scrubbed, and their own error is not
        kept as the cause.
        """
        import requests
        from mlflow.exceptions import MlflowException

        said = f"MLflow at {self.server} {{}} while {doing}: "
        try:
            yield
        except MlflowException as error:
            if error.error_code in _ABSENT:
                raise _AbsentError from None
            words = _bare(shorten(error, 400))
            if error.error_code in _PASSING:
                raise SourceUnavailableError(f"{said.format('failed')}{words}{hint}") from None
            raise SourceAccessError(f"{said.format('refused a request')}{words}") from None
        except ImportError as error:  # of a client for the store that keeps the files
            raise SourceAccessError(f"{said.format('needs a further package')}{_bare(shorten(error))}") from None
        except (requests.RequestException, OSError) as error:
            raise SourceUnavailableError(f"{said.format('failed')}{_bare(shorten(error, 400))}{hint}") from None


class _AbsentError(Exception):
    """MLflow has no such thing."""


class _Files:
    """The files of one model, downloaded one by one."""

    def __init__(self, source: MlflowSource, what: str, repository: Any, folder: Path) -> None:
        self._source = source
        self._what = what
        self._repository = repository
        self._folder = folder

    def download(self, path: str, largest: int) -> Path:
        """Return one file's copy.

        Raises:
            RefusedModelError: there is no such file, or it is too large.
        """
        parent = path.rpartition("/")[0]
        sizes = {found.path: found.file_size for found in self._repository.list_artifacts(parent or None)}
        if path not in sizes:
            raise RefusedModelError(f"{self._what}: there is no file {path} among its files in MLflow.")
        self._require_size(path, sizes[path] or 0, largest)
        copy = Path(self._repository.download_artifacts(path, str(self._folder)))
        self._require_size(path, copy.stat().st_size, largest)
        return copy

    def _require_size(self, path: str, size: int, largest: int) -> None:
        if size > largest:
            raise RefusedModelError(f"{self._what}: {path} has {size:,} bytes; at most {largest:,} are imported.")


def _by_alias(client: "MlflowClient", reference: ModelReference) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(reference.name, reference.alias_name)
    except MlflowException as error:
        if error.error_code == "INVALID_PARAMETER_VALUE":  # what MLflow says where a model has no such alias
            raise _AbsentError from error
        raise


def _only_mlflow_knows(reference: ModelReference) -> str:
    if reference.version is not None:
        return ""
    return (
        f" Only MLflow knows what {reference.alias_name!r} means now. A version that was imported before, named by its "
        f"number like mlflow:{reference.name}@7, does without it."
    )


def _sample(what: str, said: MLmodel, files: _Files) -> tuple[Path | None, str]:
    """Return the input example as a Parquet file, or a sentence why there is none."""
    from pyarrow import parquet

    if said.example is None:
        return None, f"it was logged without an input example of named columns; log it with `{EXAMPLE}`."
    if said.inputs is None:
        return None, f"it was logged without a signature, which types its named columns; log it with `{SIGNATURE}`."
    copy = files.download(said.example, LARGEST_SAMPLE)
    try:
        rows = read_example(what, copy.read_bytes(), said.inputs)
    except SampleError as error:
        return None, str(error)
    made = copy.with_name("nightscore-sample.parquet")
    parquet.write_table(rows, made)
    return made, ""


def _bare(text: str) -> str:
    """Return a text without the users and passwords of the addresses in it.

    >>> _bare("GET http://ada:secret@mlflow:5000/api failed")
    'GET http://mlflow:5000/api failed'
    """
    return re.sub(r"://[^/\s]*@", "://", text)
