"""What an examination found: one sentence of what there is, and one of what to do."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["ok", "not checked", "warning", "fault", "unreachable"]
ORDER: tuple[Status, ...] = ("ok", "not checked", "warning", "fault", "unreachable")
FAULTS, UNREACHABLE = 2, 3


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        check: what was looked at.
        status: `not checked` says why in `found`; `unreachable` means that a server did not answer.
        found: what there is.
        fix: what to do: a command, a statement, a variable. None where there is nothing to do.
    """

    check: str
    status: Status
    found: str
    fix: str | None = None


@dataclass(frozen=True)
class Examined:
    """A finding, the family of checks that it belongs to, and the seconds after which it was there."""

    family: str
    finding: Finding
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return it as one flat object."""
        return {"family": self.family, **asdict(self.finding), "seconds": round(self.seconds, 2)}


def ok(check: str, found: str) -> Finding:
    """Return that all is well."""
    return Finding(check, "ok", found)


def warning(check: str, found: str, fix: str) -> Finding:
    """Return what should be changed, though nights go on."""
    return Finding(check, "warning", found, fix)


def fault(check: str, found: str, fix: str) -> Finding:
    """Return what makes a night fail, or what it must not run without."""
    return Finding(check, "fault", found, fix)


def not_checked(check: str, why: str, fix: str | None = None) -> Finding:
    """Return that something was not looked at."""
    return Finding(check, "not checked", why, fix)


def unreachable(check: str, found: str, fix: str) -> Finding:
    """Return that a server did not answer."""
    return Finding(check, "unreachable", found, fix)


def worst(found: Sequence[Examined]) -> Status:
    """Return the worst status of all.

    >>> worst([Examined("a", ok("x", ""), 0), Examined("a", warning("y", "", ""), 0)])
    'warning'
    """
    return max((item.finding.status for item in found), key=ORDER.index, default="ok")


def exit_code(found: Sequence[Examined], *, strict: bool) -> int:
    """Return the exit code: 3 when a server did not answer, 2 for a fault, when `strict` for a warning too, else 0."""
    status = worst(found)
    if status == "unreachable":
        return UNREACHABLE
    return FAULTS if status == "fault" or (strict and status == "warning") else 0
