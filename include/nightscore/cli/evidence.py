"""`nightscore evidence`: how a challenger scored beside the champion, and what the policy says of it."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from nightscore.arguments import ArgumentError
from nightscore.cli.console import agreement, out, print_json, table
from nightscore.objects import Json

if TYPE_CHECKING:
    from rich.console import Console

    from nightscore.monitoring.policy import Finding
    from nightscore.spec import ModelReference, Spec

LAST_NIGHTS = 14
LARGEST_VALUES = 8


def evidence(
    pipeline: Annotated[str, typer.Argument(help="The pipeline's name.")],
    champion: Annotated[
        str | None, typer.Option(help="Alias or number of the published version; by default what the spec publishes.")
    ] = None,
    challenger: Annotated[
        str | None,
        typer.Option(help="Alias or number of the version beside it; by default the spec's first."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print evidence and findings as one JSON object.")] = False,
) -> None:
    """Show how a challenger scored beside the champion on all nights, and what the spec's policy says of it."""
    from nightscore.cli.app import services
    from nightscore.monitoring.evidence import gather
    from nightscore.monitoring.policy import judge
    from nightscore.settings import pipelines_dir
    from nightscore.specs import load_spec

    spec, found = load_spec(pipeline, pipelines_dir()), services()
    first, second = (found.registry.resolve(item) for item in _references(spec, champion, challenger))
    if first.label == second.label:
        raise ArgumentError(
            f"{spec.name}: champion and challenger are both {first.label}: there is nothing to compare. Say which with "
            "--champion and --challenger."
        )
    gathered = gather(found, spec, first, second)
    findings = judge(spec.promotion, gathered) if spec.promotion is not None else []
    if as_json:
        print_json({**gathered, "findings": [asdict(finding) for finding in findings]})
        return
    print_evidence(out, gathered, findings)
    if spec.promotion is None:
        out.print("The spec has no promotion: nothing is asked of a challenger.")


def _references(spec: "Spec", champion: str | None, challenger: str | None) -> "tuple[ModelReference, ModelReference]":
    if challenger is None and not spec.model.challengers:
        raise ArgumentError(f"{spec.name}: model.challengers names none. Say which with --challenger.")
    other = spec.model.challenger_references[0] if challenger is None else _reference(spec, challenger)
    return (spec.model if champion is None else _reference(spec, champion)), other


def _reference(spec: "Spec", text: str) -> "ModelReference":
    from nightscore.arguments import parse_model

    return parse_model(f"{spec.model.name}@{text}")


def print_evidence(console: "Console", gathered: Json, findings: "Sequence[Finding]") -> None:
    """Print what was gathered as tables, and the policy's findings under it."""
    nights, figures = gathered["nights"], gathered["accumulated"]["figures"]
    title = f"{gathered['pipeline']}: {gathered['challenger']} beside {gathered['champion']}"
    if not nights:
        console.print(f"{title}: there is no night on which both scored the same rows.", markup=False)
    else:
        _print_nights(console, title, nights, figures)
        _print_slices(console, gathered["accumulated"]["slices"])
        _print_outcomes(console, gathered["outcomes"])
    for item in gathered["left_out"][-LAST_NIGHTS:]:
        console.print(f"left out on {item['partition']}: {item['why']}", style="yellow", markup=False)
    if not findings:
        return
    made = table("policy", "rule", "", "wanted", "found")
    for finding in findings:
        made.add_row(finding.rule, "ok" if finding.passed else "NO", finding.wanted, finding.found)
    console.print(made)


def _print_nights(console: "Console", title: str, nights: Sequence[Json], figures: Json) -> None:
    made = table(title, "night", "rows#", "with outcome#", "AUC champion#", "challenger#", "agreement")
    for night in nights[-LAST_NIGHTS:]:
        made.add_row(night["partition"], f"{night['rows']:,}", *_known(night["outcomes"]), agreement(night))
    made.add_row(f"all {len(nights)}", f"{figures['rows']:,}", "", "", "", agreement(figures))
    console.print(made)


def _known(outcomes: Json | None) -> list[str]:
    if outcomes is None or not outcomes["rows"]:
        return ["" if outcomes is None else "0", "", ""]
    both = [outcomes[side]["auc"] for side in ("champion", "challenger")]
    return [f"{outcomes['rows']:,}", *("" if auc is None else f"{auc:.4f}" for auc in both)]


def _print_slices(console: "Console", slices: Json) -> None:
    for name, values in slices.items():
        if not any("swapped_in" in counts for counts in values.values()):
            continue
        made = table(f"swap set by {name}", name, "rows#", "champion flags#", "challenger flags#", "in#", "out#")
        largest = sorted(values, key=lambda value: -values[value]["rows"])
        for value in largest[:LARGEST_VALUES]:
            counts = values[value]
            keys = ("rows", "flagged_by_champion", "flagged_by_challenger", "swapped_in", "swapped_out")
            made.add_row(value, *(f"{counts[key]:,}" if key in counts else "" for key in keys))
        console.print(made)
        if len(largest) > LARGEST_VALUES:
            console.print(f"… and {len(largest) - LARGEST_VALUES} smaller values", style="dim")


def _print_outcomes(console: "Console", outcomes: Json) -> None:
    if not outcomes["rows"]:
        console.print(f"outcomes: {outcomes['reason']}", markup=False)
        return
    made = table(
        f"{outcomes['rows']:,} rows with an outcome, {outcomes['positives']:,} positive; in brackets 95 % intervals",
        "",
        "champion#",
        "challenger#",
        "difference#",
    )
    for metric in ("auc", "gini", "ks", "brier"):
        cells = [_interval(outcomes[side][metric]) for side in ("champion", "challenger", "difference")]
        made.add_row({"brier": "Brier"}.get(metric, metric.upper() if metric != "gini" else "Gini"), *cells)
    console.print(made)
    made = table("calibration", "decile#", "champion predicts#", "observed#", "challenger predicts#", "observed#")
    sides = ("champion", "challenger")
    deciles = [{item["decile"]: item for item in outcomes[side]["calibration"]} for side in sides]
    for number in sorted({*deciles[0], *deciles[1]}):
        found = [side.get(number) for side in deciles]
        cells = [f"{item[key]:.4f}" if item else "" for item in found for key in ("predicted", "observed")]
        made.add_row(str(number), *cells)
    console.print(made)
    for name, words in (("swapped_in", "only the challenger flags"), ("swapped_out", "only the champion flags")):
        found = outcomes[name]
        if found is not None and found["rows"]:
            share = _interval({**found, "value": found["rate"]})
            console.print(f"{words}: {found['rows']:,} rows, of which positive {share}", markup=False)


def _interval(found: Json) -> str:
    from nightscore.monitoring.text import figure, interval

    bounds = interval(found, ", ")
    return figure(found["value"]) + (f" [{bounds}]" if bounds else "")
