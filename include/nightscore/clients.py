"""Building Google's clients: the one place that knows whether a server is local.

With no local host in the settings these are plain clients with application default credentials.
"""

import functools
from typing import TYPE_CHECKING, Any

from nightscore.settings import Settings, settings

if TYPE_CHECKING:
    from google.cloud import bigquery
    from google.cloud.bigquery_storage_v1 import BigQueryReadClient
    from google.cloud.storage import Client as StorageClient


def build_bigquery(config: Settings) -> "bigquery.Client":
    """Return a BigQuery client for the settings' project and location."""
    from google.cloud import bigquery

    return bigquery.Client(project=config.project, location=config.location, **_connection(config.bigquery_host))


def build_bigquery_storage(config: Settings) -> "BigQueryReadClient":
    """Return a Storage Read API client (gRPC)."""
    from google.cloud.bigquery_storage_v1 import BigQueryReadClient

    if config.bigquery_storage_host is None:
        return BigQueryReadClient()
    import grpc
    from google.cloud.bigquery_storage_v1.services.big_query_read.transports import (
        BigQueryReadGrpcTransport,
    )

    # The client honours no variable, and api_endpoint keeps TLS: only a channel of our own reaches a local server.
    channel = grpc.insecure_channel(config.bigquery_storage_host, options=[("grpc.max_receive_message_length", -1)])
    return BigQueryReadClient(transport=BigQueryReadGrpcTransport(channel=channel))


def build_storage(config: Settings) -> "StorageClient":
    """Return a Cloud Storage client."""
    from google.cloud.storage import Client

    return Client(project=config.project, **_connection(config.storage_host))


def _connection(host: str | None) -> dict[str, Any]:
    if host is None:
        return {}
    from google.api_core.client_options import ClientOptions
    from google.auth.credentials import AnonymousCredentials

    return {"credentials": AnonymousCredentials(), "client_options": ClientOptions(api_endpoint=host)}


@functools.cache
def bigquery_client() -> "bigquery.Client":
    """Return this process's BigQuery client."""
    return build_bigquery(settings())
