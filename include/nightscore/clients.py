"""Building Google's clients: the one place that knows whether a server is local.

With no local host in the settings these are plain clients with application default credentials, or with those of the
service account that the settings name: its tokens last an hour, are renewed in time, and no key of it exists.
"""

import functools
from typing import TYPE_CHECKING, Any

from nightscore.errors import ConfigurationError, shorten
from nightscore.settings import Settings, settings

SILENCE = 300.0  # seconds without a byte after which BigQuery is asked again; it answers within ten, working or not
LOG_SILENCE = 10.0  # of Cloud Logging, which takes an entry at once or is out of order

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
TOKEN_SECONDS = 3600  # the longest that needs no exception by organisation policy

# A connection that died without a word is noticed within a minute, and not by TCP after a quarter of an hour.
# The third option is what gRPC goes by today; without it, it waits a minute whatever the second one says.
KEEPALIVE = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 20_000),
)

if TYPE_CHECKING:
    from google.auth.credentials import Credentials
    from google.cloud import bigquery
    from google.cloud.aiplatform_v1.services.model_service import ModelServiceClient
    from google.cloud.bigquery_storage_v1 import BigQueryReadClient
    from google.cloud.logging_v2.client import Client as LoggingClient
    from google.cloud.storage import Client as StorageClient


class CredentialsError(ConfigurationError):
    """This process has no credentials for Google Cloud."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(
            "There are no Google Cloud credentials here. On a laptop, run `gcloud auth application-default login`; on "
            f"Google Cloud, run as a service account. ({shorten(cause, 200)})"
        )


def google_credentials(config: Settings) -> "Credentials":
    """Return the credentials with which every client of Google's acts: of the process, or of the settings' account.

    Raises:
        CredentialsError: the process has none.
    """
    return _credentials(config.service_account)


@functools.cache  # one token for all clients
def _credentials(service_account: str | None) -> "Credentials":
    import google.auth
    from google.auth import impersonated_credentials
    from google.auth.exceptions import DefaultCredentialsError

    try:
        own, _ = google.auth.default(scopes=SCOPES)
    except DefaultCredentialsError as error:
        raise CredentialsError(error) from error
    if service_account is None:
        return own
    return impersonated_credentials.Credentials(
        source_credentials=own, target_principal=service_account, target_scopes=list(SCOPES), lifetime=TOKEN_SECONDS
    )


def build_bigquery(config: Settings) -> "bigquery.Client":
    """Return a BigQuery client for the settings' project and location."""
    from google.cloud import bigquery

    client = bigquery.Client(
        project=config.project, location=config.location, **_connection(config, config.bigquery_host)
    )
    _limit_silence(client, SILENCE)
    return client


def build_bigquery_storage(config: Settings) -> "BigQueryReadClient":
    """Return a Storage Read API client (gRPC)."""
    import grpc
    from google.cloud.bigquery_storage_v1 import BigQueryReadClient
    from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport

    if config.bigquery_storage_host is None:

        def channel(host: str, *, options: Any = (), **kwargs: Any) -> "grpc.Channel":
            return BigQueryReadGrpcTransport.create_channel(host, options=[*options, *KEEPALIVE], **kwargs)

        make = functools.partial(BigQueryReadGrpcTransport, channel=channel)
        return BigQueryReadClient(credentials=google_credentials(config), transport=make)
    # The client honours no variable, and api_endpoint keeps TLS: only a channel of our own reaches a local server.
    options = [("grpc.max_receive_message_length", -1), *KEEPALIVE]
    local = grpc.insecure_channel(config.bigquery_storage_host, options=options)
    return BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=local))


def build_storage(config: Settings) -> "StorageClient":
    """Return a Cloud Storage client."""
    from google.cloud.storage import Client

    return Client(project=config.project, **_connection(config, config.storage_host))


def build_logging(config: Settings) -> "LoggingClient":
    """Return a Cloud Logging client (REST); no request of it takes longer than some seconds."""
    from google.cloud.logging_v2.client import Client

    client = Client(project=config.project, _use_grpc=False, **_connection(config, config.logging_host))
    _limit_silence(client, LOG_SILENCE, own=False)  # its own patience is a minute
    return client


def build_vertex(config: Settings) -> "ModelServiceClient":
    """Return a client of the Vertex AI Model Registry in the settings' region (REST).

    Raises:
        ConfigurationError: its package is not installed.
    """
    try:
        from google.cloud.aiplatform_v1.services.model_service import ModelServiceClient
    except ImportError as error:
        raise ConfigurationError("Models of Vertex AI need its client: `pip install 'nightscore[vertex]'`.") from error
    endpoint = f"{config.vertex_location}-aiplatform.googleapis.com"
    return ModelServiceClient(
        credentials=google_credentials(config), transport="rest", client_options={"api_endpoint": endpoint}
    )


def _connection(config: Settings, host: str | None) -> dict[str, Any]:
    if host is None:
        return {"credentials": google_credentials(config)}
    from google.api_core.client_options import ClientOptions
    from google.auth.credentials import AnonymousCredentials

    return {"credentials": AnonymousCredentials(), "client_options": ClientOptions(api_endpoint=host)}


def _limit_silence(client: "bigquery.Client | LoggingClient", seconds: float, *, own: bool = True) -> None:
    """Give up on a request that is never answered: the BigQuery client sets no timeout, and would wait for ever.

    Args:
        client: a client of Google's over REST.
        seconds: without a byte.
        own: whether a timeout that the client sets itself counts.
    """
    from requests.adapters import HTTPAdapter

    class Bounded(HTTPAdapter):
        def send(self, request: Any, *args: Any, **kwargs: Any) -> Any:
            if kwargs.get("timeout") is None or not own:
                kwargs["timeout"] = seconds
            return super().send(request, *args, **kwargs)

    for scheme in ("https://", "http://"):
        client._http.mount(scheme, Bounded())  # noqa: SLF001 - the client has no other way to its session


@functools.cache
def bigquery_client() -> "bigquery.Client":
    """Return this process's BigQuery client."""
    return build_bigquery(settings())
