"""`nightscore demo`: the card portfolio, from nothing to published predictions."""

import datetime as dt
import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from nightscore.cli.console import INTERRUPTED, out
from nightscore.cli.local import tell
from nightscore.cli.report import print_run

app = typer.Typer(help="Demo: a card portfolio on local servers, scored through Airflow.", no_args_is_help=True)


@app.command("up")
def up(
    once: Annotated[bool, typer.Option("--once", help="End after the run; exit code 0 only if it published.")] = False,
    port: Annotated[int | None, typer.Option(help="Port of Airflow's UI; by default 8080 or a free one.")] = None,
) -> None:
    """Do it all: servers, data, models, Airflow, last night's run; then keep the UI up until Ctrl-C."""
    from nightscore.demo import night
    from nightscore.demo.airflow_server import running
    from nightscore.local import servers
    from nightscore.run import build_services
    from nightscore.settings import project_root, read_settings

    # However this process is ended, Airflow ends with it: also by kill, by closing the terminal, or in the background.
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)
    root = project_root()
    local = servers.up(root, progress=tell)
    services = build_services(read_settings(local.environment(), root))
    partition = night.last_night(root, dt.datetime.now(dt.UTC))
    night.prepare(services, partition, tell)
    try:
        with running(root, port, local.environment(), tell) as airflow:
            state = night.run_through_airflow(airflow, services.bucket, partition, tell)
            summary = night.find_published(services.bucket, partition)
            if summary is None or state != "success":
                log = airflow.home / "logs"
                tell(
                    f"Nothing was published for {partition}: the DAG run is {state}. Look at {airflow.url} or in {log}."
                )
            else:
                out.print()
                print_run(out, summary)
                _say_where_to_look(airflow.url, str(summary["run_id"]), str(partition))
            if once:
                raise typer.Exit(0 if summary is not None and state == "success" else 1)
            tell("Ctrl-C stops Airflow; the local servers stay up until `nightscore local down`.")
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED if once else 0) from None


@app.command("fill")
def fill(
    last: Annotated[str | None, typer.Option(help="The last night to write; by default last night.")] = None,
) -> None:
    """Write the portfolio's nights and outcomes into the warehouse, those that are not there yet."""
    from nightscore.arguments import parse_partition
    from nightscore.cli.app import services
    from nightscore.demo.fill import fill as fill_tables
    from nightscore.demo.night import last_night
    from nightscore.settings import project_root

    night = parse_partition(last) if last else last_night(project_root(), dt.datetime.now(dt.UTC))
    fill_tables(services(), last=night, progress=tell)


@app.command("train")
def train(
    force: Annotated[bool, typer.Option("--force", help="Train and register again.")] = False,
) -> None:
    """Fit a logistic regression and a gradient boosting, and register them as champion and challenger."""
    from nightscore.cli.app import services
    from nightscore.demo.train import train as train_models

    train_models(services(), force=force, progress=tell)


def _say_where_to_look(url: str, run_id: str, partition: str) -> None:
    command = Path(".venv/bin/nightscore")
    out.print(
        f"\nWhere to look next:\n"
        f"  Airflow                      {url}/dags/score_credit_default\n"
        f"  the run and its checks       {command} runs show {run_id}\n"
        f"  the challenger beside it     {command} evidence credit_default\n"
        f"  score it again, here         {command} run credit_default --partition {partition}\n"
        f"  with the challenger          {command} run credit_default --partition {partition} "
        f"--model credit_default@challenger\n"
        f"  your own table and model     docs/first-pipeline.md",
        markup=False,
        soft_wrap=True,
    )
