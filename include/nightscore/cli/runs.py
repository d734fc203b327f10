"""`nightscore runs`: what ran, from the records in the bucket."""

import datetime as dt
from typing import Annotated

import typer

from nightscore.cli.console import out, print_json, table
from nightscore.cli.report import print_gate, print_run
from nightscore.errors import ConfigurationError, listed, near_miss, shorten
from nightscore.objects import Bucket, Json

app = typer.Typer(help="What ran: lists and reports, read from the records in the bucket.", no_args_is_help=True)


class RunAmbiguousError(ConfigurationError):
    """Several runs begin with the text that was given."""


@app.command("list")
def list_runs(
    pipeline: Annotated[str | None, typer.Argument(help="Only this pipeline's.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many runs of each pipeline.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False,
) -> None:
    """List the latest runs, and which of them is live: the one whose predictions a reader sees."""
    from nightscore.cli.app import services
    from nightscore.publications import last_publication
    from nightscore.records import ROOT, run_ids

    bucket = services().bucket
    known = sorted(bucket.iter_folders(ROOT))
    if pipeline is not None and known and pipeline not in known:
        raise ConfigurationError(f"There are no runs of {shorten(pipeline)!r}. {near_miss(pipeline, known)}")
    names = known if pipeline is None else [pipeline]
    found = [_summary(bucket, name, run_id) for name in names for run_id in run_ids(bucket, name)[:limit]]
    days = {(run["pipeline"], dt.date.fromisoformat(run["partition"])) for run in found}
    last = [publication for name, day in sorted(days) if (publication := last_publication(bucket, name, day))]
    live = {(item["pipeline"], item["run_id"]): item for item in last}
    for run in found:
        publication = live.get((run["pipeline"], run["run_id"]))
        run["live"] = publication is not None
        run["rolled_back_to"] = publication is not None and publication["kind"] == "rollback"
    found.sort(key=lambda run: (run["pipeline"], run["partition"], run["planned_at"]), reverse=True)
    if as_json:
        print_json(found)
        return
    made = table("runs", "pipeline", "run", "status", "live", "model", "published#", "rejected#", "seconds#", "planned")
    for run in found:
        made.add_row(
            run["pipeline"],
            run["run_id"],
            run["status"],
            "live (rolled back)" if run["rolled_back_to"] else "live" if run["live"] else "",
            run["model_version"],
            _figure(run.get("rows_published")),
            _figure(run.get("rows_rejected")),
            "" if run.get("seconds") is None else f"{run['seconds']:.1f}",
            run["planned_at"][:19].replace("T", " "),
        )
    if found:
        out.print(made)
    else:
        out.print("No runs yet. Start one with `nightscore run PIPELINE --partition YYYY-MM-DD`.")


@app.command("show")
def show_run(
    run: Annotated[str, typer.Argument(help="A run's id, or its beginning.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print all records as one JSON object.")] = False,
) -> None:
    """Show a run: its summary, its checks and what they saw."""
    from nightscore.cli.app import services
    from nightscore.records import RunRecords

    bucket = services().bucket
    pipeline, run_id = find_run(bucket, run)
    records = RunRecords(bucket, pipeline, run_id)
    names = ("plan", "freeze", "feature_gate", "prediction_gate", "publish", "shadow", "evidence", "run")
    found = {name: records.read(name) for name in names}
    if as_json:
        print_json({name: content for name, content in found.items() if content} | {"shards": list(records.receipts())})
        return
    print_run(out, _summary(bucket, pipeline, run_id))
    for gate in ("feature_gate", "prediction_gate"):
        content = found[gate]
        if content:
            print_gate(out, gate, content)


def find_run(bucket: Bucket, text: str) -> tuple[str, str]:
    """Return pipeline and id of the run whose id begins with a text.

    Raises:
        RunAmbiguousError: there are several.
        ConfigurationError: there is none; names the near miss.
    """
    from nightscore.records import ROOT, run_ids

    every = [(name, run_id) for name in bucket.iter_folders(ROOT) for run_id in run_ids(bucket, name)]
    exact = [item for item in every if item[1] == text]
    found = exact or [item for item in every if item[1].startswith(text)]
    if len(found) == 1:
        return found[0]
    if found:
        raise RunAmbiguousError(f"Several runs begin with {text!r}: {listed(f'{n} {r}' for n, r in found)}.")
    raise ConfigurationError(f"There is no run {shorten(text)!r}. {near_miss(text, [run_id for _, run_id in every])}")


def _summary(bucket: Bucket, pipeline: str, run_id: str) -> Json:
    """Return a run's summary, or what its plan says of a run that is not over."""
    from nightscore.plan import read_plan
    from nightscore.records import RunRecords

    records = RunRecords(bucket, pipeline, run_id)
    summary = records.read("run")
    if summary is not None:
        return summary
    plan = read_plan(records)
    if plan is None:
        raise ConfigurationError(
            f"The run {run_id} of {pipeline} has no plan; its records are incomplete: {records.uri}"
        )
    return {
        "run_id": run_id,
        "pipeline": pipeline,
        "partition": plan.partition.isoformat(),
        "status": "unfinished",
        "model_version": plan.model.label,
        "requested_model": plan.model.requested,
        "table": plan.spec.predictions.table,
        "planned_at": plan.scored_at.isoformat(),
        "seconds": 0.0,
        "records": records.uri,
    }


def _figure(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else ""
