"""When a run will begin and end, and whether that is late."""

import datetime as dt
import zoneinfo
from typing import Any

import pytest

from nightscore.spec import Schedule, Spec
from nightscore.timing import due_at, expected, expected_seconds, first_at, next_start

NOW = dt.datetime(2026, 11, 20, 10, tzinfo=dt.UTC)


def spec(**changes: Any) -> Spec:
    return Spec.model_validate(
        {
            "name": "cards",
            "features": {"table": "f.t", "partition": "d", "keys": ["id"]},
            "model": {"name": "cards"},
            "predictions": {"table": "p.t"},
            **changes,
        }
    )


def runs(*figures: tuple[float, int]) -> list[dict[str, Any]]:
    return [{"seconds": seconds, "rows_frozen": rows} for seconds, rows in figures]


@pytest.mark.parametrize(
    ("past", "rows", "seconds"),
    [
        ([], 1000, None),
        (runs((10, 1000)), 1000, 10),
        (runs((10, 1000), (20, 1000), (900, 1000)), 2000, 40),
        (runs((10, 1000), (30, 2000)), None, 20),
        ([{"seconds": 7.0, "rows_frozen": None}], 1000, 7),
    ],
)
def test_the_median_rate_times_the_rows(past: list[dict[str, Any]], rows: int | None, seconds: float | None) -> None:
    assert expected_seconds(past, rows) == seconds


def test_a_run_starts_at_the_next_tick_of_its_zone_or_now() -> None:
    amsterdam = Schedule(cron="0 5 * * *", timezone="Europe/Amsterdam")
    assert next_start(amsterdam, NOW).isoformat() == "2026-11-21T05:00:00+01:00"
    assert next_start(None, NOW) == NOW


@pytest.mark.parametrize(
    ("cron", "deadline", "seconds", "deadline_at", "late"),
    [
        ("0 1 * * *", "06:00", 60, "2026-11-21T06:00:00+01:00", False),
        ("0 1 * * *", "06:00", 5 * 3600, "2026-11-21T06:00:00+01:00", False),
        ("0 1 * * *", "06:00", 5 * 3600 + 1, "2026-11-21T06:00:00+01:00", True),
        ("30 23 * * *", "06:00", 7 * 3600, "2026-11-21T06:00:00+01:00", True),
        ("0 6 * * *", "06:00", 1, "2026-11-21T06:00:00+01:00", True),
        ("0 1 * * *", "06:00", None, "2026-11-21T06:00:00+01:00", None),
        ("0 1 * * *", None, 60, None, None),
    ],
)
def test_the_deadline_is_the_first_such_time_after_the_start(
    cron: str, deadline: str | None, seconds: float | None, deadline_at: str | None, late: bool | None
) -> None:
    changes = {"deadline": deadline, "schedule": {"cron": cron, "timezone": "Europe/Amsterdam"}}
    pipeline = spec(**changes)
    found = expected(pipeline, next_start(pipeline.schedule, NOW), seconds, 3)
    assert (found["deadline_at"], found["late"], found["runs"]) == (deadline_at, late, 3)


def test_a_run_that_begins_after_its_deadline_is_late() -> None:
    nightly = spec(deadline="06:00", schedule="0 2 * * *")
    began = dt.datetime(2026, 11, 20, 6, 30, tzinfo=dt.UTC)  # after a wait that took until then
    late = expected(nightly, began, 90, 1, due_at(nightly.schedule, dt.date(2026, 11, 19), began))
    assert (late["deadline_at"], late["late"]) == ("2026-11-20T06:00:00+00:00", True)


def test_without_a_schedule_the_deadline_is_in_utc() -> None:
    found = expected(spec(deadline="10:30"), NOW, 90, 1)
    assert found == {
        "seconds": 90,
        "runs": 1,
        "starts_at": "2026-11-20T10:00:00+00:00",
        "ends_at": "2026-11-20T10:01:30+00:00",
        "deadline_at": "2026-11-20T10:30:00+00:00",
        "late": False,
    }


def test_a_night_in_which_the_clocks_are_changed_has_its_own_length() -> None:
    """From 00:30 to 06:00 it is four and a half hours on 29 March in Amsterdam, and six and a half on 25 October."""
    changes = {"deadline": "06:00", "schedule": {"cron": "30 0 * * *", "timezone": "Europe/Amsterdam"}}
    for now, hours in (
        (dt.datetime(2026, 3, 28, 12, tzinfo=dt.UTC), 4.5),
        (dt.datetime(2026, 10, 24, 12, tzinfo=dt.UTC), 6.5),
    ):
        pipeline = spec(**changes)
        start = next_start(pipeline.schedule, now)
        just, over = (expected(pipeline, start, hours * 3600 + more, 1) for more in (0, 1))
        assert (just["ends_at"], just["late"]) == (just["deadline_at"], False)
        assert over["late"] is True


def test_a_time_that_comes_twice_is_the_first_one_at_or_after_the_start() -> None:
    start = dt.datetime.fromisoformat("2026-10-24T23:00:00+00:00").astimezone(zoneinfo.ZoneInfo("Europe/Amsterdam"))
    assert first_at("02:30", start).astimezone(dt.UTC).isoformat() == "2026-10-25T00:30:00+00:00"
