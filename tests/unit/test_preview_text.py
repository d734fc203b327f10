"""How a plan reads: the same lines on a terminal and in a log."""

from typing import Any

import pytest

from nightscore.preview_text import preview_as_text, preview_lines

CHAMPION = {
    "requested": "cards@champion",
    "version": "cards/2",
    "digest": "ab" * 32,
    "task": "binary",
    "estimator": "LogisticRegression",
}
COLUMN = {"nullable": True, "fitted_on": None, "takes_null": None}
PLAN: dict[str, Any] = {
    "pipeline": "cards",
    "partition": "2026-11-19",
    "verdict": "ready",
    "exit_code": 0,
    "reasons": [],
    "warnings": [],
    "waits_for": [],
    "dry_run": False,
    "source": {
        "table": "features.cards",
        "rows": 3_000_000,
        "shards": 2,
        "bytes": 2_500_000_000_000,
        "bytes_from": "dry run",
        "cost": 14.210855,
        "price_per_tib": 6.25,
        "currency": "USD",
    },
    "model": CHAMPION,
    "challengers": [{**CHAMPION, "requested": "cards@challenger", "version": "cards/3"}],
    "left_out": {"cards@new": "The model cards has no alias 'new'."},
    "changes": {
        "since": {
            "run_id": "2026-11-18-0123abcd",
            "partition": "2026-11-18",
            "published_at": "2026-11-19T02:01:02.345+00:00",
            "kind": "publish",
        },
        "fields": [
            {"field": "checks.max_rejected", "change": "changed", "before": 0.01, "after": 0.02},
            {"field": "features.reject.old", "change": "added", "before": None, "after": "age > 110"},
            {"field": "features.keys", "change": "changed", "before": ["id"], "after": ["id", "product"]},
            {"field": "model digest", "change": "changed", "before": "cd" * 32, "after": "ab" * 32},
            {"field": "deadline", "change": "removed", "before": "06:00", "after": None},
        ],
        "note": None,
    },
    "columns": [
        {**COLUMN, "name": "day", "type": "DATE", "read_by": ["partition"], "finding": "ok"},
        {
            "name": "age",
            "type": None,
            "nullable": None,
            "read_by": ["model", "check"],
            "fitted_on": "int64",
            "takes_null": False,
            "finding": "missing",
        },
    ],
    "row_rules": {"old": "age > 110\n  OR age IS NULL"},
    "checks": {
        "features": [
            {
                "check": "rejected rows",
                "columns": [],
                "wanted": "at most 1.00%",
                "severity": "critical",
                "built_in": True,
            },
            {
                "check": "expect_column_mean_to_be_between",
                "columns": ["age"],
                "wanted": "min_value 18",
                "severity": "warning",
                "built_in": False,
            },
        ],
        "predictions": [],
    },
    "replaces": {
        "table": "p.cards",
        "exists": True,
        "rows": 1,
        "run_id": "2026-11-19-4567cdef",
        "model_version": "cards/1",
        "published_at": "2026-11-20T02:01:02.345+00:00",
    },
    "expected": {
        "seconds": 200.0,
        "runs": 10,
        "starts_at": "2026-11-21T02:00:00+01:00",
        "ends_at": "2026-11-21T02:03:20+01:00",
        "deadline_at": "2026-11-21T06:00:00+01:00",
        "late": False,
    },
    "code_version": "0.1.0",
}


def lines(**changes: Any) -> list[str]:
    return preview_as_text({**PLAN, **changes}).splitlines()


