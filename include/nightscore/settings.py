"""The only reader of the environment: where the warehouse, the bucket and the specs are.

Every variable is prefixed `NIGHTSCORE_`, except the four that point Google's own clients at a local server, and
MLflow's own, which counts where ours is not set. Inside a
checkout in which `nightscore local up` has started servers, the file `.nightscore/env` says where they are, so that a
newcomer configures nothing. It counts as a whole: once the environment sets any of its variables, it is not read.
"""

import functools
import getpass
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nightscore.errors import ConfigurationError

LOCAL_DIR = ".nightscore"
LOCAL_ENV = "env"


class SettingError(ConfigurationError):
    """A setting is missing or malformed."""

    def __init__(self, variable: str, found: str | None, wanted: str) -> None:
        state = "is not set" if found is None else f"is {found!r}"
        super().__init__(f"The environment variable {variable} {state}. {wanted}")
        self.variable = variable


@dataclass(frozen=True)
class Settings:
    """Where one deployment keeps its things.

    Attributes:
        project: Google Cloud project that runs and pays for the queries.
        bucket: Cloud Storage bucket of the registry and of the runs' records.
        location: BigQuery location of every dataset.
        staging_dataset: dataset of run-scoped snapshot and staging tables, all of which expire.
        operations_dataset: dataset of `runs`, `checks`, `publications`, `quarantine` and `fences`.
        pipelines_dir: folder with one folder per pipeline.
        price_per_tib: price of 2^40 bytes of on-demand queries.
        currency: the price's currency, as a code of three letters.
        service_account: the service account that Google's clients act as, by impersonation; None: the process's own
            credentials.
        trusted_signers: folder of public keys and identities; where it is given, only models that one of them has
            signed are loaded.
        lease_seconds: after this time without a sign of life another run may take a partition over.
        mlflow_tracking_uri: the MLflow server that models are imported from; may hold credentials.
        vertex_location: region of the Vertex AI Model Registry that models are imported from.
        events_log: log of Cloud Logging in `project` that events are written to; None: to the process's log alone.
        bigquery_host, bigquery_storage_host, storage_host, logging_host: local servers; None means Google's endpoints.
    """

    project: str
    bucket: str
    location: str = "US"
    staging_dataset: str = "nightscore_staging"
    operations_dataset: str = "nightscore_operations"
    pipelines_dir: Path = field(default_factory=lambda: Path("dags/pipelines"))
    lease_seconds: int = 60
    price_per_tib: float = 6.25
    currency: str = "USD"
    service_account: str | None = None
    trusted_signers: Path | None = None
    mlflow_tracking_uri: str | None = field(default=None, repr=False)
    vertex_location: str | None = None
    events_log: str | None = None
    bigquery_host: str | None = None
    bigquery_storage_host: str | None = None
    storage_host: str | None = None
    logging_host: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether the warehouse is a local server."""
        return self.bigquery_host is not None


_CHECKS: Mapping[str, tuple[str, str]] = {
    "project": (r"[a-z0-9][a-z0-9.:-]{1,99}", "It is a Google Cloud project id."),
    "bucket": (r"[a-z0-9][-a-z0-9_.]{1,220}[a-z0-9]", "It is a Cloud Storage bucket's name, without gs://."),
    "location": (r"[A-Za-z0-9-]+", "It is a BigQuery location such as US or europe-west4."),
    "staging_dataset": (r"[A-Za-z0-9_]{1,1024}", "It is a BigQuery dataset's name."),
    "operations_dataset": (r"[A-Za-z0-9_]{1,1024}", "It is a BigQuery dataset's name."),
    "lease_seconds": (r"[1-9][0-9]{0,3}", "It is a number of seconds from 1 to 9999."),
    "price_per_tib": (r"[0-9]{1,6}(\.[0-9]{1,6})?", "It is the price of a TiB of on-demand queries, like 6.25."),
    "currency": (r"[A-Z]{3}", "It is a currency's code, like USD."),
    "service_account": (
        r"[a-z0-9][a-z0-9.-]{0,62}@[a-z0-9.-]+\.gserviceaccount\.com",
        "It is a service account's e-mail address, like scorer@my-project.iam.gserviceaccount.com.",
    ),
    "vertex_location": (r"[a-z]+-[a-z]+[0-9]+", "It is a region of Vertex AI, like europe-west4."),
    "events_log": (r"[A-Za-z0-9._-]{1,200}", "It is the name of a log of Cloud Logging, like nightscore."),
}

_NUMBERS: Mapping[str, type[int] | type[float]] = {"lease_seconds": int, "price_per_tib": float}

# Every variable of ours that means something.
VARIABLES: tuple[str, ...] = (
    *(f"NIGHTSCORE_{name.upper()}" for name in _CHECKS),
    "NIGHTSCORE_HOME",
    "NIGHTSCORE_LOG_FORMAT",
    "NIGHTSCORE_MLFLOW_TRACKING_URI",
    "NIGHTSCORE_PIPELINES_DIR",
    "NIGHTSCORE_SIGNING_PASSWORD",
    "NIGHTSCORE_TRUSTED_SIGNERS",
)

# Google's clients and DuckDB's httpfs know the first two names; the other two are ours.
_HOSTS = {
    "bigquery_host": "BIGQUERY_EMULATOR_HOST",
    "storage_host": "STORAGE_EMULATOR_HOST",
    "bigquery_storage_host": "BIGQUERY_STORAGE_EMULATOR_HOST",
    "logging_host": "LOGGING_EMULATOR_HOST",
}

LOG_FORMATS = ("text", "json")


def read_settings(environment: Mapping[str, str], root: Path | None = None) -> Settings:
    """Build the settings from environment variables, and from the local servers' file under `root`.

    Raises:
        SettingError: a required variable is missing, or one is malformed.
    """
    local = _local_environment(root) if root else {}
    # All of the file or nothing: a project of Google's with a local host would be neither the one nor the other.
    values = dict(environment) if any(environment.get(name) for name in local) else {**local, **environment}
    found: dict[str, Any] = {}
    for name, (pattern, wanted) in _CHECKS.items():
        variable = f"NIGHTSCORE_{name.upper()}"
        value = values.get(variable) or None
        if value is None and name in ("project", "bucket"):
            hint = "Set it, or start the local servers with `nightscore local up`."
            raise SettingError(variable, None, f"{wanted} {hint}")
        if value is not None:
            if not re.fullmatch(pattern, value):
                raise SettingError(variable, value, wanted)
            found[name] = _NUMBERS.get(name, str)(value)
    hosts: dict[str, Any] = {name: values[variable] for name, variable in _HOSTS.items() if values.get(variable)}
    if "bigquery_host" in hosts and "bigquery_storage_host" not in hosts:
        raise SettingError(
            _HOSTS["bigquery_storage_host"], None, "It is the host:port of the local storage gRPC service."
        )
    if hosts and "service_account" in found:
        raise SettingError(
            "NIGHTSCORE_SERVICE_ACCOUNT",
            found["service_account"],
            f"Local servers know no service accounts, and {_HOSTS[min(hosts)]} names one. Unset either.",
        )
    tracking = values.get("NIGHTSCORE_MLFLOW_TRACKING_URI") or values.get("MLFLOW_TRACKING_URI") or None
    signers = values.get("NIGHTSCORE_TRUSTED_SIGNERS")
    if signers == "":  # it would switch the signatures off without a word
        raise SettingError("NIGHTSCORE_TRUSTED_SIGNERS", "", "It is a folder of signers, or not set at all.")
    return Settings(
        **found,
        **hosts,
        trusted_signers=Path(signers) if signers else None,
        mlflow_tracking_uri=tracking,
        pipelines_dir=_pipelines_dir(environment, root or Path()),
    )


def default_environment(values: Mapping[str, str]) -> None:
    """Set variables that other libraries read, each only where the environment does not set it."""
    for name, value in values.items():
        os.environ.setdefault(name, value)


def project_root(start: Path | None = None) -> Path:
    """Return the nearest folder at or above `start` that holds `dags/` or `.nightscore/`, else `start` itself."""
    start = (start or Path.cwd()).resolve()
    configured = os.environ.get("NIGHTSCORE_HOME")
    if configured:
        return Path(configured)
    return next((f for f in (start, *start.parents) if (f / "dags").is_dir() or (f / LOCAL_DIR).is_dir()), start)


def user_name() -> str:
    """Return who runs this process; in a container whose user has no name, its number."""
    try:
        # The environment says it, and it goes into records that people read.
        return " ".join(getpass.getuser().split())[:100]
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


@functools.cache
def settings() -> Settings:
    """Return this process's settings, read once."""
    return read_settings(os.environ, project_root())


def pipelines_dir() -> Path:
    """Return the folder of specs; unlike `settings`, this needs no project and no bucket."""
    return _pipelines_dir(os.environ, project_root())


def log_format() -> str:
    """Return how the command line writes its log, `text` or `json`; this needs no project and no bucket either.

    Raises:
        SettingError: it is something else.
    """
    found = os.environ.get("NIGHTSCORE_LOG_FORMAT") or LOG_FORMATS[0]
    if found not in LOG_FORMATS:
        raise SettingError("NIGHTSCORE_LOG_FORMAT", found, "It is text or json.")
    return found


def _pipelines_dir(environment: Mapping[str, str], root: Path) -> Path:
    configured = environment.get("NIGHTSCORE_PIPELINES_DIR")
    return Path(configured) if configured else root / "dags" / "pipelines"


def _local_environment(root: Path) -> dict[str, str]:
    path = root / LOCAL_DIR / LOCAL_ENV
    if not path.is_file():
        return {}
    lines = (line.strip() for line in path.read_text().splitlines())
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
