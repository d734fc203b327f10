"""The client that Great Expectations is given: it counts what it is asked, and knows an outage from a refusal.

Great Expectations keeps of an exception only its text, and goes on. So what matters is kept here, where it is raised.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nightscore.clients import build_bigquery
from nightscore.warehouse import StatementError, Warehouse, WarehouseError, translated

TOO_MANY_BYTES = "bytesBilledLimitExceeded"  # BigQuery's reason for a query above `maximum_bytes_billed`


@dataclass(frozen=True)
class Bill:
    """What checking a table asked of the warehouse.

    Attributes:
        queries: how many queries were sent.
        bytes_processed: bytes that they processed; BigQuery bills at least 10 MB for every table of a query.
    """

    queries: int = 0
    bytes_processed: int = 0

    def with_ours(self, warehouse: Warehouse, before: tuple[int, int]) -> "Bill":
        """Return the bill with what was asked of a warehouse since its counts were `before`."""
        queries, size = before
        return Bill(self.queries + warehouse.queries - queries, self.bytes_processed + warehouse.bytes_processed - size)

    def to_json(self) -> dict[str, int]:
        """Return the bill as a record holds it."""
        return asdict(self)


class Meter:
    """A BigQuery client and what was asked through it.

    Attributes:
        client: the client.
        outage: the first failure of the server or the network, or a query above the limit of bytes. Nothing is asked
            after it: every further call would wait for as long as that one did, or bill what the limit forbids.
    """

    def __init__(
        self, warehouse: Warehouse, dataset: str, doing: str, labels: Mapping[str, str], max_bytes_billed: int | None
    ) -> None:
        from google.cloud import bigquery

        config = bigquery.QueryJobConfig(default_dataset=f"{warehouse.config.project}.{dataset}", labels=dict(labels))
        if max_bytes_billed is not None:  # the client would send None as the text "None"
            config.maximum_bytes_billed = max_bytes_billed
        self._doing = doing
        self._queries = 0
        self._bytes = 0
        self.outage: WarehouseError | StatementError | None = None
        client: Any = build_bigquery(warehouse.config)
        client.default_query_job_config = config
        # The DB-API takes the client's own patience: ten minutes for a call, forty for a query.
        send = functools.partial(client.query_and_wait, retry=warehouse.retry, job_retry=None)
        look_up = functools.partial(client.get_table, retry=warehouse.retry)
        client.query_and_wait = functools.partial(self._counted, send)
        client.get_table = functools.partial(self._unless_out, look_up)
        self.client = client

    @property
    def bill(self) -> Bill:
        """What was asked until now."""
        return Bill(self._queries, self._bytes)

    def _counted(self, send: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._queries += 1
        rows = self._unless_out(send, *args, **kwargs)
        self._bytes += int(rows.total_bytes_processed or 0)
        return rows

    def _unless_out(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.outage is not None:
            raise self.outage
        try:
            with translated(self._doing):
                return call(*args, **kwargs)
        except WarehouseError as outage:
            self.outage = outage
            raise
        except StatementError as refusal:
            if TOO_MANY_BYTES in str(refusal.__cause__ or refusal):  # smaller pieces would bill even more together
                self.outage = refusal
                raise
            # Anything else is Great Expectations' own to report.
            raise refusal.__cause__ or refusal from None
