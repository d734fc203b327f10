"""The events of a run, one structured entry each: for alerts, dashboards and whoever reads logs.

`schemas/events.json` says which there are and what their fields mean; a class here is one of them, and a test compares
the two. `announce` keeps an entry in the bucket before it is written anywhere. Whoever does a step again, because its
process was killed between the entry and the step's record, finds the entry and writes the same again: with the same
time and the same id, of which Cloud Logging keeps one.

Whatever goes wrong in here is logged and costs no night.
"""

import datetime as dt
import hashlib
import json
import logging
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal

from nightscore.cloud_log import write_to_cloud
from nightscore.errors import LONGEST_VALUE, TransientError, shorten
from nightscore.logs import EVENT_FIELDS, EVENTS, trace_id_of
from nightscore.objects import Json
from nightscore.settings import Settings

LONGEST_TEXT = 1000

Severity = Literal["INFO", "WARNING", "ERROR"]
_LEVELS = {"INFO": logging.INFO, "WARNING": logging.WARNING, "ERROR": logging.ERROR}

log = logging.getLogger(__name__)
_lines = logging.getLogger(EVENTS)


@dataclass(frozen=True)
class About:
    """The run that an event is about; `run_id` is empty where none was planned."""

    pipeline: str
    partition: dt.date
    run_id: str = ""

    @property
    def trace_id(self) -> str:
        """The trace of the run; where none was planned, of the pipeline's partition."""
        return trace_id_of(self.run_id or f"{self.pipeline}/{self.partition}")

    def __str__(self) -> str:
        return f"{self.pipeline} {self.partition}"


@dataclass(frozen=True)
class RunPlanned:
    """A run was planned, or taken up where it stopped."""

    name: ClassVar[str] = "run_planned"

    rows: int | None
    estimated_bytes: int | None
    resumed: bool
    queue_delay_seconds: float | None
    model_version: str

    severity: ClassVar[Severity] = "INFO"

    def sentence(self, about: About) -> str:
        """Return the event in words."""
        return f"{about}: the run {about.run_id} was {'taken up again' if self.resumed else 'planned'}."


@dataclass(frozen=True)
class GateJudged:
    """A gate has judged rows or predictions."""

    name: ClassVar[str] = "gate_judged"

    gate: Literal["feature_gate", "prediction_gate"]
    verdict: Literal["pass", "warn", "stop"]
    failed_checks: str
    checks: int
    model_version: str

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return "WARNING" if self.verdict == "stop" else "INFO"

    def sentence(self, about: About) -> str:
        """Return the event in words."""
        why = f": {self.failed_checks}" if self.failed_checks else ""
        return f"{about}: the {self.gate.replace('_', ' ')} says {self.verdict}{why}."


@dataclass(frozen=True)
class DriftMeasured:
    """The predictions were compared with the last partition before."""

    name: ClassVar[str] = "drift_measured"

    psi: float | None
    mean_shift: float | None
    rows_change: float | None

    severity: ClassVar[Severity] = "INFO"

    def sentence(self, about: About) -> str:
        """Return the event in words."""
        found = {"PSI": self.psi, "shift of the mean": self.mean_shift, "change of rows": self.rows_change}
        shown = ", ".join(f"{name} {value:.4g}" for name, value in found.items() if value is not None)
        return f"{about}: beside the last partition before: {shown}."


@dataclass(frozen=True)
class RunEnded:
    """A run ended, well or not."""

    name: ClassVar[str] = "run_ended"

    status: Literal["published", "refused", "failed", "dry_run"]
    stopped_at: str = ""
    model_version: str | None = None
    rows_frozen: int | None = None
    rows_rejected: int | None = None
    rows_scored: int | None = None
    rows_published: int | None = None
    rows_per_second: float | None = None
    bytes_billed: int | None = None
    seconds: float | None = None

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return "ERROR" if self.status == "failed" else "WARNING" if self.status == "refused" else "INFO"

    def sentence(self, about: About) -> str:
        """Return the event in words."""
        where = f" at {self.stopped_at}" if self.stopped_at else ""
        run = f"the run {about.run_id}" if about.run_id else "a run that was not planned"
        return f"{about}: {run} ended: {self.status.replace('_', ' ')}{where}."


@dataclass(frozen=True)
class DeadlineMissed:
    """The deadline of a pipeline has passed, and its run has not ended."""

    name: ClassVar[str] = "deadline_missed"

    deadline: str

    severity: ClassVar[Severity] = "ERROR"

    def sentence(self, about: About) -> str:
        """Return the event in words."""
        return f"{about}: the predictions had to be there at {self.deadline}, and are not."


