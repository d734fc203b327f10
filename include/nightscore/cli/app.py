"""The root of the command line, and what all commands share."""

import functools
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from nightscore.run import Services

app = typer.Typer(
    name="nightscore",
    help="Nightly batch scoring: BigQuery features in, checked predictions out, one atomic partition at a time.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _root() -> None:
    from nightscore.logs import configure
    from nightscore.settings import log_format

    configure(log_format())


@functools.cache
def services() -> "Services":
    """Return the services that the environment's settings name."""
    from nightscore.run import build_services
    from nightscore.settings import settings

    return build_services(settings())


def _register_commands() -> None:
    from nightscore.cli import (
        clean,
        demo,
        docs,
        doctor,
        evidence,
        local,
        models,
        pipelines,
        plan,
        release,
        replay,
        rollback,
        run,
        runs,
    )

    app.command("plan")(plan.plan)
    app.command("run")(run.run)
    app.command("rollback")(rollback.rollback)
    app.command("replay")(replay.replay)
    app.command("clean")(clean.clean)
    app.command("evidence")(evidence.evidence)
    app.command("docs")(docs.docs)
    app.command("doctor")(doctor.doctor)
    app.add_typer(runs.app, name="runs")
    app.add_typer(pipelines.app, name="pipelines")
    app.add_typer(models.app, name="models")
    app.add_typer(release.app, name="release")
    app.add_typer(local.app, name="local")
    app.add_typer(demo.app, name="demo")


_register_commands()
