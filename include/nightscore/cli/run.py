"""`nightscore run`: one partition from plan to record, in this process."""

from typing import Annotated

import typer

from nightscore.arguments import parse_model, parse_partition
from nightscore.cli.console import out, print_json, watching
from nightscore.cli.report import print_run

STATUS_CODES = {"published": 0, "dry_run": 0, "refused": 1}


def run(
    pipeline: Annotated[str, typer.Argument(help="The pipeline's name: a folder of dags/pipelines.")],
    partition: Annotated[str, typer.Option(help="Scoring date, like 2026-11-19.")],
    model: Annotated[
        str | None, typer.Option(help="NAME@ALIAS, NAME@VERSION or mlflow:NAME@ALIAS instead of the spec's model.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Freeze, check and score, but publish nothing.")] = False,
    accept_warnings: Annotated[
        bool, typer.Option("--accept-warnings", help="Publish with warnings, where the spec says `warnings: hold`.")
    ] = False,
    override: Annotated[
        list[str] | None,
        typer.Option(help="CHECK or CHECK:COLUMN that shall not stop this run; needs --reason. Once for each check."),
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why it is run by hand; kept in the run's records.")] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for another run of the same partition.")] = 0,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Do not wait for it: whatever it still does, it can publish no more.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
) -> None:
    """Score one partition and publish it. An unfinished run of the same plan is taken up where it stopped."""
    from nightscore.cli.app import services
    from nightscore.pipeline import run_pipeline, start
    from nightscore.run_events import unplanned
    from nightscore.settings import settings
    from nightscore.specs import load_spec
    from nightscore.waiting import wait_for_data

    day = parse_partition(partition)
    reference = None if model is None else parse_model(model)
    spec = load_spec(pipeline, settings().pipelines_dir)
    with watching() as progress:
        with unplanned(services(), pipeline, day, "wait"):
            wait_for_data(spec, day, services().warehouse, progress)
        with unplanned(services(), pipeline, day, "plan"):
            planned = start(
                spec,
                day,
                services(),
                model=reference,
                dry_run=dry_run,
                overrides=override or (),
                accept_warnings=accept_warnings,
                reason=reason,
                progress=progress,
                wait=wait,
                take_over=take_over,
            )
        summary = run_pipeline(planned)
    if as_json:
        print_json(summary)
    else:
        print_run(out, summary)
    raise typer.Exit(STATUS_CODES[summary["status"]])