def test_a_whole_plan() -> None:
    assert lines() == [
        "cards 2026-11-19: what a run would do",
        "  source      features.cards, 3,000,000 rows",
        "  freeze      2.5 TB, 14.21 USD at 6.25 USD per TiB, 2 shards",
        "  model       cards/2 (cards@champion), binary, LogisticRegression, sha256 abababababab",
        "  challenger  cards/3 (cards@challenger), binary, LogisticRegression, sha256 abababababab",
        "  left out    cards@new: The model cards has no alias 'new'.",
        "  replaces    1 row of p.cards, published by 2026-11-19-4567cdef with cards/1 at 2026-11-20 02:01:02+00:00",
        "  time        about 3 min 20 s, told from 10 published runs",
        "  starts      2026-11-21 02:00:00+01:00, and ends about 2026-11-21 02:03:20+01:00",
        "  deadline    2026-11-21 06:00:00+01:00: in time",
        "",
        "changes",
        "  since 2026-11-18-0123abcd, published 2026-11-19 02:01:02+00:00",
        "    ~ checks.max_rejected: 0.01 → 0.02",
        "    + features.reject.old: added: age > 110",
        "    ~ features.keys: id → id, product",
        "    ~ model digest: cdcdcdcdcdcd → abababababab",
        "    - deadline: removed: 06:00",
        "",
        "columns of features.cards",
        "  column  type  NULL  read by       fitted on  takes NULL  finding",
        "  day     DATE  yes   partition                            ok",
        "  age                 model, check  int64      no          missing",
        "",
        "row rules",
        "  old: age > 110 OR age IS NULL",
        "",
        "checks before scoring",
        "  critical  built in  rejected rows                            at most 1.00%",
        "  warning   spec      expect_column_mean_to_be_between on age  min_value 18",
        "",
        "ready",
    ]


def test_a_blocked_one_ends_with_every_reason() -> None:
    reasons = [{"message": "cards: limits.max_rows: too many."}, {"message": "There is no model."}]
    found = lines(verdict="blocked", reasons=reasons, warnings=["cards: deadline: late."], model=None, columns=[])
    assert "  model       unknown" in found
    assert found[found.index("columns of features.cards") + 1] == "  not known"
    assert found[-4:] == [
        "warning: cards: deadline: late.",
        "blocked: cards: limits.max_rows: too many.",
        "blocked: There is no model.",
        "blocked, for 2 reasons: nothing would be frozen, scored or published",
    ]
    styles = dict(preview_lines({**PLAN, "verdict": "blocked", "reasons": reasons}))
    assert styles["blocked: There is no model."] == "red"


def test_a_dry_run_says_that_it_publishes_nothing() -> None:
    found = lines(dry_run=True)
    assert found[1] == "dry run: nothing will be published"
    assert found[-1] == "ready, as a dry run: nothing will be published"


@pytest.mark.parametrize(
    ("part", "changes", "line"),
    [
        ("source", {"rows": None}, "  source      features.cards, rows not counted"),
        ("source", {"bytes": None, "cost": None}, "  freeze      bytes not known, 2 shards"),
        (
            "source",
            {"bytes": 999, "cost": 0.000001, "bytes_from": "table metadata", "shards": 1},
            "  freeze      at most 999 B, less than 0.01 USD at 6.25 USD per TiB, 1 shard",
        ),
        (
            "source",
            {"bytes": 5 * 10**15, "cost": 0.0, "price_per_tib": 0.0, "currency": "EUR"},
            "  freeze      5.0 PB, 0.00 EUR at 0 EUR per TiB, 2 shards",
        ),
        ("replaces", {"exists": False}, "  replaces    nothing: p.cards will be created"),
        ("replaces", {"run_id": None}, "  replaces    1 row of p.cards"),
        ("expected", {"seconds": None}, "  time        not known: no run of this pipeline was published yet"),
        ("expected", {"late": True}, "  deadline    2026-11-21 06:00:00+01:00: late"),
        ("expected", {"late": None}, "  deadline    2026-11-21 06:00:00+01:00"),
        ("changes", {"fields": []}, "    nothing changed"),
        ("changes", {"since": None, "note": "no run"}, "  nothing to compare with: no run"),
        ("changes", {"fields": None, "note": "its plan is gone"}, "  cannot be told: its plan is gone"),
    ],
)
def test_what_is_not_known_and_what_is_not_so(part: str, changes: dict[str, Any], line: str) -> None:
    assert line in lines(**{part: {**PLAN[part], **changes}})
