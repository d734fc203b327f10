"""Events: what `schemas/events.json` says is what the classes are, and an entry holds no more than that."""

import dataclasses
import datetime as dt
import json
import logging
import math
import types
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from nightscore import events
from nightscore.events import (
    EVENT_CLASSES,
    About,
    DeadlineMissed,
    DriftMeasured,
    Entry,
    GateJudged,
    RunEnded,
    RunPlanned,
)
from nightscore.logs import JsonFormatter, bound
from nightscore.settings import Settings

SCHEMA = json.loads(files("nightscore").joinpath("schemas/events.json").read_text())
TYPES = {int: "integer", float: "number", bool: "boolean", str: "string"}
ABOUT = About("cards", dt.date(2026, 11, 19), "2026-11-19-06aae3cf")
COMMON = {"event", "message", "pipeline", "partition", "run_id", "trace_id"}
NOW = dt.datetime(2026, 11, 20, 2, 13, tzinfo=dt.UTC)
CONFIG = Settings(project="p", bucket="b")


def described(kind: Any) -> dict[str, Any]:
    """Return a field's type as the schema says it."""
    if get_origin(kind) is types.UnionType:
        [kind] = [item for item in get_args(kind) if item is not types.NoneType]
    if get_origin(kind) is Literal:
        return {"type": "string", "values": list(get_args(kind))}
    return {"type": TYPES[kind]}


def test_the_classes_are_the_events_of_the_schema() -> None:
    assert [cls.name for cls in EVENT_CLASSES] == list(SCHEMA)
    for cls in EVENT_CLASSES:
        names = [field.name for field in dataclasses.fields(cls)]
        hints = {name: kind for name, kind in get_type_hints(cls).items() if name in names}
        wanted = SCHEMA[cls.name]["fields"]
        assert list(hints) == list(wanted), cls.name
        for name, kind in hints.items():
            assert described(kind) == {key: wanted[name][key] for key in ("type", "values") if key in wanted[name]}
        assert SCHEMA[cls.name]["description"] == (cls.__doc__ or "").strip()


@pytest.mark.parametrize(
    ("event", "severity", "sentence"),
    [
        (RunPlanned(5, 10, False, 1.5, "cards/1"), "INFO", "the run 2026-11-19-06aae3cf was planned."),
        (RunPlanned(5, 10, True, None, "cards/1"), "INFO", "the run 2026-11-19-06aae3cf was taken up again."),
        (GateJudged("feature_gate", "pass", "", 3, "cards/1"), "INFO", "the feature gate says pass."),
        (GateJudged("prediction_gate", "stop", "a,b", 3, "cards/1"), "WARNING", "the prediction gate says stop: a,b."),
        (DriftMeasured(0.01, None, 0.1), "INFO", "beside the last partition before: PSI 0.01, change of rows 0.1."),
        (RunEnded("published"), "INFO", "the run 2026-11-19-06aae3cf ended: published."),
        (RunEnded("refused", "feature_gate"), "WARNING", "the run 2026-11-19-06aae3cf ended: refused at feature_gate."),
        (RunEnded("failed"), "ERROR", "the run 2026-11-19-06aae3cf ended: failed."),
        (DeadlineMissed("06:00"), "ERROR", "the predictions had to be there at 06:00, and are not."),
    ],
)
def test_severity_and_sentence(event: events.Event, severity: str, sentence: str) -> None:
    entry = events.entry_of(event, ABOUT, "", NOW)
    assert (entry.severity, entry.payload["message"]) == (severity, f"cards 2026-11-19: {sentence}")


def test_an_entry_holds_the_common_fields_and_what_is_known() -> None:
    event = DriftMeasured(psi=0.25, mean_shift=math.inf, rows_change=None)
    entry = events.entry_of(event, ABOUT, "", NOW)
    assert set(entry.payload) == COMMON | {"psi"}
    assert entry.time == "2026-11-20T02:13:00.000+00:00"


def test_the_id_tells_occurrences_apart_and_nothing_else() -> None:
    def id_of(event: events.Event, occurrence: str = "", about: About = ABOUT) -> str:
        return events.entry_of(event, about, occurrence, NOW).id

    ended = RunEnded("published")
    assert id_of(ended) == id_of(RunEnded("refused"))  # one run ends once, whatever a second attempt thinks
    different = [ended, RunPlanned(1, 1, False, None, "m/1"), DeadlineMissed("06:00")]
    others = [id_of(ended, "again"), id_of(ended, about=About("cards", ABOUT.partition, "2026-11-19-ffffffff"))]
    assert len({*map(id_of, different), *others}) == 5


