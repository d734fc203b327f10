"""`nightscore models`: the registry."""

import math
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nightscore.arguments import ArgumentError, parse_model
from nightscore.cli import aliases
from nightscore.cli.console import out, print_json, table
from nightscore.objects import Json
from nightscore.registry.examination import Facts

if TYPE_CHECKING:
    from nightscore.registry.card import Card

app = typer.Typer(
    help="Models: register, import, check and show versions; move, roll back and explain aliases.", no_args_is_help=True
)

for _command in (aliases.promote, aliases.rollback, aliases.history, aliases.compare, aliases.sign):
    app.command(_command.__name__)(_command)

File = Annotated[
    Path, typer.Argument(help="A fitted model: skops, ONNX, LightGBM's text or XGBoost's JSON; never a pickle.")
]
Sample = Annotated[Path, typer.Option(help="Parquet or CSV file of training rows; gives the signature.")]
Classes = Annotated[
    str | None, typer.Option(help="A classifier's labels, joined by commas, where the file does not hold them.")
]
FactsFile = Annotated[
    Path | None,
    typer.Option(
        "--facts", help="YAML file with metrics, description, owner, training_data, git_revision, classes, expected."
    ),
]
Expected = Annotated[
    str | None, typer.Option(help="The sample's column of the original's predictions, to compare with.")
]
Tolerance = Annotated[
    float | None, typer.Option(min=0, help="By how much a prediction may differ from the original's.")
]


