"""`nightscore models`: the registry."""

import math
from pathlib import Path
from typing import Annotated

import typer

from nightscore.arguments import ArgumentError, parse_model
from nightscore.cli.console import out, print_json, table
from nightscore.objects import Json

app = typer.Typer(help="Models: register, list and show versions.", no_args_is_help=True)


@app.command("register")
def register(
    name: Annotated[str, typer.Argument(help="The model's name.")],
    file: Annotated[Path, typer.Argument(help="A fitted scikit-learn estimator, saved by skops.io.dump.")],
    sample: Annotated[Path, typer.Option(help="Parquet or CSV file of input rows; gives the signature.")],
    alias: Annotated[str | None, typer.Option(help="An alias to move to the new version, like champion.")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, as often as wanted.")] = None,
    description: Annotated[str, typer.Option(help="What this version is.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Store a file as the next version of a model, after auditing it and trying it on the sample."""
    from nightscore.cli.app import services

    metrics = dict(_parse_metric(item) for item in metric or [])
    version = services().registry.register(name, file, sample, alias=alias, metrics=metrics, description=description)
    if as_json:
        print_json({**version.manifest.model_dump(mode="json"), "digest": version.digest, "alias": alias})
        return
    manifest = version.manifest
    named = f", now {name}@{alias}" if alias else ""
    out.print(
        f"Registered {version.label}{named}: {manifest.estimator}, {manifest.task}, {len(manifest.inputs)} inputs, "
        f"digest {version.digest[:12]}.",
        markup=False,
    )


@app.command("list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
) -> None:
    """List the models with their versions and aliases."""
    from nightscore.cli.app import services

    registry = services().registry
    found: list[Json] = [
        {"name": name, "versions": registry.versions(name), "aliases": registry.aliases(name)}
        for name in registry.names()
    ]
    if as_json:
        print_json(found)
        return
    made = table("models", "name", "versions", "aliases")
    for item in found:
        aliases = ", ".join(f"{alias} → {version}" for alias, version in sorted(item["aliases"].items()))
        made.add_row(item["name"], ", ".join(map(str, item["versions"][-12:])), aliases)
    out.print(made if found else "No models yet. Register one with `nightscore models register`.")


@app.command("show")
def show_model(
    model: Annotated[str, typer.Argument(help="NAME, NAME@ALIAS or NAME@VERSION.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Show a version: its signature, metrics, files and libraries."""
    from nightscore.cli.app import services

    registry = services().registry
    reference = parse_model(model)
    if "@" not in model and "champion" not in registry.aliases(reference.name):
        known = registry.versions(reference.name)
        reference = reference.model_copy(update={"alias": None, "version": known[-1] if known else 1})
    version = registry.resolve(reference)
    manifest = version.manifest
    if as_json:
        print_json({**manifest.model_dump(mode="json"), "digest": version.digest})
        return
    lines = {
        "estimator": f"{manifest.estimator} ({manifest.format})",
        "task": manifest.task,
        "classes": ", ".join(manifest.classes),
        "digest": version.digest,
        "registered": f"{manifest.created_at} by {manifest.created_by}",
        "metrics": ", ".join(f"{name} {value:.6g}" for name, value in sorted(manifest.metrics.items())),
        "libraries": ", ".join(f"{name} {number}" for name, number in sorted(manifest.libraries.items())),
        "files": ", ".join(f"{name} ({file.size:,} bytes)" for name, file in sorted(manifest.files.items())),
        "description": manifest.description,
    }
    made = table(version.label, "", "")
    made.show_header = False
    for name, value in lines.items():
        if value:
            made.add_row(name, value)
    out.print(made)
    inputs = table("inputs", "name", "type", "may be NULL")
    for item in manifest.inputs:
        inputs.add_row(item.name, item.type, "yes" if item.nullable else "no")
    out.print(inputs)


def _parse_metric(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not name.strip() or not math.isfinite(number):
        raise ArgumentError(f"--metric: {text!r} is not NAME=NUMBER.")
    return name.strip(), number
