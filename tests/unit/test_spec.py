"""What a spec derives: its digest, its names, and the partition that a schedule names."""

import datetime as dt
import hashlib
import json
from typing import Any

import pytest
from pydantic import ValidationError

from nightscore.errors import ConfigurationError
from nightscore.spec import (
    Expectation,
    Schedule,
    Spec,
)
from nightscore.spec_values import parse_bytes, parse_days, parse_share, parse_span, span_text

CONTENT: dict[str, Any] = {
    "name": "credit_default",
    "description": "Probability of default.",
    "owner": "risk-ml",
    "schedule": {"cron": "0 2 * * *", "timezone": "UTC", "offset": -1},
    "features": {
        "table": "features.card_accounts",
        "partition": "snapshot_date",
        "keys": ["account_id"],
        "reject": {"impossible_age": "age < 18"},
    },
    "model": {"name": "credit_default"},
    "checks": {"features": [{"expect": "expect_table_row_count_to_be_between", "min_value": 1}], "max_rejected": "1%"},
    "predictions": {"table": "predictions.credit_default", "threshold": 0.5},
    "limits": {"max_bytes_billed": "200GB"},
    "keep": "30d",
}


def changed(path: str, value: object) -> Spec:
    """Return the spec with another value at a path of keys joined by dots."""
    *parents, last = path.split(".")
    content = {key: dict(part) if isinstance(part, dict) else part for key, part in CONTENT.items()}
    part = content
    for parent in parents:
        part = part[parent]
    part[last] = value
    return Spec.model_validate(content)


SPEC = Spec.model_validate(CONTENT)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", "other"),
        ("features.table", "features.card_accounts_2"),
        ("features.partition", "day"),
        ("features.keys", ["account_id", "product"]),
        ("features.reject", {"impossible_age": "age < 16"}),
        ("model.name", "other"),
        ("model.alias", "challenger"),
        ("model.version", 7),
        ("model.challengers", ["challenger"]),
        ("checks.features", [{"expect": "expect_table_row_count_to_be_between", "min_value": 2}]),
        ("checks.max_rejected", "2%"),
        ("checks.max_rejected", 100),
        ("features.reject", {"impossible_age": {"when": "age < 18", "max_rejected": 5}}),
        ("checks.max_same_score", "50%"),
        ("checks.compare", {"psi": {"stop": 0.25}}),
        ("checks.warnings", "hold"),
        ("predictions.table", "predictions.other"),
        ("predictions.threshold", 0.4),
        ("limits.max_rows", 1000),
        ("evidence", {"slices": ["education"]}),
    ],
)
def test_the_digest_covers_what_can_change_a_prediction_or_a_verdict(path: str, value: object) -> None:
    assert changed(path, value).digest != SPEC.digest


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("description", "Other words."),
        ("owner", "another-team"),
        ("schedule", None),
        ("schedule", "30 4 * * *"),
        ("schedule", {"after": "features.card_accounts"}),
        ("features.wait", {"timeout": "3h", "until": "rows >= 5"}),
        ("keep", "30 days"),
        ("deadline", "06:00"),
        ("checks.max_rejected", 0.01),
        ("features.reject", {"impossible_age": {"when": "age < 18"}}),
        ("checks.warnings", "publish"),
        ("limits.max_bytes_billed", 200_000_000_000),
        ("evidence", {"outcomes": {"table": "features.card_outcomes", "column": "defaulted"}}),
        ("promotion", {"max_flips": "2%"}),
        ("resources", {"score": {"cpu": 4, "memory": "8Gi"}}),
    ],
)
def test_the_digest_ignores_the_rest(path: str, value: object) -> None:
    assert changed(path, value).digest == SPEC.digest


def test_the_digest_of_a_query_covers_its_text() -> None:
    features = {"sql": "a.sql", "partition": "d", "keys": ["id"]}
    one, two = (changed("features", {**features, "query": f"SELECT {n}"}) for n in (1, 2))
    assert one.digest != two.digest
    assert len(one.digest) == 64


def test_a_spec_survives_its_own_json() -> None:
    again = Spec.model_validate(SPEC.model_dump(mode="json"))
    assert again == SPEC
    assert again.digest == SPEC.digest
    assert SPEC.model_dump(mode="json")["keep"] == "30d"


def test_an_expectation_reads_the_columns_of_its_row_condition_too() -> None:
    gold = {"type": "comparison", "column": {"name": "product"}, "operator": "==", "parameter": "gold"}
    both = {"type": "and", "conditions": [gold, {"type": "nullity", "column": {"name": "closed"}, "is_null": True}]}
    item = Expectation(expect="expect_column_max_to_be_between", column="limit", max_value=9, row_condition=both)
    assert (item.columns, item.reads) == (("limit",), ("limit", "product", "closed"))