@app.command("register")
def register(
    name: Annotated[str, typer.Argument(help="The model's name.")],
    file: File,
    sample: Sample,
    alias: Annotated[str | None, typer.Option(help="An alias to move to the new version, like challenger.")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, as often as wanted.")] = None,
    description: Annotated[str | None, typer.Option(help="What this version is.")] = None,
    owner: Annotated[str | None, typer.Option(help="The team that answers for it.")] = None,
    training_data: Annotated[
        str | None, typer.Option(help="What it was fitted on: a table and its partitions, a URI.")
    ] = None,
    git_revision: Annotated[
        str | None, typer.Option(help="The commit of the code that fitted it; by default the checkout's, if any.")
    ] = None,
    facts_file: FactsFile = None,
    classes: Classes = None,
    expected: Expected = None,
    tolerance: Tolerance = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Store a file as the next version of a model, after auditing it and trying it on the sample."""
    from nightscore.cli.app import services
    from nightscore.promotion import require_no_policy
    from nightscore.settings import pipelines_dir

    facts = _facts(
        facts_file,
        metrics=dict(_parse_metric(item) for item in metric or []),
        description=description,
        owner=owner,
        training_data=training_data,
        git_revision=git_revision,
        classes=_parse_classes(classes),
        expected=expected,
        tolerance=tolerance,
    )
    if not facts.git_revision:
        facts = replace(facts, git_revision=_checked_out())
    registry = services().registry
    if alias is not None:
        require_no_policy(registry, pipelines_dir(), name, alias)
    version = registry.register(name, file, sample, alias=alias, facts=facts)
    manifest = version.manifest
    if as_json:
        print_json({**manifest.model_dump(mode="json"), "digest": version.digest, "alias": alias})
        return
    named = f", now {name}@{alias}" if alias else ""
    out.print(
        f"Registered {version.label}{named}: {manifest.estimator}, {manifest.task}, {len(manifest.inputs)} inputs, "
        f"digest {version.digest[:12]}.",
        markup=False,
    )


@app.command("check")
def check_model(
    file: File,
    sample: Sample,
    facts_file: FactsFile = None,
    classes: Classes = None,
    expected: Expected = None,
    tolerance: Tolerance = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as one JSON object.")] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print it as Markdown, for a pull request's comment.")
    ] = False,
) -> None:
    """Do all that registering does with a file, and store nothing: audit, load, score the sample, compare, measure."""
    from nightscore.registry.card import examination_card
    from nightscore.registry.examination import examine

    facts = _facts(facts_file, classes=_parse_classes(classes), expected=expected, tolerance=tolerance)
    found = examine("checked", file, sample, facts)
    if as_json:
        left_out = {"name", "version", "created_at", "created_by", "metrics", "owner", "description"}
        content = found.manifest.model_dump(mode="json", exclude=left_out)
        print_json({"file": file.name, **content, "rows_per_second": round(found.rows_per_second)})
        return
    _print_card(examination_card(file.name, found), as_markdown=as_markdown)


@app.command("import")
def import_(
    model: Annotated[str, typer.Argument(help="mlflow:NAME@ALIAS, mlflow:NAME@VERSION, or the same of vertex:.")],
    name: Annotated[str | None, typer.Option(help="What it is called here, if not by its name there.")] = None,
    sample: Annotated[
        Path | None, typer.Option(help="Parquet or CSV file of input rows, instead of the model's input example.")
    ] = None,
    alias: Annotated[str | None, typer.Option(help="An alias of ours to move to the version, like champion.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Store a version of another registry as a version here. The same files again are the same version again."""
    from nightscore.cli.app import services
    from nightscore.promotion import require_no_policy
    from nightscore.registry.importing import import_model, local_name
    from nightscore.settings import pipelines_dir

    reference = parse_model(model)
    if reference.source is None:
        raise ArgumentError(f"{reference} is a model of this registry already; write mlflow:{reference} or vertex:…")
    registry = services().registry
    if alias is not None:
        require_no_policy(registry, pipelines_dir(), name or local_name(reference.name), alias)
    version = import_model(registry, reference, name=name, sample=sample, alias=alias)
    if as_json:
        print_json({**version.manifest.model_dump(mode="json"), "digest": version.digest, "alias": alias})
        return
    named = f", now {version.manifest.name}@{alias}" if alias else ""
    out.print(
        f"{version.manifest.source} is {version.label} here{named}: {version.manifest.estimator}, "
        f"{version.manifest.task}, {len(version.manifest.inputs)} inputs, digest {version.digest[:12]}.",
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
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the model card as Markdown.")] = False,
) -> None:
    """Show a version's model card: what it is, reads and predicts, who made it of what, and where it stands."""
    from nightscore.cli.app import services
    from nightscore.registry.card import card

    registry = services().registry
    reference = parse_model(model)
    if reference.source is not None:
        raise ArgumentError(f"`models show` shows what is here; `models import {reference}` says as what it is here.")
    if "@" not in model and "champion" not in registry.aliases(reference.name):
        known = registry.versions(reference.name)
        reference = reference.model_copy(update={"alias": None, "version": known[-1] if known else 1})
    version = registry.resolve(reference)
    if as_json:
        print_json({**version.manifest.model_dump(mode="json"), "digest": version.digest})
        return
    told = card(version, registry.reference(version), list(registry.iter_aliases(version.manifest.name)))
    _print_card(told, as_markdown=as_markdown)


@app.command("verify")
def verify_models(
    name: Annotated[str | None, typer.Argument(help="A model; by default all of them.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
) -> None:
    """Hash every file of every version again, and check where every alias points; exit with 1 if something is wrong."""
    from nightscore.cli.app import services
    from nightscore.registry.verification import verify

    found = list(verify(services().registry, name))
    faulty = [item for item in found if item.faults]
    if as_json:
        print_json([item.to_json() for item in found])
    else:
        made = table("versions", "version", "files", "bytes", "finding")
        for item in found:
            made.add_row(item.label, str(item.files), f"{item.size:,}", "\n".join(item.faults or item.notes or ("ok",)))
        out.print(made if found else "No models yet. Register one with `nightscore models register`.")
    if faulty:
        raise typer.Exit(1)


def _print_card(told: "Card", *, as_markdown: bool) -> None:
    from nightscore.registry.card import card_as_markdown

    if as_markdown:
        out.print(card_as_markdown(told), markup=False, highlight=False, soft_wrap=True)
        return
    for part in told.parts:
        made = table(part.title, *part.columns)
        made.show_header = any(part.columns)
        for row in part.rows:
            made.add_row(*row)
        out.print(made)


def _facts(file: Path | None, **given: Any) -> Facts:
    """Return what a file says of a version, and over it what the options say."""
    from nightscore.registry.examination import read_facts

    said = {name: value for name, value in given.items() if value}
    facts = read_facts(file) if file is not None else Facts()
    metrics = {**facts.metrics, **said.pop("metrics", {})}
    return replace(facts, **said, metrics=metrics)


def _parse_metric(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not name.strip() or not math.isfinite(number):
        raise ArgumentError(f"--metric: {text!r} is not NAME=NUMBER.")
    return name.strip(), number


def _parse_classes(text: str | None) -> tuple[str, ...]:
    labels = tuple(label.strip() for label in (text or "").split(",")) if text else ()
    if text is not None and (len(set(labels)) < max(len(labels), 2) or not all(labels)):
        raise ArgumentError(f"--classes {text!r} are not labels; write at least two, each once, like good,bad.")
    return labels


def _checked_out() -> str:
    """Return the commit that is checked out here, with `-dirty` where files were changed; empty outside a checkout."""
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip()
