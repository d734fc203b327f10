"""Row rules as GoogleSQL: what a rule says of a row, also where evaluating it fails on that row.

BigQuery has no way to catch an error within an expression, and one division by zero would end the whole night. So the
parts of a rule that can fail are replaced by parts that give NULL instead: `a / b` by `a / NULLIF(b, 0)`, a CAST by a
SAFE_CAST, `LN(x)` by `SAFE.LN(x)`. A rule that is NULL on a row on which such a part has failed has failed itself.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlglot import exp

FAILED = ":error"  # behind a rule's name in `_rejected_by`: the rule could not be evaluated on that row
DIALECT = "bigquery"
DIVISIONS = ("Div", "IntDiv", "Mod")
FUNCTIONS = ("Ln", "Log", "Sqrt", "Pow", "StrToDate", "StrToTime", "ParseDatetime", "ParseTime")
CONDITIONAL = ("Case", "If")
# What gives NULL where an operand is NULL, or, as AND, what three-valued logic says of it. Behind anything else, a NULL
# that stands for a failure may come out as something.
STRICT = frozenset(
    (
        "Paren",
        "And",
        "Or",
        "Not",
        "EQ",
        "NEQ",
        "GT",
        "GTE",
        "LT",
        "LTE",
        "Between",
        "In",
        "Like",
        "Add",
        "Sub",
        "Mul",
        "Neg",
        "Abs",
        "Round",
        "Floor",
        "Ceil",
        "Lower",
        "Upper",
        "Length",
        "Trim",
        "Cast",
        "TryCast",
        "SafeFunc",
        "Nullif",
        "SafeDivide",
    )
).union(DIVISIONS, FUNCTIONS)


def rejected_by(rules: Mapping[str, str]) -> str:
    """Return GoogleSQL for the names of the rules (name → condition) that reject a row, joined by commas.

    NULL when none does. A rule that failed on the row stands there as `name:error`.

    >>> rejected_by({})
    'CAST(NULL AS STRING)'
    """
    if not rules:
        return "CAST(NULL AS STRING)"
    hits = ", ".join(_hit(name, condition) for name, condition in rules.items())
    return f"NULLIF(RTRIM(CONCAT({hits}), ','), '')"


def _hit(name: str, condition: str) -> str:
    guarded = guard(condition)
    if guarded is None:
        # The line break ends a comment that a rule may close with.
        return f"IF((\n{condition}\n), '{name},', '')"
    safe, failed = guarded
    return f"CASE WHEN {failed} THEN '{name}{FAILED},' WHEN {safe} THEN '{name},' ELSE '' END"


def columns_of(conditions: Iterable[str]) -> list[str]:
    """Return the lower-case names of the columns that conditions look at, as far as sqlglot can tell.

    >>> columns_of(["Age < 18", "limit_bal / age > 2"])
    ['age', 'limit_bal']
    """
    from sqlglot import exp, parse_one
    from sqlglot.errors import SqlglotError

    found: dict[str, None] = {}
    for condition in conditions:
        try:
            tree = parse_one(condition, dialect=DIALECT)
        except SqlglotError:
            continue
        found |= dict.fromkeys(sorted(column.name.lower() for column in tree.find_all(exp.Column)))
    return list(found)


def guard(condition: str) -> tuple[str, str] | None:
    """Return a condition that never fails, and GoogleSQL that is true for the rows on which `condition` would fail.

    None where nothing in it is known to fail, and where a failure cannot be told from outside: in a subquery, or in a
    branch of CASE, which is not evaluated for every row. Such a rule is left as it is.

    >>> guard("a / b > 2")
    ('(a / NULLIF(b, 0) > 2)', '(a / NULLIF(b, 0) > 2) IS NULL AND (((b) = 0 AND (a) IS NOT NULL))')
    >>> guard("age NOT BETWEEN 18 AND 110") is None
    True
    """
    from sqlglot import exp, parse_one
    from sqlglot.errors import SqlglotError

    try:
        tree = parse_one(condition, dialect=DIALECT)
    except SqlglotError:  # whether it is GoogleSQL is BigQuery's to say
        return None
    if tree.find(exp.Query, exp.Lambda) is not None:
        return None
    root = exp.Paren(this=tree)
    found: list[tuple[str, bool]] = []
    for node in reversed([node for node in root.walk(bfs=False) if _can_fail(node)]):
        above = list(_ancestors(node))
        if not all(_is_always_evaluated(node, parent) for parent in above if type(parent).__name__ in CONDITIONAL):
            return None
        # From the inside out: whether a part has failed is told by arguments that cannot fail any more.
        found.append((_make_safe(node), not STRICT.issuperset(type(parent).__name__ for parent in above)))
    if not found:
        return None
    safe = root.sql(DIALECT)
    failed = [text for text, is_hidden in found if is_hidden]
    if seen := [text for text, is_hidden in found if not is_hidden]:
        failed.append(f"{safe} IS NULL AND ({' OR '.join(seen)})")
    return safe, " OR ".join(failed)


def _can_fail(node: "exp.Expr") -> bool:
    name = type(node).__name__
    if name == "Cast":
        return not node.args["to"].is_type("text")
    if name in DIVISIONS:
        return not (node.expression.is_number and node.expression.to_py() != 0)
    return name in FUNCTIONS and type(node.parent).__name__ != "SafeFunc"


def _ancestors(node: "exp.Expr") -> Iterator["exp.Expr"]:
    while node.parent is not None:
        node = node.parent
        yield node


def _is_always_evaluated(node: "exp.Expr", conditional: "exp.Expr") -> bool:
    """Return whether an IF or CASE evaluates a part of it for every row: in its first condition, and nowhere else."""
    first = conditional.args["ifs"][0] if type(conditional).__name__ == "Case" else conditional
    return node is first.this or any(parent is first.this for parent in _ancestors(node))


def _make_safe(node: "exp.Expr") -> str:
    """Put what gives NULL instead of failing into a node's place, and return GoogleSQL that is true where it fails."""
    from sqlglot import exp

    if type(node).__name__ in DIVISIONS:
        divisor = node.expression.unnest()
        node.set("expression", exp.Nullif(this=divisor.copy(), expression=exp.Literal.number(0)))
        zero = f"({divisor.sql(DIALECT)}) = 0"
        return f"({zero} AND ({node.this.sql(DIALECT)}) IS NOT NULL)"
    if isinstance(node, exp.Cast):
        arguments = [node.this]
        safe: exp.Expr = exp.TryCast(**node.args)
    else:
        arguments = [part for part in node.args.values() if isinstance(part, exp.Expr) and part.find(exp.Column)]
        safe = exp.SafeFunc(this=node.copy())
    there = [f"({argument.sql(DIALECT)}) IS NOT NULL" for argument in arguments]
    node.replace(safe)
    return f"({' AND '.join([*there, f'{safe.sql(DIALECT)} IS NULL'])})"