Event = RunPlanned | GateJudged | DriftMeasured | RunEnded | DeadlineMissed
EVENT_CLASSES: tuple[type[Event], ...] = (RunPlanned, GateJudged, DriftMeasured, RunEnded, DeadlineMissed)


@dataclass(frozen=True)
class Entry:
    """An event as it is kept and written.

    Attributes:
        id: the same for the same occurrence, whoever writes it.
        time: when it happened.
        severity: as Cloud Logging has it.
        payload: the fields that all events have, then its own.
    """

    id: str
    time: str
    severity: Severity
    payload: Json


Listener = Callable[[Entry], None]
_listeners: list[Listener] = []


def subscribe(listener: Listener) -> None:
    """Have a function called with every entry that this process writes from now on; twice is once."""
    if listener not in _listeners:
        _listeners.append(listener)


def entry_of(event: Event, about: About, occurrence: str, time: dt.datetime) -> Entry:
    """Return an event as an entry; what is not known, and numbers that are none, are left out.

    >>> about = About("cards", dt.date(2026, 11, 19), "2026-11-19-06aae3cf")
    >>> entry = entry_of(DeadlineMissed("06:00"), about, "deadline", dt.datetime(2026, 11, 20, 6, tzinfo=dt.UTC))
    >>> entry.severity, entry.payload["event"], entry.payload["deadline"]
    ('ERROR', 'deadline_missed', '06:00')
    """
    found = {field.name: getattr(event, field.name) for field in fields(event)}
    seed = f"{about.pipeline}/{about.partition}/{about.run_id}/{event.name}/{occurrence}"
    return Entry(
        id=f"{event.name}-{hashlib.sha256(seed.encode()).hexdigest()[:32]}",
        time=time.astimezone(dt.UTC).isoformat(timespec="milliseconds"),
        severity=event.severity,
        payload={
            "event": event.name,
            "message": shorten(event.sentence(about), LONGEST_TEXT),
            "pipeline": about.pipeline,
            "partition": about.partition.isoformat(),
            "run_id": about.run_id,
            "trace_id": about.trace_id,
            **{name: _bounded(value) for name, value in found.items() if _is_known(value)},
        },
    )


def announce(
    config: Settings,
    event: Event,
    about: About,
    *,
    occurrence: str = "",
    keep: Callable[[str, Json], Json] | None = None,
) -> None:
    """Write an event to the process's log, to Cloud Logging where the settings name a log, and tell the listeners.

    Args:
        config: the settings.
        event: what happened.
        about: the run.
        occurrence: tells events of one name and one run apart.
        keep: keeps an entry under a name unless there is one, and returns the one that is there.
    """
    try:
        entry = entry_of(event, about, occurrence, dt.datetime.now(dt.UTC))
        if keep is not None:
            name = f"events/{event.name}{f'-{occurrence}' if occurrence else ''}"
            entry = _kept(entry, name, keep)
        write_line(entry)
        write_to_cloud(config, **asdict(entry))
    except Exception:  # the night does not depend on it
        log.exception("the event %s of %s cannot be written", event.name, about)
        return
    for listener in _listeners:
        try:
            listener(entry)
        except Exception:  # likewise
            log.exception("the event %s of %s cannot be handed on", event.name, about)


def write_line(entry: Entry) -> None:
    """Write an entry to the process's log, as one line of JSON."""
    text = json.dumps(entry.payload, ensure_ascii=False)
    _lines.log(_LEVELS[entry.severity], "%s", text, extra={EVENT_FIELDS: entry.payload})


def checks_named(names: list[str]) -> str:
    """Return names of checks joined by commas, bounded in length.

    >>> checks_named(["a", "b", "a"])
    'a,b'
    """
    return shorten(",".join(shorten(name, LONGEST_VALUE) for name in dict.fromkeys(names)), LONGEST_TEXT)


def _kept(entry: Entry, name: str, keep: Callable[[str, Json], Json]) -> Entry:
    try:
        return Entry(**keep(name, asdict(entry)))
    except TransientError as error:  # it is written all the same; another attempt may then write it twice
        log.info("the entry %s cannot be kept: %s", name, error)
    except Exception:  # likewise
        log.exception("the entry %s cannot be kept", name)
    return entry


def _is_known(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def _bounded(value: Any) -> Any:
    return shorten(value, LONGEST_TEXT) if isinstance(value, str) else value
