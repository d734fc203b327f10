"""Row rules that cannot fail: what is put into their place, and what is left as it is."""

import pytest

from nightscore.row_rules import guard, rejected_by


@pytest.mark.parametrize(
    ("rules", "sql"),
    [
        ({}, "CAST(NULL AS STRING)"),
        ({"young": "age < 18"}, "NULLIF(RTRIM(CONCAT(IF((\nage < 18\n), 'young,', '')), ','), '')"),
        (
            {"young": "age < 18 -- why", "old": "age > 110"},
            "NULLIF(RTRIM(CONCAT(IF((\nage < 18 -- why\n), 'young,', ''), IF((\nage > 110\n), 'old,', '')), ','), '')",
        ),
        (
            {"ratio": "a / b > 2"},
            (
                "NULLIF(RTRIM(CONCAT(CASE WHEN (a / NULLIF(b, 0) > 2) IS NULL AND (((b) = 0 AND (a) IS NOT NULL)) "
                "THEN 'ratio:error,' WHEN (a / NULLIF(b, 0) > 2) THEN 'ratio,' ELSE '' END), ','), '')"
            ),
        ),
    ],
)
def test_the_names_of_the_rules_that_reject(rules, sql):
    assert rejected_by(rules) == sql


@pytest.mark.parametrize(
    ("condition", "safe"),
    [
        ("a / b > 2", "(a / NULLIF(b, 0) > 2)"),
        ("MOD(a, b) = 1", "(MOD(a, NULLIF(b, 0)) = 1)"),
        ("DIV(a, b - c) = 1", "(DIV(a, NULLIF(b - c, 0)) = 1)"),
        ("CAST(code AS INT64) > 3", "(SAFE_CAST(code AS INT64) > 3)"),
        ("LN(income) < 1", "(SAFE.LN(income) < 1)"),
        ("PARSE_DATE('%Y%m', month) < d", "(SAFE.PARSE_DATE('%Y%m', month) < d)"),
        ("CAST(a AS INT64) / CAST(b AS INT64) > 1", "(SAFE_CAST(a AS INT64) / NULLIF(SAFE_CAST(b AS INT64), 0) > 1)"),
        ("b != 0 AND a / b > 2", "(b <> 0 AND a / NULLIF(b, 0) > 2)"),
    ],
)
def test_what_can_fail_gives_null_instead(condition, safe):
    assert guard(condition)[0] == safe


@pytest.mark.parametrize(
    "condition",
    [
        "age NOT BETWEEN 18 AND 110",
        "a / 12 > 3",
        "SAFE_CAST(code AS INT64) > 3",
        "SAFE_DIVIDE(a, b) > 2",
        "SAFE.LN(income) < 1",
        "CAST(id AS STRING) LIKE 'x%'",
        "EXISTS (SELECT 1 FROM UNNEST(amounts) AS a WHERE 1 / a > 2)",
        "IF(a > 0, COALESCE(1 / b, 0), 0) > 2",
        "CASE WHEN b > 0 THEN a / b END > 2",
        "CASE WHEN a > 0 THEN TRUE WHEN a / b > 2 THEN FALSE END",
        "this is no SQL (",
    ],
)
def test_a_rule_that_does_not_fail_or_cannot_be_guarded_is_left_as_it_is(condition):
    assert guard(condition) is None


def test_a_failure_that_null_would_hide_counts_on_its_own():
    _, failed = guard("COALESCE(a / b, 0) > 1")
    assert failed == "((b) = 0 AND (a) IS NOT NULL)"
    for condition in ("IF(a / b > 2, TRUE, FALSE)", "CASE WHEN a / b > 2 THEN TRUE END", "FORMAT('%t', a / b) = 'x'"):
        assert guard(condition)[1] == "((b) = 0 AND (a) IS NOT NULL)"
    _, failed = guard("PARSE_DATE('%Y', text) IS NULL")
    assert failed == "((text) IS NOT NULL AND SAFE.PARSE_DATE('%Y', text) IS NULL)"
