"""`nightscore rollback`: publish an earlier run's predictions again."""

from typing import Annotated

import typer

from nightscore.arguments import parse_partition
from nightscore.cli.console import out, print_json, watching


def rollback(
    pipeline: Annotated[str, typer.Argument(help="The pipeline's name.")],
    partition: Annotated[str, typer.Option(help="Scoring date, like 2026-11-19.")],
    to: Annotated[
        str | None,
        typer.Option(help="The run to go back to, or its beginning; by default the one live before."),
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why; kept with the publication.")] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for a run that works on the partition.")] = 0,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Do not wait for it: whatever it still does, it can publish no more.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the publication as one JSON object.")] = False,
) -> None:
    """Publish the kept predictions of an earlier run again, in one statement. Nothing is scored again."""
    from nightscore.cli.app import services
    from nightscore.rollback import roll_back

    day = parse_partition(partition)
    with watching() as progress:
        found = roll_back(
            services(), pipeline, day, to=to, reason=reason, progress=progress, wait=wait, take_over=take_over
        )
    if as_json:
        print_json(found)
        return
    out.print(
        f"{pipeline} {found['partition']}: rolled back to {found['run_id']} (model {found['model_version']}), "
        f"{found['rows']:,} rows in {found['table']}; replaced {found['replaced_rows']:,} rows of "
        f"{found['replaced_run'] or 'no run'}.",
        soft_wrap=True,
    )
