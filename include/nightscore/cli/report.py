"""How a run looks to people: a summary, the distribution of its scores, the checks that failed."""

from typing import Any

from rich.console import Console

from nightscore.cli.console import STAGE_NAMES, agreement, table
from nightscore.ledger import check_name
from nightscore.objects import Json

WIDTH = 32


def print_run(console: Console, summary: Json) -> None:
    """Print a run's summary."""
    found = summary.get("stage_seconds") or {}  # a stored record's keys are sorted
    # Shards scored by tasks of their own took their time there; the stage then only adds up, and its time says nothing.
    shown = {stage: name for stage, name in STAGE_NAMES.items() if stage != "score"}
    seconds = {name: found[stage] for stage, name in shown.items() if stage in found}
    lines = {
        "run": summary["run_id"],
        "status": summary["status"],
        "partition": summary["partition"],
        "model": f"{summary['model_version']} ({summary['requested_model']})",
        "rows": _rows(summary),
        "challengers": _challengers(summary),
        "table": summary["table"],
        "time": f"{summary['seconds']:.1f} s: " + ", ".join(f"{name} {value:.1f}" for name, value in seconds.items()),
        "records": summary["records"],
    }
    if summary.get("scoring_seconds"):
        rate = (summary["rows_scored"] or 0) / summary["scoring_seconds"]
        lines["time"] += f", scoring {summary['scoring_seconds']:.1f} ({rate:,.0f} rows/s)"
    made = table(f"{summary['pipeline']} {summary['partition']}: {summary['status']}", "", "")
    made.show_header = False
    for name, value in lines.items():
        if value:
            made.add_row(name, str(value))
    console.print(made)
    for line in summary.get("stopped_by") or []:
        console.print(f"refused: {line}", style="red", markup=False)
    for line in summary.get("warnings") or []:
        console.print(f"warning: {line}", style="yellow", markup=False)
    for item in summary.get("overridden") or []:
        console.print(f"overridden: {item['check']}, by {item['by']}: {item['reason']}", style="yellow", markup=False)
    for label, why in (summary.get("challengers_left_out") or {}).items():
        console.print(f"challenger {label} was left out: {why}", style="yellow", markup=False)
    for label, found in (summary.get("evidence") or {}).items():
        console.print(f"challenger {label}: {agreement(found)}", markup=False)
    for item in summary.get("resumed") or []:
        found = ", ".join(item["stages"]) or "nothing"
        console.print(
            f"taken up at {item['at'][:19].replace('T', ' ')} by {item['by']}: {found} and {item['shards']} shard(s) "
            "were done",
            markup=False,
        )
    print_figures(console, summary.get("task"), summary.get("figures"))


def print_gate(console: Console, gate: str, content: Json) -> None:
    """Print a gate's verdict, its checks, and keys of rows that fail."""
    made = table(f"{gate.replace('_', ' ')}: {content['verdict']}", "check", "on", "", "wanted", "seen", "failing#")
    for check in content["checks"]:
        mark = "ok" if check["passed"] else check["severity"].upper()
        mark = "overridden" if check.get("overridden") else mark
        failing = f"{check['failing_rows']:,}" if check["failing_rows"] is not None else ""
        made.add_row(check["expectation"], check["column"], mark, check["wanted"], check["observed"], failing)
    console.print(made)
    for check in content["checks"]:
        if check.get("failing_keys"):
            rows = ", ".join(" ".join(f"{key}={value}" for key, value in row.items()) for row in check["failing_keys"])
            console.print(f"{check_name(check)}: for example {rows}", markup=False)
    if "queries" in content:
        console.print(f"{content['queries']} queries, {content['bytes_processed']:,} bytes", style="dim", markup=False)


def print_figures(console: Console, task: str | None, figures: dict[str, Any] | None) -> None:
    """Print the distribution of what was predicted as a small table with bars."""
    if not figures or not figures.get("rows"):
        return
    rows = figures["rows"]
    if task == "multiclass":
        made = table("predictions", "class", "rows#", "share#", "")
        for label, count in sorted(figures["labels"].items(), key=lambda item: -item[1]):
            made.add_row(label, f"{count:,}", f"{count / rows:.1%}", _bar(count, max(figures["labels"].values())))
        console.print(made)
        return
    values = f"mean {figures['sum'] / rows:.4g}, least {figures['min']:.4g}, greatest {figures['max']:.4g}"
    if task == "binary":
        # Pairs of the stored twenty bins: ten lines are enough to see a shift.
        bins = [a + b for a, b in zip(figures["histogram"][::2], figures["histogram"][1::2], strict=True)]
        made = table("score distribution", "score", "rows#", "share#", "")
        for index, count in enumerate(bins):
            made.add_row(
                f"{index / 10:.1f} to {(index + 1) / 10:.1f}",
                f"{count:,}",
                f"{count / rows:.1%}",
                _bar(count, max(bins)),
            )
        console.print(made)
        if "flagged" in figures:
            values += f", {figures['flagged']:,} at or above the threshold"
    console.print(values)


def _bar(count: int, most: int) -> str:
    return "█" * max(1 if count else 0, round(WIDTH * count / max(most, 1)))


def _challengers(summary: Json) -> str:
    return ", ".join(f"{label} {rows:,} rows" for label, rows in (summary.get("challengers") or {}).items())


def _rows(summary: Json) -> str:
    parts = [
        f"{summary[key]:,} {word}"
        for key, word in (
            ("rows_frozen", "frozen"),
            ("rows_rejected", "rejected"),
            ("rows_scored", "scored"),
            ("rows_published", "published"),
            ("rows_replaced", "replaced"),
        )
        if summary.get(key) is not None
    ]
    return ", ".join(parts)
