"""The pure parts of a plan: how many shards, which names, and that it survives its own JSON."""

import datetime as dt
import json
import re
from typing import Any

import pytest
from pydantic import ValidationError

from nightscore.objects import to_json
from nightscore.plan import Plan, PlannedModel, _shards
from nightscore.spec import Spec

SPEC = Spec.model_validate(
    {
        "name": "credit_default",
        "features": {
            "table": "features.card_accounts",
            "partition": "snapshot_date",
            "keys": ["account_id", "product"],
        },
        "model": {"name": "credit_default"},
        "predictions": {"table": "predictions.credit_default"},
    }
)
NOW = dt.datetime(2026, 11, 20, 2, 0, 0, 123456, tzinfo=dt.UTC)


def plan(**changes: Any) -> Plan:
    content: dict[str, Any] = {
        "run_id": "2026-11-19-0123abcd",
        "digest": "0123abcd" * 8,
        "ordinal": 0,
        "spec": SPEC,
        "partition": dt.date(2026, 11, 19),
        "snapshot_time": NOW,
        "scored_at": NOW,
        "expires": NOW + SPEC.keep,
        "model": PlannedModel(name="credit_default", version=7, digest="ef" * 32, requested="credit_default@champion"),
        "columns": {"account_id": "INT64", "product": "STRING", "snapshot_date": "DATE", "age": "INT64"},
        "partition_type": "TIMESTAMP",
        "shards": 2,
        "rows": 3_000_000,
        "estimated_bytes": 10**9,
        "sources": {"p.features.card_accounts": NOW.isoformat()},
        "replaces_rows": 0,
        "planned_by": "airflow",
        "code_version": "0.1.0",
    }
    return Plan(**{**content, **changes})


@pytest.mark.parametrize(
    ("rows", "shards"),
    [
        (0, 1),
        (1, 1),
        (2_000_000, 1),
        (2_000_001, 2),
        (127_999_999, 64),
        (128_000_001, 64),
        (10**12, 64),
        (None, 8),
    ],
)
def test_few_fat_shards(rows: int | None, shards: int) -> None:
    assert _shards(rows) == shards


def test_a_plan_survives_its_own_json() -> None:
    stored = json.loads(to_json(plan(snapshot_time=None, reason="late data").model_dump(mode="json")))
    assert Plan.model_validate(stored) == plan(snapshot_time=None, reason="late data")
    assert stored["spec"]["keep"] == "30d"


def test_a_plan_that_was_stored_before_challengers_were_known_can_be_read() -> None:
    stored = plan().model_dump(mode="json")
    del stored["challengers"], stored["left_out"], stored["spec"]["model"]["challengers"]
    assert Plan.model_validate(stored) == plan()
    assert (plan().challengers, plan().left_out) == ((), {})


def test_a_plan_keeps_its_challengers_and_who_was_left_out() -> None:
    challenger = PlannedModel(name="credit_default", version=8, digest="cd" * 32, requested="credit_default@challenger")
    found = plan(challengers=(challenger,), left_out={"credit_default@new": "There is none."})
    assert Plan.model_validate(json.loads(to_json(found.model_dump(mode="json")))) == found
    assert found.challengers[0].label == "credit_default/8"


def test_derived_names() -> None:
    found = plan()
    assert found.key_types == {"account_id": "INT64", "product": "STRING"}
    assert found.table_prefix == "credit_default__202611190123abcd"
    assert found.job_key("freeze") == "nightscore_credit_default_2026-11-19-0123abcd_freeze"
    assert found.model.label == "credit_default/7"


def test_names_are_ones_that_bigquery_takes() -> None:
    longest = plan(spec=SPEC.model_copy(update={"name": "p" * 63}))
    assert re.fullmatch(r"[A-Za-z0-9_]{1,1000}", longest.table_prefix)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,1000}", longest.job_key("prediction_gate"))
    for key, value in longest.labels.items():
        assert re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", key)
        assert re.fullmatch(r"[a-z0-9_-]{0,63}", value)


@pytest.mark.parametrize("change", [{"shards": 0}, {"shards": 65}, {"extra": 1}, {"spec": {"name": "x"}}])
def test_a_plan_that_was_tampered_with_is_refused(change: dict[str, Any]) -> None:
    stored = plan().model_dump(mode="json")
    with pytest.raises(ValidationError):
        Plan.model_validate({**stored, **change})
