"""What the texts of conditions say."""

import datetime as dt

import pytest

from nightscore.conditions import FORMS, Marker, Modified, RowCount, parse_condition


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("rows >= 1", RowCount(1)),
        ("  rows>=1000000\n", RowCount(1_000_000)),
        ("partition modified after 00:00", Modified(dt.time(0, 0))),
        ("partition modified after 23:59", Modified(dt.time(23, 59))),
        ("ops.loads_done has row", Marker("ops.loads_done")),
        ("my-project.ops.loads_done has row", Marker("my-project.ops.loads_done")),
        ("ops.loads_done has row where state = 'ok'", Marker("ops.loads_done", "state = 'ok'")),
        ("ops.d has row where a = @partition\nAND b -- why", Marker("ops.d", "a = @partition\nAND b -- why")),
    ],
)
def test_conditions(text, condition):
    found = parse_condition(text)
    assert found == condition
    assert parse_condition(str(found)) == found


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("rows > 5", 0),
        ("rows >= 1_000", 0),
        ("rows >= -5", 0),
        ("row count >= 5", 0),
        ("ROWS >= 5", None),
        ("partition modified after 1:00", 1),
        ("partition modified after 25:00", 1),
        ("partition changed after 01:00", 1),
        ("table modified after 01:00", 1),
        ("ops.loads_done has rows", 2),
        ("ops.loads_done has a row where state = 'ok'", 2),
        ("ops.loads`done has row", 2),
        ("ops.loads$20261119 has row", 2),
        ("ops.loads_done has row where ", 2),
        ("ops.loads_done has row where " + "x" * 10_001, 2),
        ("", None),
        ("x" * 5000, None),
    ],
)
def test_what_is_no_condition(text, near):
    with pytest.raises(ValueError, match="is not a condition") as caught:
        parse_condition(text)
    message = str(caught.value)
    assert ("Did you mean" in message) == (near is not None)
    assert near is None or f"Did you mean `{FORMS[near]}`?" in message
    assert "Write `rows >= 1000000`, `partition modified after 01:00` or `ops.loads_done has row`" in message
    assert len(message) < 400
