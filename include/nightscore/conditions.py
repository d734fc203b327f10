"""What a night can wait for: the text of a condition, and what it says."""

import datetime as dt
import difflib
import re
from dataclasses import dataclass

from nightscore.errors import shorten
from nightscore.names import TABLE

LONGEST_WHERE = 10_000
FORMS = ("rows >= N", "partition modified after HH:MM", "TABLE has row")
EXAMPLES = "`rows >= 1000000`, `partition modified after 01:00` or `ops.loads_done has row`"

_ROWS = re.compile(r"rows\s*>=\s*([0-9]{1,15})")
_MODIFIED = re.compile(r"partition modified after ([01][0-9]|2[0-3]):([0-5][0-9])")
_MARKER = re.compile(rf"({TABLE}) has row(?: where\s+(.+))?", re.DOTALL)


@dataclass(frozen=True)
class RowCount:
    """The partition has at least so many rows."""

    least: int

    def __str__(self) -> str:
        return f"rows >= {self.least}"


@dataclass(frozen=True)
class Modified:
    """The partition was changed at this local time of the run's day, or later."""

    at: dt.time

    def __str__(self) -> str:
        return f"partition modified after {self.at:%H:%M}"


@dataclass(frozen=True)
class Marker:
    """A table has a row for the partition.

    Attributes:
        table: `dataset.table` or `project.dataset.table`.
        where: a GoogleSQL condition on the row; one that uses `@partition` says itself which rows are the partition's.
    """

    table: str
    where: str | None = None

    def __str__(self) -> str:
        return f"{self.table} has row" + (f" where {self.where}" if self.where else "")


Condition = RowCount | Modified | Marker


def parse_condition(text: str) -> Condition:
    """Return what a condition says.

    Raises:
        ValueError: it is none of the three forms.

    >>> parse_condition("rows >= 1000000")
    RowCount(least=1000000)
    >>> parse_condition("partition modified after 01:00")
    Modified(at=datetime.time(1, 0))
    >>> parse_condition("ops.loads_done has row where status = 'ok'")
    Marker(table='ops.loads_done', where="status = 'ok'")
    """
    text = text.strip()
    if found := _ROWS.fullmatch(text):
        if int(found[1]) == 0:
            raise ValueError("`rows >= 0` always holds; wait for at least 1 row")
        return RowCount(int(found[1]))
    if found := _MODIFIED.fullmatch(text):
        return Modified(dt.time(int(found[1]), int(found[2])))
    if (found := _MARKER.fullmatch(text)) and len(found[2] or "") <= LONGEST_WHERE:
        return Marker(found[1], found[2])
    near = difflib.get_close_matches(_outline(text), FORMS, n=1, cutoff=0.6)
    hint = f" Did you mean `{near[0]}`?" if near else ""
    raise ValueError(f"{shorten(text)!r} is not a condition.{hint} Write {EXAMPLES}, which may go on with `where …`")


def _outline(text: str) -> str:
    """Return a text with the words that a form has in place of its values.

    >>> _outline("ops.loads_done has rows"), _outline("row > 1_000"), _outline("partition modified since 1:00")
    ('TABLE has rows', 'row > N', 'partition modified since HH:MM')
    """
    words = re.split(r"\s+where\s", text[:200])[0]
    words = re.sub(r"\b[0-9]+:[0-9]+\b", "HH:MM", words)
    words = re.sub(r"\S*[A-Za-z]\S*\.\S+|^\S+(?= has\b)", "TABLE", words)
    return re.sub(r"\b[0-9][0-9_,.]*", "N", words)