def test_derived_names() -> None:
    assert SPEC.dag_id == "score_credit_default"
    assert SPEC.source == "features.card_accounts"
    assert changed("features", {"sql": "a.sql", "partition": "d", "keys": ["id"]}).source == "a.sql"
    assert str(SPEC.model) == "credit_default@champion"
    assert str(changed("model.version", 7).model) == "credit_default@7"


def test_a_spec_without_what_was_added_later_has_the_digest_that_it_had_before() -> None:
    later = dict.fromkeys(("description", "owner", "schedule", "deadline", "evidence", "promotion", "resources"), True)
    later["limits"] = {"max_rows"}
    content = SPEC.model_dump(mode="json", exclude=later)
    content["model"] = {"name": "credit_default", "alias": None, "version": None}
    content["checks"] = {name: content["checks"][name] for name in ("features", "predictions", "max_rejected")}
    del content["features"]["wait"]
    assert SPEC.digest == hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    assert SPEC.digest == "e3aed01c188cb438a50b1b329012ee3c6b06704786916871efb14b3b41c6469e"  # since the first version


@pytest.mark.parametrize(
    ("text", "mapping"),
    [
        ("credit_default", {"name": "credit_default"}),
        ("credit_default@champion", {"name": "credit_default", "alias": "champion"}),
        ("mlflow:Credit Default@7", {"source": "mlflow", "name": "Credit Default", "version": 7}),
    ],
)
def test_a_model_as_text_is_the_mapping_that_it_stands_for(text: str, mapping: dict[str, object]) -> None:
    assert changed("model", text) == changed("model", mapping)
    assert changed("model", text).digest == changed("model", mapping).digest


def test_a_model_of_another_registry_is_another_model() -> None:
    there = changed("model", "mlflow:credit_default@champion")
    assert there.digest != changed("model", "credit_default@champion").digest
    assert str(there.model) == "mlflow:credit_default@champion"
    beside = changed("model", {"source": "mlflow", "name": "credit_default", "challengers": ["challenger", 3]}).model
    assert [str(item) for item in beside.challenger_references] == [
        "mlflow:credit_default@challenger",
        "mlflow:credit_default@3",
    ]


def test_challengers_are_references_to_the_same_model() -> None:
    spec = changed("model.challengers", ["challenger", 7])
    assert [str(item) for item in spec.model.challenger_references] == [
        "credit_default@challenger",
        "credit_default@7",
    ]
    assert [item.version for item in spec.model.challenger_references] == [None, 7]
    assert str(spec.model) == "credit_default@champion"


def test_the_tables_that_a_pipeline_writes() -> None:
    assert SPEC.tables == ("predictions.credit_default",)
    assert changed("model.challengers", ["challenger"]).tables == (
        "predictions.credit_default",
        "predictions.credit_default_shadow",
    )


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        SPEC.owner = "me"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("arguments", "columns"),
    [
        ({}, ()),
        ({"column": "age"}, ("age",)),
        ({"column_A": "a", "column_B": "b"}, ("a", "b")),
        ({"column_list": ["a", "b"]}, ("a", "b")),
        ({"column_set": ["a"], "min_value": 1}, ("a",)),
        ({"column": None, "column_list": "a"}, ()),
        ({"column": 7, "column_list": ["a", 7]}, ("a",)),
    ],
)
def test_columns_of_an_expectation(arguments: dict[str, Any], columns: tuple[str, ...]) -> None:
    found = Expectation(expect="expect_something", severity="warning", **arguments)
    assert found.columns == columns
    assert found.arguments == arguments


@pytest.mark.parametrize(
    ("text", "size"),
    [("200GB", 200 * 10**9), ("1 tb", 10**12), ("12", 12), ("7B", 7), ("0.5KB", 500), ("3K", None), (" 1MB ", 10**6)],
)
def test_sizes(text: str, size: int | None) -> None:
    if size is None:
        with pytest.raises(ValueError, match="is not a size"):
            parse_bytes(text)
    else:
        assert parse_bytes(text) == size


@pytest.mark.parametrize(("text", "share"), [("1%", 0.01), ("100 %", 1.0), ("0.5%", 0.005), (0.25, 0.25)])
def test_shares(text: object, share: float) -> None:
    assert parse_share(text) == share


@pytest.mark.parametrize(("text", "days"), [("1d", 1), ("30 days", 30), ("1 day", 1), (dt.timedelta(days=3), 3)])
def test_days(text: object, days: int) -> None:
    assert parse_days(text) == dt.timedelta(days=days)