def test_texts_are_bounded() -> None:
    names = [f"expect_{number}_{'x' * 200}" for number in range(50)]
    entry = events.entry_of(GateJudged("feature_gate", "stop", events.checks_named(names), 50, "m/1"), ABOUT, "", NOW)
    assert max(len(value) for value in entry.payload.values() if isinstance(value, str)) <= 1000


def lines_of(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(record.getMessage()) for record in caplog.records if record.name == "nightscore.event"]


def test_an_event_is_one_line_of_json(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "nightscore"):
        events.announce(CONFIG, RunEnded("refused", "publish"), ABOUT)
    [line] = lines_of(caplog)
    assert (line["event"], line["status"], line["stopped_at"]) == ("run_ended", "refused", "publish")
    [record] = caplog.records
    assert (record.levelname, "\n" in record.getMessage()) == ("WARNING", False)


def test_an_entry_that_was_kept_before_is_written_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    """The process was killed between the entry and the step's record, and another one does the step again."""
    store: dict[str, Any] = {}
    seen: list[Entry] = []
    events.subscribe(seen.append)
    try:
        for _ in range(2):
            events.announce(CONFIG, RunEnded("published"), ABOUT, keep=store.setdefault)
    finally:
        events._listeners.remove(seen.append)
    assert list(store) == ["events/run_ended"]
    assert seen[0] == seen[1]  # also its time, by which Cloud Logging tells an entry that it has


def test_what_goes_wrong_costs_no_night(caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("no bucket")

    events.subscribe(fail)
    try:
        with caplog.at_level(logging.INFO, "nightscore"):
            events.announce(CONFIG, RunEnded("published"), ABOUT, keep=fail)
    finally:
        events._listeners.remove(fail)
    [line] = lines_of(caplog)
    assert line["status"] == "published"
    assert sum(1 for record in caplog.records if record.exc_info) == 2


def test_a_formatted_line_has_the_context_and_the_event() -> None:
    record = logging.makeLogRecord({"name": "nightscore", "levelname": "INFO", "msg": "rows: %d", "args": (5,)})
    with bound(pipeline="cards", run_id="r", shard=None):
        line = json.loads(JsonFormatter().format(record))
    assert {key: line[key] for key in ("level", "logger", "message", "pipeline", "run_id")} == {
        "level": "info",
        "logger": "nightscore",
        "message": "rows: 5",
        "pipeline": "cards",
        "run_id": "r",
    }
    assert "shard" not in line
    assert "pipeline" not in json.loads(JsonFormatter().format(record))


def test_a_formatted_line_is_one_line_and_bounded() -> None:
    error = ValueError("x" * 50_000)
    record = logging.makeLogRecord(
        {"levelname": "ERROR", "msg": "a\nb" * 50_000, "exc_info": (ValueError, error, None)}
    )
    text = JsonFormatter().format(record)
    assert "\n" not in text
    assert len(text) < 50_000
    assert json.loads(text)["exception"].startswith("ValueError: xxx")


def test_the_trace_is_that_of_the_task_where_one_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry.sdk.trace import TracerProvider

    monkeypatch.delenv("OTEL_SDK_DISABLED")  # which keeps exporters of tests quiet
    own = ABOUT.trace_id
    with TracerProvider().get_tracer("test").start_as_current_span("task") as span:
        assert ABOUT.trace_id == f"{span.get_span_context().trace_id:032x}" != own
    assert ABOUT.trace_id == own == About("other", ABOUT.partition, ABOUT.run_id).trace_id


def test_the_page_has_every_event_and_field() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "observability.md").read_text()
    for name, event in SCHEMA.items():
        part = page.split(f"\n### {name}\n")[1].split("\n### ")[0]
        rows = [line for line in part.splitlines() if line.startswith("| `")]
        assert event["description"] in part
        assert rows == [
            f"| `{field}` | {', '.join(f'`{value}`' for value in about.get('values', ())) or about['type']} | "
            f"{about.get('unit', '')} | {about['description']} |"
            for field, about in event["fields"].items()
        ], name
