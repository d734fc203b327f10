"""What every line of a log says about the work that it belongs to, and lines as JSON.

The fields lie in structlog's context variables. Airflow writes those into every line of a task's log, also of loggers
of the standard library; lines of the command line get them from `JsonFormatter`. A thread begins with an empty context:
whoever starts one hands its own over, by `contextvars.copy_context().run`.
"""

import datetime as dt
import hashlib
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nightscore.errors import shorten

LONGEST = 16_000  # characters of a message or a traceback: what reads lines gives up on endless ones
EVENT_FIELDS = "event_fields"  # attribute of a record that is an event: its fields
EVENTS = "nightscore.event"  # the logger of events, and of nothing else

_LEVELS = {"WARNING": "warning", "ERROR": "error", "CRITICAL": "critical", "INFO": "info", "DEBUG": "debug"}


def trace_id_of(seed: str) -> str:
    """Return the W3C trace id of a task that OpenTelemetry traces, and otherwise one that is made of `seed` alone.

    Processes that share a seed, a run's id, then share the trace without telling each other.

    >>> trace_id_of("2026-11-19-06aae3cf") == trace_id_of("2026-11-19-06aae3cf"), len(trace_id_of("x"))
    (True, 32)
    """
    # Imported by whoever traces; where nobody does, importing it would find no span either.
    tracing = sys.modules.get("opentelemetry.trace")
    if tracing is not None:
        context = tracing.get_current_span().get_span_context()
        if context.is_valid:
            return f"{context.trace_id:032x}"
    return hashlib.sha256(seed.encode()).hexdigest()[:32]


@contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Add fields to every line that is logged in the block, in this thread and in those that it hands its context."""
    from structlog.contextvars import bound_contextvars

    with bound_contextvars(**{name: value for name, value in fields.items() if value is not None}):
        yield


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `timestamp`, `level`, `logger`, `message`, the context's fields, an event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        from structlog.contextvars import get_contextvars

        line: dict[str, Any] = {
            "timestamp": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": _LEVELS.get(record.levelname, record.levelname.lower()),
            "logger": record.name,
        }
        fields = getattr(record, EVENT_FIELDS, None)
        if fields is None:
            line["message"] = shorten(record.getMessage(), LONGEST)
        line |= get_contextvars()
        line |= fields or {}
        if record.exc_info:
            line["exception"] = shorten(self.formatException(record.exc_info), LONGEST)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure(log_format: str) -> None:
    """Set the command line's logging up: `text` for people, with warnings only, or `json` with everything that is ours.

    Where people watch, events are left out: the progress and the summary say the same in their words.
    """
    handler = logging.StreamHandler()
    if log_format == "text":
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        handler.addFilter(lambda record: record.name != EVENTS)
    else:
        handler.setFormatter(JsonFormatter())
        logging.getLogger("nightscore").setLevel(logging.INFO)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def are_json() -> bool:
    """Return whether this process writes its lines as JSON."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers)
