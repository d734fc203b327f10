"""`nightscore pipelines`: the specs."""

from typing import Annotated

import typer
from rich.text import Text

from nightscore.cli.console import err, out, print_json, table

app = typer.Typer(help="Pipelines: list and check their specs.", no_args_is_help=True)


@app.command("list")
def list_pipelines(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
) -> None:
    """List the pipelines; a broken spec is listed with its fault."""
    from nightscore.settings import pipelines_dir
    from nightscore.specs import SpecError, iter_specs

    folder = pipelines_dir()
    found = [
        {"name": item.pipeline, "error": str(item)}
        if isinstance(item, SpecError)
        else {
            "name": item.name,
            "source": item.source,
            "model": str(item.model),
            "predictions": item.predictions.table,
            "schedule": str(item.schedule) if item.schedule else None,
            "owner": item.owner,
        }
        for item in iter_specs(folder)
    ]
    if as_json:
        print_json(found)
        return
    made = table(f"pipelines in {folder}", "name", "features", "model", "predictions", "schedule", "owner")
    for item in found:
        if "error" in item:
            made.add_row(item["name"], Text.from_markup("[red]broken[/]: see `nightscore pipelines check`"))
        else:
            cells = ("name", "source", "model", "predictions", "schedule", "owner")
            made.add_row(*(str(item[cell] or "by trigger") for cell in cells))
    out.print(made if found else f"There are no pipelines in {folder}.")


@app.command("check")
def check_pipelines(
    name: Annotated[str | None, typer.Argument(help="One pipeline; by default all of them.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Check only the files; contact no server.")] = False,
) -> None:
    """Check specs against the warehouse, the model's signature and Great Expectations, without running anything."""
    from nightscore.check import check_challengers, check_pipeline
    from nightscore.cli.app import services
    from nightscore.settings import pipelines_dir
    from nightscore.specs import SpecError, iter_specs, load_spec, shared_tables

    folder = pipelines_dir()
    every = list(iter_specs(folder))
    shared = shared_tables(item for item in every if not isinstance(item, SpecError))
    items = [load_spec(name, folder)] if name else every
    broken = 0
    for item in items:
        warnings: list[str] = []
        if isinstance(item, SpecError):
            faults, label = [str(item)], item.pipeline
        else:
            faults, label = ([] if offline else check_pipeline(item, services())), item.name
            warnings = [] if offline else check_challengers(item, services())
            faults.extend([shared[label]] if label in shared else [])
        broken += bool(faults)
        out.print(f"[red]✗[/] {label}" if faults else f"[green]✓[/] {label}")
        for fault in faults:
            err.print(fault, markup=False, soft_wrap=True)
        for warning in warnings:
            err.print(warning, style="yellow", markup=False, soft_wrap=True)
    if not items:
        err.print(f"There are no pipelines in {folder}.")
    raise typer.Exit(2 if broken or not items else 0)


@app.command("schema")
def print_schema() -> None:
    """Print the JSON Schema of pipeline.yaml, for editors."""
    from nightscore.specs import json_schema

    print_json(json_schema())
