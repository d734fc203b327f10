"""`nightscore models promote|rollback|history|compare|sign`: where aliases point, why, and who vouches for versions."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nightscore.arguments import ArgumentError, parse_model
from nightscore.cli.console import out, print_json, table
from nightscore.objects import Json

if TYPE_CHECKING:
    from nightscore.registry.aliases import Alias

Name = Annotated[str, typer.Argument(help="The model's name.")]
AliasName = Annotated[str, typer.Option("--alias", help="The alias to move.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the alias's history for good.")]


def promote(
    name: Name,
    version: Annotated[str, typer.Argument(help="A version number, or the alias that points to it, like challenger.")],
    reason: Reason,
    alias: AliasName = "champion",
    force: Annotated[
        bool, typer.Option("--force", help="Whatever the pipelines' policies say; that is kept in the history.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the move as one JSON object.")] = False,
) -> None:
    """Point an alias to a version, if the policies of the pipelines that use it allow that."""
    from nightscore.cli.app import services
    from nightscore.promotion import promote as move
    from nightscore.settings import pipelines_dir

    moved, proposal = move(services(), pipelines_dir(), name, alias, version, reason, force=force)
    if as_json:
        print_json(moved.last or {})
        return
    for line in proposal.lines():
        out.print(line, markup=False, soft_wrap=True)
    _tell(moved)


def rollback(
    name: Name,
    reason: Reason,
    alias: AliasName = "champion",
    as_json: Annotated[bool, typer.Option("--json", help="Print the move as one JSON object.")] = False,
) -> None:
    """Point an alias back to the version that its present one has replaced."""
    from nightscore.cli.app import services

    moved = services().registry.roll_back(name, alias, reason)
    if as_json:
        print_json(moved.last or {})
    else:
        _tell(moved)


def history(
    name: Name,
    alias: Annotated[str | None, typer.Option(help="Only this alias.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
) -> None:
    """Show every move of a model's aliases: when, from where to where, who, why, on what evidence."""
    from nightscore.cli.app import services

    registry = services().registry
    registry.require_model(name)
    moves: list[Json] = [
        {"alias": found.alias, **entry}
        for found in registry.iter_aliases(name)
        if alias in (None, found.alias)
        for entry in found.history
    ]
    moves.sort(key=lambda entry: str(entry["at"]))
    if as_json:
        print_json(moves)
        return
    made = table(f"history of {name}", "when", "alias", "from", "to", "by", "what", "proposal", "reason")
    for entry in moves:
        what = "forced" if entry.get("forced") else str(entry.get("kind", ""))
        made.add_row(
            entry["at"],
            entry["alias"],
            str(entry["from"] or ""),
            str(entry["to"]),
            entry["by"],
            what,
            str(entry.get("proposal") or "")[:12],
            entry["reason"],
        )
    out.print(made if moves else f"No alias of {name} was ever moved.")


def compare(
    name: Name,
    first: Annotated[str, typer.Argument(help="A version number or an alias.")],
    second: Annotated[str, typer.Argument(help="Another one.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show in what two versions differ: inputs, libraries, metrics, predictions of their samples, evidence."""
    from nightscore.cli.app import services
    from nightscore.settings import pipelines_dir
    from nightscore.version_comparison import compare as compare_versions

    references = [parse_model(f"{name}@{which}") for which in (first, second)]
    found = compare_versions(services(), pipelines_dir(), references[0], references[1])
    if as_json:
        print_json(found.content)
        return
    for part in found.parts:
        made = table(part.title, *part.columns)
        for row in part.rows:
            made.add_row(*row)
        out.print(made)


def sign(
    model: Annotated[str, typer.Argument(help="NAME@VERSION or NAME@ALIAS.")],
    key: Annotated[Path | None, typer.Option(help="PEM file of an elliptic curve's private key.")] = None,
    password: Annotated[
        str | None,
        typer.Option(envvar="NIGHTSCORE_SIGNING_PASSWORD", show_envvar=True, help="The key's password, if it has one."),
    ] = None,
    keyless: Annotated[
        bool, typer.Option("--keyless", help="By the identity that this process has, as in a CI workflow.")
    ] = False,
    trust_config: Annotated[Path | None, typer.Option(help="Sigstore's trust configuration, for --keyless.")] = None,
) -> None:
    """Sign a version as the OpenSSF's model-signing does: its manifest and every file that it names."""
    from nightscore.cli.app import services
    from nightscore.registry.signing import sign_keyless, sign_with_key

    if (key is None) == (not keyless):
        raise ArgumentError("Give either --key or --keyless.")
    registry = services().registry
    version = registry.resolve(parse_model(model))
    files = registry.signed_files(version)
    if key is not None:
        signature = sign_with_key(version.label, files, key, password)
    else:
        signature = sign_keyless(version.label, files, trust_config)
    out.print(f"Signed {version.label}: {registry.add_signature(version, signature)}", markup=False, soft_wrap=True)


def _tell(moved: "Alias") -> None:
    entry = moved.last or {}
    before = f"; it was {moved.name}/{entry['from']}" if entry.get("from") else ""
    out.print(f"{moved.name}@{moved.alias} is now {moved.name}/{moved.version}{before}.", markup=False, soft_wrap=True)
