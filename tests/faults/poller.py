"""A reader of a predictions table who looks all the time."""

import datetime as dt
import threading
import time
from collections import Counter
from typing import Self

from google.api_core.exceptions import NotFound

from nightscore.clients import build_bigquery
from nightscore.settings import Settings


class Poller:
    """Counts a partition's rows over and over while a block runs, and remembers every count; no table: no rows."""

    def __init__(self, settings: Settings, table: str, day: dt.date) -> None:
        self.counts: Counter[int] = Counter()
        self._client = build_bigquery(settings)
        self._sql = f"SELECT COUNT(*) AS n FROM `{table}` WHERE snapshot_date = DATE '{day}'"
        self._failure: Exception | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _poll(self) -> None:
        pause = 0.0
        try:
            while not self._over.wait(pause):
                began = time.monotonic()
                self.counts[self._count()] += 1
                pause = 4 * (time.monotonic() - began)  # looking must not take the server's time from the run
        except Exception as error:  # noqa: BLE001 - whatever it is, the block's end raises it
            self._failure = error

    def _count(self) -> int:
        try:
            [row] = self._client.query_and_wait(self._sql)
        except NotFound:
            return 0
        return int(row["n"])
