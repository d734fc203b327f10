"""`nightscore clean`: delete what dead attempts left in the bucket."""

import datetime as dt
from typing import Annotated

import typer

from nightscore.cli.console import out, print_json, table
from nightscore.errors import ConfigurationError, near_miss, shorten


def clean(
    pipeline: Annotated[str | None, typer.Argument(help="Only this pipeline's.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be deleted.")] = False,
    older_than: Annotated[
        float, typer.Option(min=1, help="Hours after which an attempt without a receipt is taken for dead.")
    ] = 24,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
) -> None:
    """Delete Parquet parts that no receipt names, and those of runs that are no longer kept.

    What a rollback or a replay still needs is never deleted, nor is any record.
    """
    from nightscore.clean import iter_leftovers, remove
    from nightscore.cli.app import services
    from nightscore.records import ROOT

    bucket = services().bucket
    known = sorted(bucket.iter_folders(ROOT))
    if pipeline is not None and pipeline not in known:
        raise ConfigurationError(f"There are no runs of {shorten(pipeline)!r}. {near_miss(pipeline, known)}")
    now = dt.datetime.now(dt.UTC)
    found = list(iter_leftovers(bucket, now, dt.timedelta(hours=older_than), pipeline))
    if not dry_run:
        found = [item for item in found if remove(bucket, item)]
    if as_json:
        print_json([item.to_json() for item in found])
        return
    made = table("would be deleted" if dry_run else "deleted", "pipeline", "run", "object", "bytes#", "why")
    for item in found:
        name = item.object.name.removeprefix(f"runs/{item.pipeline}/{item.run_id}/")
        made.add_row(item.pipeline, item.run_id, name, f"{item.object.size:,}", item.why)
    if found:
        out.print(made)
    total = sum(item.object.size for item in found)
    out.print(f"{len(found):,} object(s), {total:,} bytes {'would be ' if dry_run else ''}deleted.")
