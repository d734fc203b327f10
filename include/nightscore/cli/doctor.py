"""`nightscore doctor`: what is wrong with a deployment, seen from where it runs."""

from typing import Annotated

import typer
from rich.text import Text

from nightscore.cli.console import out, print_json, table
from nightscore.doctor.finding import Status, exit_code, worst

MARKS: dict[Status, tuple[str, str]] = {
    "ok": ("✓", "green"),
    "warning": ("!", "yellow"),
    "fault": ("✗", "bold red"),
    "unreachable": ("?", "bold red"),
    "not checked": ("-", "dim"),
}


def doctor(
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Only this family of checks; may be given several times.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 2 for warnings, too.")] = False,
    read_only: Annotated[
        bool,
        typer.Option("--read-only", help="Create nothing, not even a staging table that is removed again."),
    ] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", min=1, max=3600, help="Seconds within which each family of checks must end.")
    ] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Examine this deployment from where it runs, and say what to fix.

    Families: settings, versions, local servers, reach (services, latency, clocks), permissions (by testIamPermissions),
    datasets, operations tables, bucket, pipelines, airflow. On Google Cloud, permissions on the staging dataset are
    tested on an empty table that is made for it and removed.

    Exit codes: 0 no fault; 2 a fault, with --strict also a warning; 3 a server did not answer.

    The JSON object: status (the worst), exit_code, counts (status: how many) and checks, a list of family, check,
    status (ok, warning, fault, unreachable, not checked), found, fix (null where there is nothing to do), seconds.
    """
    import os
    from collections import Counter

    from nightscore.doctor.deployment import Deployment
    from nightscore.doctor.examination import NAMES, examine
    from nightscore.errors import near_miss
    from nightscore.settings import pipelines_dir, project_root

    for name in only or ():
        if name not in NAMES:
            raise typer.BadParameter(f"There is no family {name!r}. {near_miss(name, NAMES)}", param_hint="--only")
    deployment = Deployment(dict(os.environ), project_root(), pipelines_dir(), not read_only, timeout)
    found = list(examine(deployment, only or NAMES))
    code = exit_code(found, strict=strict)
    counts = Counter(item.finding.status for item in found)
    if as_json:
        print_json(
            {
                "status": worst(found),
                "exit_code": code,
                "counts": {status: counts[status] for status in MARKS},
                "checks": [item.to_json() for item in found],
            }
        )
        raise typer.Exit(code)
    made, family = table("", "", "family", "check", "found"), ""
    for item in found:
        mark, style = MARKS[item.finding.status]
        text = Text(
            item.finding.found if item.finding.status != "not checked" else f"not checked: {item.finding.found}"
        )
        if item.finding.fix:
            text.append(f"\n→ {item.finding.fix}", style="cyan")
        made.add_row(Text(mark, style), item.family if item.family != family else "", item.finding.check, text)
        family = item.family
    out.print(made)
    out.print(", ".join(f"{counts[status]} {status}" for status in MARKS if counts[status]))
    raise typer.Exit(code)