NIGHTLY = "0 2 * * *"
EARLY = "0 5 * * *"
AFTER_THE_GAP = "30 3 * * *"
MONDAYS = "0 6 * * 1"

# cron, zone, offset, now (UTC), partition
PARTITIONS = [
    # A nightly run scores yesterday; before it is due, the last one scored the day before.
    (NIGHTLY, "UTC", -1, "2026-11-20T01:59:59", "2026-11-18"),
    (NIGHTLY, "UTC", -1, "2026-11-20T02:00:00", "2026-11-19"),
    (NIGHTLY, "UTC", -1, "2026-11-20T23:59:59", "2026-11-19"),
    (NIGHTLY, "UTC", 0, "2026-11-20T02:00:00", "2026-11-20"),
    (NIGHTLY, "UTC", -2, "2026-11-20T02:00:00", "2026-11-18"),
    (NIGHTLY, "UTC", 1, "2026-11-20T02:00:00", "2026-11-21"),
    # The zone of the schedule decides what day it is.
    (EARLY, "America/New_York", -1, "2026-11-20T09:59:59", "2026-11-18"),
    (EARLY, "America/New_York", -1, "2026-11-20T10:00:00", "2026-11-19"),
    (EARLY, "Pacific/Auckland", -1, "2026-11-19T15:59:59", "2026-11-18"),
    (EARLY, "Pacific/Auckland", -1, "2026-11-19T16:00:00", "2026-11-19"),
    ("30 23 * * *", "Asia/Kolkata", 0, "2026-11-20T18:00:00", "2026-11-20"),
    # Clocks go forward over 02:00 on 29 March 2026 in Amsterdam, and back over it on 25 October.
    (AFTER_THE_GAP, "Europe/Amsterdam", 0, "2026-03-29T01:29:59", "2026-03-28"),
    (AFTER_THE_GAP, "Europe/Amsterdam", 0, "2026-03-29T01:30:00", "2026-03-29"),
    (AFTER_THE_GAP, "Europe/Amsterdam", -1, "2026-03-30T01:30:00", "2026-03-29"),
    (AFTER_THE_GAP, "Europe/Amsterdam", -1, "2026-03-31T01:30:00", "2026-03-30"),
    (AFTER_THE_GAP, "Europe/Amsterdam", 0, "2026-10-25T02:29:59", "2026-10-24"),
    (AFTER_THE_GAP, "Europe/Amsterdam", 0, "2026-10-25T02:30:00", "2026-10-25"),
    (AFTER_THE_GAP, "Europe/Amsterdam", -1, "2026-10-26T02:30:00", "2026-10-25"),
    (AFTER_THE_GAP, "Europe/Amsterdam", -3, "2026-10-27T02:30:00", "2026-10-24"),
    # A weekly run scores the week before's day, also over a year's end and on the tick itself.
    (MONDAYS, "UTC", -1, "2026-11-20T12:00:00", "2026-11-09"),
    (MONDAYS, "UTC", 0, "2026-11-20T12:00:00", "2026-11-16"),
    (MONDAYS, "UTC", -1, "2027-01-04T06:00:00", "2026-12-28"),
    (MONDAYS, "UTC", -1, "2027-01-04T05:59:59", "2026-12-21"),
    # Monthly, and a leap day.
    ("0 4 1 * *", "UTC", -1, "2026-03-01T04:00:00", "2026-02-01"),
    (NIGHTLY, "UTC", -1, "2028-03-01T02:00:00", "2028-02-29"),
]


@pytest.mark.parametrize(
    ("cron", "zone"),
    [
        ("30 2 * * *", "Europe/Amsterdam"),
        ("0 2 * * *", "America/New_York"),
        ("*/15 * * * *", "Europe/Amsterdam"),
        ("0 2 * * 0", "Europe/Amsterdam"),
        ("15 2 * * *", "Australia/Lord_Howe"),
    ],
)
def test_an_hour_that_the_clock_skips_is_refused(cron: str, zone: str) -> None:
    with pytest.raises(ValidationError, match="the clock skips 02:"):
        Schedule(cron=cron, timezone=zone)


@pytest.mark.parametrize(
    ("cron", "zone"),
    [
        ("30 2 * * *", "UTC"),
        ("30 2 * * 1-5", "Europe/Amsterdam"),
        ("59 1 * * *", "Europe/Amsterdam"),
        ("0 3 * * *", "Europe/Amsterdam"),
        ("30 2 * * *", "Asia/Kolkata"),
        ("45 2 * * *", "Australia/Lord_Howe"),
    ],
)
def test_an_hour_that_every_day_has_is_taken(cron: str, zone: str) -> None:
    assert Schedule(cron=cron, timezone=zone).cron == cron


