"""Random tables and random rules: scored and rejected rows are told apart as three-valued logic tells them."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nightscore.row_rules import FAILED, rejected_by


class Outcome(NamedTuple):
    """What a piece of a rule is for a row.

    Attributes:
        value: a number, True, False, or None for NULL, which also stands for what failed.
        failed: whether a part of it failed.
        hidden: whether one did whose NULL became something else.
    """

    value: Any
    failed: bool = False
    hidden: bool = False


@dataclass(frozen=True)
class Term:
    """A piece of GoogleSQL, and its outcome for a row."""

    sql: str
    of: Any

    def __repr__(self) -> str:
        return self.sql


def applied(pattern, operation, *terms):
    """An operator over terms: `operation` takes their values, and returns a value, or FAILS."""

    def of(row):
        found = [term.of(row) for term in terms]
        value = operation(*(item.value for item in found))
        failed = value is FAILS or any(item.failed for item in found)
        return Outcome(None if value is FAILS else value, failed, any(item.hidden for item in found))

    return Term(pattern.format(*(term.sql for term in terms)), of)


def hiding(pattern, operation, *terms):
    """An operator behind which the NULL of a failure may come out as something."""
    inner = applied(pattern, operation, *terms)

    def of(row):
        found = inner.of(row)
        return Outcome(found.value, found.failed, found.failed or found.hidden)

    return Term(inner.sql, of)


FAILS = object()


def strictly(operation):
    return lambda *values: None if None in values else operation(*values)


def divided(x, y):
    return FAILS if y == 0 else x / y


def cast(text):
    return int(text) if text.removeprefix("-").isdecimal() else FAILS


def conjunction(x, y):
    return False if x is False or y is False else None if None in (x, y) else True


COLUMN = st.sampled_from([Term("a", lambda row: Outcome(row["a"])), Term("b", lambda row: Outcome(row["b"]))])
TEXT = Term("t", lambda row: Outcome(row["t"]))
NUMBER = st.recursive(
    st.one_of(
        COLUMN,
        st.integers(-2, 2).map(lambda n: Term(f"{n}", lambda row: Outcome(n))),
        st.just(applied("CAST({} AS INT64)", strictly(cast), TEXT)),
    ),
    lambda inner: st.one_of(
        st.builds(lambda x, y: applied("({} / {})", strictly(divided), x, y), inner, inner),
        st.builds(lambda x, y: hiding("COALESCE({}, {})", lambda v, w: w if v is None else v, x, y), inner, COLUMN),
    ),
    max_leaves=4,
)
CONDITION = st.recursive(
    st.one_of(
        st.builds(lambda x, y: applied("({} > {})", strictly(lambda v, w: v > w), x, y), NUMBER, NUMBER),
        NUMBER.map(lambda x: hiding("({} IS NULL)", lambda v: v is None, x)),
    ),
    lambda inner: st.one_of(
        st.builds(lambda x, y: applied("({} AND {})", conjunction, x, y), inner, inner),
        inner.map(lambda x: applied("(NOT {})", strictly(lambda v: not v), x)),
        inner.map(lambda x: hiding("IF({}, TRUE, FALSE)", lambda v: v is True, x)),
        inner.map(lambda x: hiding("(CASE WHEN {} THEN TRUE END)", lambda v: v or None, x)),
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
    names = []
    for name, rule in rules.items():
        found = rule.of(row)
        if found.hidden or (found.value is None and found.failed):
            names.append(f"{name}{FAILED}")
        elif found.value:
            names.append(name)
    return ",".join(names) or None


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
