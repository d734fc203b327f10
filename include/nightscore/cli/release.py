"""`nightscore release`: DAGs and specs in Airflow's bucket, one version at a time."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nightscore.cli.console import out, print_json, table

if TYPE_CHECKING:
    from nightscore.release import Active, Releases

app = typer.Typer(help="Releases: DAGs and specs in Airflow's bucket, one version at a time.", no_args_is_help=True)

Version = Annotated[str, typer.Argument(help="The release's version.")]
BucketName = Annotated[str, typer.Option("--bucket", help="Airflow's bucket, without gs://.")]
Prefix = Annotated[str, typer.Option(help="The folder in it that Airflow takes DAGs from.")]
Reason = Annotated[str, typer.Option(help="Why; kept beside the move.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("upload")
def upload(
    version: Version,
    bucket: BucketName,
    dags: Annotated[Path, typer.Option(help="The folder of DAGs and pipelines.")] = Path("dags"),
    prefix: Prefix = "dags",
    git_revision: Annotated[str | None, typer.Option(help="The commit that the folder is of.")] = None,
) -> None:
    """Upload a folder under a version that never changes again. Airflow does not see it until it is activated."""
    manifest, missing = _releases(bucket, prefix).upload(version, dags, git_revision)
    count = len(manifest.files)
    done = f"{missing:,} of {count:,} files" if missing else f"all {count:,} files were there already"
    out.print(f"Uploaded {version}: {done}.", markup=False, soft_wrap=True)


@app.command("list")
def list_releases(bucket: BucketName, prefix: Prefix = "dags", as_json: AsJson = False) -> None:
    """List the releases, the last one uploaded last, and which one is active."""
    releases = _releases(bucket, prefix)
    active = releases.active()
    found = [
        {
            "version": item.version,
            "active": item.version == active.version,
            "whole": not item.faults,
            "faults": list(item.faults),
            "files": None if item.manifest is None else len(item.manifest.files),
            "git_revision": None if item.manifest is None else item.manifest.git_revision,
            "package": None if item.manifest is None else item.manifest.package,
            "uploaded": None if item.uploaded is None else item.uploaded.isoformat(timespec="seconds"),
        }
        for item in releases.iter_listed()
    ]
    if as_json:
        print_json({"active": active.version, "releases": found, "moves": list(active.moves)})
        return
    made = table(f"releases in gs://{bucket}/{prefix}", "version", "state", "files#", "commit", "uploaded")
    for item in found:
        state = "active" if item["active"] else "whole" if item["whole"] else "not whole"
        revision = str(item["git_revision"] or "")[:12]
        made.add_row(str(item["version"]), state, f"{item['files'] or 0:,}", revision, str(item["uploaded"] or ""))
    out.print(made if found else f"There are no releases in gs://{bucket}/{prefix}.")


@app.command("activate")
def activate(
    version: Version,
    bucket: BucketName,
    reason: Reason,
    prefix: Prefix = "dags",
    replacing: Annotated[
        str | None, typer.Option(help="Only if this version is active now; `nothing` for the first one.")
    ] = None,
) -> None:
    """Point Airflow to a release that is whole; the last step of a deployment, and one object."""
    releases = _releases(bucket, prefix)
    _tell(releases.activate(version, reason, replacing=replacing), bucket)


@app.command("rollback")
def rollback(bucket: BucketName, reason: Reason, prefix: Prefix = "dags") -> None:
    """Point Airflow back to the release that the active one has replaced."""
    _tell(_releases(bucket, prefix).roll_back(reason), bucket)


@app.command("download")
def download(
    version: Version,
    folder: Annotated[Path, typer.Argument(help="Where to; a folder that is empty or not there.")],
    bucket: BucketName,
    prefix: Prefix = "dags",
) -> None:
    """Write a release's files into a folder, every one compared with its SHA-256."""
    manifest = _releases(bucket, prefix).download(version, folder)
    out.print(f"{version}: {len(manifest.files):,} files are in {folder}.", markup=False, soft_wrap=True)


@app.command("clean")
def clean(
    bucket: BucketName,
    keep: Annotated[int, typer.Option(min=1, help="How many of the newest releases stay.")] = 20,
    prefix: Prefix = "dags",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
) -> None:
    """Delete old releases; never the active one, nor the one before it."""
    doomed = _releases(bucket, prefix).clean(keep, dry_run=dry_run)
    for version in doomed:
        out.print(f"{'Would delete' if dry_run else 'Deleted'} {version}.", markup=False, soft_wrap=True)
    if not doomed:
        out.print("There is nothing to delete.")


def _releases(bucket: str, prefix: str) -> "Releases":
    from nightscore.clients import build_storage
    from nightscore.objects import Bucket
    from nightscore.release import Releases
    from nightscore.settings import settings

    return Releases(Bucket(build_storage(settings()), bucket), prefix)


def _tell(active: "Active", bucket: str) -> None:
    move = active.last or {}
    before = f"; it was {move['from']}" if move.get("from") else ""
    out.print(f"{active.version} is active in gs://{bucket}{before}.", markup=False, soft_wrap=True)
