"""Random tables and random rules: scored and rejected rows are told apart as three-valued logic tells them."""

from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nightscore.row_rules import FAILED, rejected_by

SOFT, HARD = "failed", "failed, and NULL would hide it"  # beside True, False and None for NULL


@dataclass(frozen=True)
class Term:
    """A piece of GoogleSQL, and what it is for a row."""

    sql: str
    of: Any

    def __repr__(self) -> str:
        return self.sql


def failed(*values):
    return HARD if HARD in values else SOFT if SOFT in values else None


def strictly(operation):
    """An operator that gives NULL for NULL, and fails where an operand does."""

    def of(*values):
        return failed(*values) or (None if None in values else operation(*values))

    return of


def divided(x, y):
    return SOFT if y == 0 else x / y


def cast(text):
    return int(text) if text.strip().removeprefix("-").isdecimal() else SOFT


def hidden(value, other):
    return HARD if failed(value) else failed(other) or (other if value is None else value)


def conjunction(x, y):
    if HARD in (x, y):
        return HARD
    if x is False or y is False:
        return False
    return failed(x, y) or (None if None in (x, y) else True)


def negation(x):
    return x if x in (None, SOFT, HARD) else not x


def binary(left, right, pattern, operation):
    sql = pattern.format(left.sql, right.sql)
    return Term(sql, lambda row: operation(left.of(row), right.of(row)))


def unary(inner, pattern, operation):
    return Term(pattern.format(inner.sql), lambda row: operation(inner.of(row)))


COLUMN = st.sampled_from([Term("a", lambda row: row["a"]), Term("b", lambda row: row["b"])])
NUMBER = st.recursive(
    st.one_of(
        COLUMN,
        st.integers(-2, 2).map(lambda n: Term(f"{n}", lambda row: n)),
        st.just(Term("CAST(t AS INT64)", lambda row: strictly(cast)(row["t"]))),
    ),
    lambda inner: st.one_of(
        st.builds(lambda x, y: binary(x, y, "({} / {})", strictly(divided)), inner, inner),
        st.builds(lambda x, y: binary(x, y, "COALESCE({}, {})", hidden), inner, COLUMN),
    ),
    max_leaves=4,
)
CONDITION = st.recursive(
    st.one_of(
        st.builds(lambda x, y: binary(x, y, "({} > {})", strictly(lambda x, y: x > y)), NUMBER, NUMBER),
        NUMBER.map(lambda x: unary(x, "({} IS NULL)", lambda value: HARD if failed(value) else value is None)),
    ),
    lambda inner: st.one_of(
        st.builds(lambda x, y: binary(x, y, "({} AND {})", conjunction), inner, inner),
        inner.map(lambda x: unary(x, "(NOT {})", negation)),
    ),
    max_leaves=4,
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "a": st.one_of(st.none(), st.integers(-2, 2)),
            "b": st.one_of(st.none(), st.integers(-2, 2)),
            "t": st.one_of(st.none(), st.sampled_from(["1", "0", "-2", "x", ""])),
        }
    ),
    min_size=1,
    max_size=12,
)


def literal(value):
    return "NULL" if value is None else repr(value)


def expected(rules, row):
    found = [(name, rule.of(row)) for name, rule in rules.items()]
    names = [name if value is True else f"{name}{FAILED}" for name, value in found if value not in (None, False)]
    return ",".join(names) or None


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, conditions=st.lists(CONDITION, min_size=1, max_size=3))
def test_every_row_is_scored_or_rejected_by_the_rules_that_hit_it(services, rows, conditions):
    rules = {f"r{number}": condition for number, condition in enumerate(conditions)}
    table = "\n  UNION ALL ".join(
        f"SELECT {n} AS id, CAST({literal(row['a'])} AS INT64) AS a, CAST({literal(row['b'])} AS INT64) AS b, "
        f"CAST({literal(row['t'])} AS STRING) AS t"
        for n, row in enumerate(rows)
    )
    sql = rejected_by({name: rule.sql for name, rule in rules.items()})
    found = services.warehouse.query(f"SELECT id, {sql} AS rules FROM (\n  {table})", doing="testing").rows
    assert {row["id"]: row["rules"] for row in found} == {n: expected(rules, row) for n, row in enumerate(rows)}
    rejected = sum(row["rules"] is not None for row in found)
    scored = sum(row["rules"] is None for row in found)
    assert scored + rejected == len(found) == len(rows)
