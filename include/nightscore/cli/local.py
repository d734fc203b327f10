"""`nightscore local`: the local BigQuery and Cloud Storage servers, and loading tables."""

from pathlib import Path
from typing import Annotated

import typer

from nightscore.arguments import ArgumentError
from nightscore.cli.console import err, out, print_json, table

app = typer.Typer(help="Local servers: BigQuery and Cloud Storage on this machine.", no_args_is_help=True)


def tell(sentence: str) -> None:
    """Print what is going on to standard error."""
    err.print(sentence, markup=False, soft_wrap=True)


@app.command("up")
def up(
    bigquery_port: Annotated[
        int | None, typer.Option(help="Port of BigQuery; by default free ports are chosen.")
    ] = None,
    bigquery_storage_port: Annotated[int | None, typer.Option(help="Port of the Storage Read API (gRPC).")] = None,
    storage_port: Annotated[int | None, typer.Option(help="Port of Cloud Storage.")] = None,
) -> None:
    """Start both servers in the background; nothing happens to one that runs already."""
    from nightscore.local import servers
    from nightscore.settings import project_root

    given = (bigquery_port, bigquery_storage_port, storage_port)
    if any(given) and not all(given):
        raise ArgumentError("Give all three ports, or none: --bigquery-port, --bigquery-storage-port, --storage-port.")
    ports = servers.Ports(*(port for port in given if port)) if all(given) else None
    found = servers.up(project_root(), ports=ports, progress=tell)
    out.print(f"BigQuery {found.bigquery_url}, Cloud Storage {found.storage_url}; settings in .nightscore/env.")


@app.command("down")
def down() -> None:
    """Stop both servers; their data stays."""
    from nightscore.local import servers
    from nightscore.settings import project_root

    servers.down(project_root(), progress=tell)


@app.command("reset")
def reset(yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Stop both servers and delete their data."""
    from nightscore.local import servers
    from nightscore.settings import project_root

    if not yes:
        typer.confirm("Delete all local tables, models and records?", abort=True)
    servers.reset(project_root(), progress=tell)


@app.command("status")
def status(as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False) -> None:
    """Show what runs, where, and how much data it holds. Exit code 3 when a server does not answer."""
    import dataclasses

    from nightscore.local import servers
    from nightscore.settings import project_root

    found = servers.status(project_root())
    if as_json:
        print_json([dataclasses.asdict(item) for item in found])
    else:
        made = table("local servers", "server", "state", "pid#", "address", "data#")
        for item in found:
            state = "answering" if item.answering else "running, not answering" if item.running else "down"
            made.add_row(item.name, state, str(item.pid or ""), " ".join(item.urls), f"{item.data_bytes / 1e6:,.1f} MB")
        out.print(made if found else "No local servers here yet. Start them with `nightscore local up`.")
    raise typer.Exit(0 if found and all(item.answering for item in found) else 3)


@app.command("load")
def load(
    target: Annotated[str, typer.Argument(metavar="DATASET.TABLE", help="The table to load into.")],
    files: Annotated[list[Path], typer.Argument(help="CSV or Parquet files of one table.")],
    partition: Annotated[
        str | None, typer.Option(help="DATE column to partition by; only the days in the files are replaced.")
    ] = None,
    assign: Annotated[list[str] | None, typer.Option("--set", help="COLUMN=VALUE: add a constant column.")] = None,
    rename: Annotated[list[str] | None, typer.Option(help="a=b: rename the files' column a to b.")] = None,
) -> None:
    """Load files into a table, replacing the partitions they hold. Works against real BigQuery too."""
    from nightscore.cli.app import services
    from nightscore.loading.tables import load_files

    report = load_files(
        services().warehouse,
        target,
        files,
        partition=partition,
        set_values=_pairs("--set", assign),
        rename=_pairs("--rename", rename),
        progress=tell,
    )
    out.print(str(report), markup=False)


def _pairs(option: str, given: list[str] | None) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in given or []:
        name, sign, value = item.partition("=")
        if not sign or not name:
            raise ArgumentError(f"{option}: {item!r} is not NAME=VALUE.")
        pairs[name] = value
    return pairs
