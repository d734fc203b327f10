"""`nightscore plan`: what a run would do, without running it."""

from typing import Annotated

import typer

from nightscore.arguments import parse_model, parse_partition
from nightscore.cli.console import out, print_json


def plan(
    pipeline: Annotated[str, typer.Argument(help="The pipeline's name: a folder of dags/pipelines.")],
    partition: Annotated[str, typer.Option(help="Scoring date, like 2026-11-19.")],
    model: Annotated[
        str | None, typer.Option(help="NAME@ALIAS, NAME@VERSION or mlflow:NAME@ALIAS instead of the spec's model.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as one JSON object.")] = False,
) -> None:
    """Show what a run would do and cost, and whether it may begin. Nothing is run and nothing is written.

    A model of another registry that was not imported before is imported, as by `nightscore models import`.

    Exit codes: 0 ready; 1 blocked, all reasons lie in the data (a limit, an empty partition); 2 blocked, a reason lies
    in the spec, the model or a table, or the spec cannot be read; 3 a server failed, and there is no verdict.
    """
    from nightscore.assessment import assess
    from nightscore.cli.app import services
    from nightscore.gates.expectations import expectation_faults
    from nightscore.preview import preview
    from nightscore.preview_text import preview_lines
    from nightscore.settings import settings
    from nightscore.specs import load_spec

    day = parse_partition(partition)
    reference = None if model is None else parse_model(model)
    spec = load_spec(pipeline, settings().pipelines_dir)
    used = services()
    found = assess(spec, day, used.warehouse, used.registry, model=reference)
    shown = preview(found.with_reasons(expectation_faults(spec)), used)
    if as_json:
        print_json(shown)
    else:
        for text, style in preview_lines(shown):
            out.print(text, style=style, markup=False, soft_wrap=True)
    raise typer.Exit(shown["exit_code"])
