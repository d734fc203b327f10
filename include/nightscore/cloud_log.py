"""Entries of Cloud Logging, written beside the work: a log service that hangs or refuses costs seconds, and no night.

A thread of the process writes them one by one and tries again where that can help. Whoever hands an entry over waits
for it, because processes of tasks end soon after; what a process waits in vain is bounded, all its entries together.
What is not written in that time is still tried while the process lives, and is in the process's own log in any case.
"""

import contextvars
import datetime as dt
import functools
import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nightscore.errors import shorten
from nightscore.objects import Json
from nightscore.settings import Settings

PATIENCE = 5.0  # seconds that a process waits in vain; an entry that is taken gives them back
START_PATIENCE = 10.0  # seconds for importing the client and finding credentials, once
PAUSES = (0.5, 2.0)  # seconds before each further attempt
MOST_WAITING = 100  # entries; those beyond are dropped

log = logging.getLogger(__name__)


@dataclass
class _Item:
    entry: dict[str, Any]
    done: threading.Event = field(default_factory=threading.Event)
    # A warning of the thread then says which run it is about.
    context: contextvars.Context = field(default_factory=contextvars.copy_context)


class CloudLog:
    """One log of Cloud Logging."""

    def __init__(self, config: Settings) -> None:
        self._config = config
        self._items: queue.Queue[_Item] = queue.Queue(MOST_WAITING)
        self._patience = PATIENCE
        self._has_warned = False
        self._started = threading.Event()
        threading.Thread(target=self._write_all, name="nightscore-events", daemon=True).start()

    def write(self, entry: dict[str, Any]) -> None:
        """Hand an entry over and wait for it, as long as this process has patience left."""
        item = _Item(entry)
        try:
            self._items.put_nowait(item)
        except queue.Full:
            return
        self._started.wait(START_PATIENCE if self._patience > 0 else 0)
        began = time.monotonic()
        if not item.done.wait(max(0.0, self._patience)):
            self._warn(f"did not take an event within {PATIENCE:g} s")
            self._patience -= time.monotonic() - began

    def _write_all(self) -> None:
        send = None
        while True:
            item = self._items.get()
            try:
                send = send or self._sender()
                self._started.set()
                _persist(functools.partial(send, item.entry))
            except Exception as error:  # noqa: BLE001 - whatever it is, the night goes on
                self._started.set()
                item.context.run(self._warn, f"refuses events: {type(error).__name__}: {shorten(error, 300)}")
            else:
                self._patience, self._has_warned = PATIENCE, False
            finally:
                item.done.set()

    def _sender(self) -> Any:
        """Return what writes an entry; the client is built by the first entry, and its import takes a second."""
        from google.cloud.logging_v2 import Resource

        from nightscore.clients import build_logging

        # Without a resource the client asks the machine what it is, and waits where nobody answers.
        resource = Resource(type="global", labels={"project_id": self._config.project})
        logger = build_logging(self._config).logger(self._config.events_log, resource=resource)
        return lambda entry: logger.log_struct(**entry)

    def _warn(self, what: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "Cloud Logging (log %s of %s) %s. Events are in this log all the same; the night goes on.",
                self._config.events_log,
                self._config.project,
                what,
            )


def write_to_cloud(config: Settings, *, id: str, time: str, severity: str, payload: Json) -> None:  # noqa: A002
    """Write an event's entry to the log that the settings name; without one, do nothing."""
    if config.events_log is None:
        return
    _log_of(config).write(
        {
            "info": payload,
            "insert_id": id,
            "timestamp": dt.datetime.fromisoformat(time),
            "severity": severity,
            "trace": f"projects/{config.project}/traces/{payload['trace_id']}",
        }
    )


@functools.cache
def _log_of(config: Settings) -> CloudLog:
    return CloudLog(config)


def _persist(send: Callable[[], object]) -> None:
    """Send, again after a failure that may pass."""
    from google.api_core.exceptions import ServerError, TooManyRequests
    from google.auth.exceptions import TransportError
    from requests.exceptions import RequestException

    for pause in PAUSES:
        try:
            send()
        except (ServerError, TooManyRequests, TransportError, RequestException):
            time.sleep(pause)
        else:
            return
    send()
