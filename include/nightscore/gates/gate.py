"""What both gates share: the record of a verdict, what may be overridden, and the error that stops a run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nightscore.errors import GateRefusedError, counted
from nightscore.gates.expectations import Verdict
from nightscore.objects import Json
from nightscore.run import Run

MOST_SHOWN = 8


class GateStoppedError(GateRefusedError):
    """A gate refused, or a publication was taken back; the message lists why and its record holds everything."""

    def __init__(self, pipeline: str, gate: str, record: Json, uri: str) -> None:
        failed = [str(item) for item in record["stopped_by"]]
        shown = "\n".join(f"  - {line}" for line in failed[:MOST_SHOWN])
        more = f"\n  … and {len(failed) - MOST_SHOWN} more" if len(failed) > MOST_SHOWN else ""
        rows = f"{record['rows']:,} rows"
        what = (
            f"{rows} were published and taken back again."
            if "put_back" in record
            else f"the {gate.replace('_', ' ')} refused {rows}; nothing was published."
        )
        super().__init__(f"{pipeline}: {what}\n{shown}{more}\nThe whole report: {uri}{gate}.json")
        self.record = record


@dataclass(frozen=True)
class Leave:
    """What whoever started the run answers for.

    Attributes:
        overrides: names of checks that shall not stop it, `expectation` or `expectation:column`.
        holds_warnings: whether a warning holds the run.
        by: who started it.
        reason: why.
    """

    overrides: frozenset[str] = frozenset()
    holds_warnings: bool = False
    by: str | None = None
    reason: str | None = None

    @classmethod
    def of(cls, run: Run) -> "Leave":
        """Return what the run's plan says."""
        plan = run.plan
        holds = run.spec.checks.warnings == "hold" and not plan.accept_warnings
        return cls(frozenset(plan.overrides), holds, plan.planned_by, plan.reason)

    def covers(self, verdict: Verdict) -> bool:
        """Return whether a failed check shall not stop the run; one that is always on stops it in any case."""
        names = {verdict.expectation, f"{verdict.expectation}:{verdict.column}"}
        return not verdict.passed and not verdict.built_in and not names.isdisjoint(self.overrides)


def gate_record(
    rows: int, verdicts: Sequence[Verdict], faults: Sequence[str] = (), *, leave: Leave | None = None, **figures: object
) -> Json:
    """Return a gate's record: `verdict` is `pass`, `warn` or `stop`.

    Args:
        rows: how many rows were judged.
        verdicts: what the checks found.
        faults: what else refuses the rows, a sentence each.
        leave: what whoever started the run answers for.
        figures: further figures of the record.
    """
    given = leave or Leave()
    judged = [replace(item, overridden=given.covers(item)) for item in verdicts]
    failed = [item for item in judged if not item.passed and not item.overridden]
    stops = [*faults, *(item.sentence() for item in failed if item.severity == "critical")]
    warnings = [item.sentence() for item in failed if item.severity != "critical"]
    if warnings and not stops and given.holds_warnings:
        stops = [f"held because of {counted(len(warnings), 'warning')}; look, and run again with --accept-warnings"]
    overridden = [item.sentence() for item in judged if item.overridden]
    return {
        "verdict": "stop" if stops else "warn" if warnings or overridden else "pass",
        "rows": rows,
        "stopped_by": stops,
        "warnings": warnings,
        **({"overridden": overridden, "by": given.by, "reason": given.reason} if overridden else {}),
        "checks": [item.to_json() for item in judged],
        **figures,
    }