@pytest.mark.parametrize("condition", ["rows >= 5", "partition modified after 01:00"])
def test_a_query_is_not_run_to_wait_for_its_rows(condition: str) -> None:
    features = {"sql": "a.sql", "query": "SELECT 1", "partition": "d", "keys": ["id"]}
    wait = {"timeout": "3h", "until": ["ops.loads_done has row", condition]}
    with pytest.raises(ValidationError, match=f"cannot look for `{condition}` in what `sql` selects"):
        changed("features", {**features, "wait": wait})
    assert changed("features", {**features, "wait": {**wait, "until": "ops.loads_done has row"}}).features.wait


# cron, zone, offset, partition, today, day of its run
DAYS_OF_RUNS = [
    (NIGHTLY, "UTC", -1, "2026-11-19", "2026-11-20", "2026-11-20"),
    (NIGHTLY, "UTC", 0, "2026-11-19", "2026-11-20", "2026-11-19"),
    (NIGHTLY, "UTC", 1, "2026-11-19", "2026-11-20", "2026-11-18"),
    ("0 0 * * *", "UTC", -1, "2026-11-19", "2026-11-25", "2026-11-20"),
    # A backfill's run counts as that of its own night; a night that is still to come is today's.
    (NIGHTLY, "UTC", -1, "2026-10-01", "2026-11-20", "2026-10-02"),
    (NIGHTLY, "UTC", -1, "2026-11-20", "2026-11-20", "2026-11-20"),
    # Saturday is no day of the schedule; the run after it is Monday's.
    ("0 2 * * 1-5", "UTC", -1, "2026-11-14", "2026-11-20", "2026-11-16"),
    (EARLY, "America/New_York", -1, "2026-11-19", "2026-11-25", "2026-11-20"),
    (AFTER_THE_GAP, "Europe/Amsterdam", -1, "2026-03-28", "2026-04-01", "2026-03-29"),
    (AFTER_THE_GAP, "Europe/Amsterdam", -1, "2026-10-24", "2026-11-01", "2026-10-25"),
]


@pytest.mark.parametrize(("cron", "zone", "offset", "partition", "today", "day"), DAYS_OF_RUNS)
def test_the_day_of_a_partitions_run(cron: str, zone: str, offset: int, partition: str, today: str, day: str) -> None:
    schedule = Schedule(cron=cron, timezone=zone, offset=offset)
    found = schedule.day_of_run(dt.date.fromisoformat(partition), dt.date.fromisoformat(today))
    assert found.isoformat() == day


def test_after_a_table_the_day_of_a_run_is_today_and_no_partition_is_the_latest() -> None:
    schedule = Schedule(after="features.card_accounts")
    assert schedule.day_of_run(dt.date(2026, 10, 1), dt.date(2026, 11, 20)) == dt.date(2026, 11, 20)
    with pytest.raises(ConfigurationError, match=r"features\.card_accounts names the partition when its event comes"):
        schedule.latest_partition(dt.datetime(2026, 11, 20, tzinfo=dt.UTC))
    assert (str(schedule), str(Schedule(cron=NIGHTLY))) == ("after features.card_accounts", NIGHTLY)


@pytest.mark.parametrize(
    ("text", "seconds", "again"),
    [("90m", 5400, "90m"), ("3h", 10800, "3h"), ("2d", 172800, "2d"), ("48h", 172800, "2d"), (" 75 s ", 75, "75s")],
)
def test_spans(text: str, seconds: int, again: str) -> None:
    span = parse_span(text)
    assert span == dt.timedelta(seconds=seconds)
    assert span_text(span) == again
    assert parse_span(span) == span


@pytest.mark.parametrize("text", ["3", "h", "1.5h", "-3h", "3 hours", "3h 5m", ""])
def test_what_is_no_span(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time span; write it like 90m, 3h or 2d"):
        parse_span(text)


@pytest.mark.parametrize(("cron", "zone", "offset", "now", "partition"), PARTITIONS)
def test_latest_partition(cron: str, zone: str, offset: int, now: str, partition: str) -> None:
    schedule = Schedule(cron=cron, timezone=zone, offset=offset)
    moment = dt.datetime.fromisoformat(now).replace(tzinfo=dt.UTC)
    assert schedule.latest_partition(moment).isoformat() == partition


def test_latest_partition_is_the_same_whatever_zone_tells_the_time() -> None:
    schedule = Schedule(cron=EARLY, timezone="America/New_York")
    moment = dt.datetime(2026, 11, 20, 8, tzinfo=dt.UTC)
    there = moment.astimezone(dt.timezone(dt.timedelta(hours=14)))
    assert schedule.latest_partition(there) == schedule.latest_partition(moment)
