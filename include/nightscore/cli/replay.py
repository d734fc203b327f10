"""`nightscore replay`: score a run's frozen rows again and compare."""

from typing import Annotated

import typer

from nightscore.cli.console import out, print_json, table, watching
from nightscore.objects import Json


def replay(
    run: Annotated[str, typer.Argument(help="A run's id, or its beginning.")],
    key: Annotated[
        list[str] | None, typer.Option(help="Only one row, like account_id=4711; once for every key column.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as one JSON object.")] = False,
) -> None:
    """Score a run's frozen rows again with its model version, and compare every row; nothing is published.

    With --key: one row with its feature values, its old and its new prediction. Exit code 1: the predictions differ.
    """
    from nightscore.cli.app import services
    from nightscore.cli.runs import find_run
    from nightscore.replay import parse_key, replay_row
    from nightscore.replay import replay as replay_all
    from nightscore.run import open_run

    everything = services()
    pipeline, run_id = find_run(everything.bucket, run)
    with watching() as progress:
        opened = open_run(everything, pipeline, run_id, progress)
        found = replay_row(opened, parse_key(opened, key)) if key else replay_all(opened)
    if as_json:
        print_json(found)
    elif key:
        _print_row(found)
    else:
        _print_comparison(found)
    raise typer.Exit(1 if found["verdict"] == "different" else 0)


def _print_comparison(found: Json) -> None:
    wanted = "the same bits" if found["limit"] == 0 else f"a difference of at most {found['limit']:g}"
    out.print(
        f"{found['pipeline']} {found['partition']}, run {found['run_id']}, model {found['model_version']}: "
        f"{found['verdict']}\n{found['compared']:,} rows compared, {found['differing']:,} not the same bits, largest "
        f"difference {found['largest']:.3g}; {found['missing']:,} missing, {found['added']:,} added. "
        f"{found['beyond']:,} rows beyond what is allowed: {wanted}.",
        soft_wrap=True,
        markup=False,
    )


def _print_row(found: Json) -> None:
    shown = ", ".join(f"{name}={value}" for name, value in found["key"].items())
    made = table(f"{shown}: {found['verdict']}", "", "")
    made.show_header = False
    for name, value in found["values"].items():
        made.add_row(name, "NULL" if value is None else str(value))
    out.print(made)
    if found["rejected_by"]:
        out.print(f"Not scored: rejected by {', '.join(found['rejected_by'])}.", markup=False)
        return
    made = table(f"run {found['run_id']}, model {found['model_version']}", "", "published", "scored again")
    for name in found["old"]:
        made.add_row(name, _shown(found["old"][name]), _shown(found["new"][name]))
    out.print(made)
    out.print(f"difference {found['difference']:.3g}, allowed {found['limit']:g}")


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(f"{item['label']} {item['probability']!r}" for item in value)
    return repr(value) if isinstance(value, float) else str(value)
