"""What both gates share: the record of a verdict, and the error that stops a run."""

from collections.abc import Sequence

from nightscore.errors import GateRefusedError
from nightscore.gates.expectations import Verdict
from nightscore.objects import Json

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


def gate_record(rows: int, verdicts: Sequence[Verdict], faults: Sequence[str] = (), **figures: object) -> Json:
    """Return a gate's record: `verdict` is `pass`, `warn` or `stop`.

    Args:
        rows: how many rows were judged.
        verdicts: what the expectations found.
        faults: what else refuses the rows, a sentence each.
        figures: further figures of the record.
    """
    failed = [item for item in verdicts if not item.passed]
    stops = [*faults, *(item.sentence() for item in failed if item.severity == "critical")]
    warnings = [item.sentence() for item in failed if item.severity != "critical"]
    return {
        "verdict": "stop" if stops else "warn" if warnings else "pass",
        "rows": rows,
        "stopped_by": stops,
        "warnings": warnings,
        "checks": [item.to_json() for item in verdicts],
        **figures,
    }
