"""How a run looks on a terminal."""

import io
from typing import Any

import pytest
from rich.console import Console

from nightscore.cli.report import print_figures, print_run

SUMMARY: dict[str, Any] = {
    "run_id": "2026-11-19-0123abcd",
    "pipeline": "credit_default",
    "partition": "2026-11-19",
    "status": "published",
    "model_version": "credit_default/7",
    "requested_model": "credit_default@champion",
    "table": "my-project.predictions.credit_default",
    "rows_frozen": 30_000,
    "rows_rejected": 12,
    "rows_scored": 29_988,
    "rows_published": 29_988,
    "rows_replaced": 0,
    "warnings": [],
    "stopped_by": [],
    "task": "binary",
    "figures": {
        "rows": 100,
        "sum": 31.25,
        "min": 0.0125,
        "max": 0.96875,
        "histogram": [40, 20, *[0] * 17, 40],
        "flagged": 40,
    },
    "scoring_seconds": 2.0,
    "stage_seconds": {"feature_gate": 2.5, "freeze": 1.25},
    "seconds": 9.75,
    "records": "gs://bucket/runs/credit_default/2026-11-19-0123abcd/",
}


def printed(**changes: Any) -> list[str]:
    console = Console(record=True, width=120, file=io.StringIO())
    print_run(console, {**SUMMARY, **changes})
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_a_published_run() -> None:
    assert printed() == [
        "credit_default 2026-11-19: published",
        "run        2026-11-19-0123abcd",
        "status     published",
        "partition  2026-11-19",
        "model      credit_default/7 (credit_default@champion)",
        "rows       30,000 frozen, 12 rejected, 29,988 scored, 29,988 published, 0 replaced",
        "table      my-project.predictions.credit_default",
        "time       9.8 s: freeze 1.2, feature gate 2.5, scoring 2.0 (14,994 rows/s)",
        "records    gs://bucket/runs/credit_default/2026-11-19-0123abcd/",
        "score distribution",
        "score       rows  share",
        "0.0 to 0.1    60  60.0%  ████████████████████████████████",
        *(f"0.{i} to 0.{i + 1}     0   0.0%" for i in range(1, 9)),
        "0.9 to 1.0    40  40.0%  █████████████████████",
        "mean 0.3125, least 0.0125, greatest 0.9688, 40 at or above the threshold",
    ]


def test_a_refused_run_says_why_and_shows_no_figures() -> None:
    lines = printed(
        status="refused",
        rows_scored=None,
        rows_published=None,
        rows_replaced=None,
        scoring_seconds=None,
        figures=None,
        task=None,
        stopped_by=["[bold]12 of 30 rows[/] were rejected"],
        warnings=["a warning"],
    )
    assert lines[0] == "credit_default 2026-11-19: refused"
    assert "rows       30,000 frozen, 12 rejected" in lines
    assert "time       9.8 s: freeze 1.2, feature gate 2.5" in lines
    assert lines[-2:] == ["refused: [bold]12 of 30 rows[/] were rejected", "warning: a warning"]


def test_a_multiclass_run_shows_its_classes() -> None:
    lines = printed(task="multiclass", figures={"rows": 4, "labels": {"low": 1, "high": 3}})
    assert lines[-4:] == [
        "predictions",
        "class  rows  share",
        "high      3  75.0%  ████████████████████████████████",
        "low       1  25.0%  ███████████",
    ]


def test_a_regression_shows_its_range() -> None:
    lines = printed(task="regression", figures={"rows": 4, "sum": 10.0, "min": -2.0, "max": 1234567.0})
    assert lines[-1] == "mean 2.5, least -2, greatest 1.235e+06"


@pytest.mark.parametrize("figures", [None, {}, {"rows": 0}])
def test_nothing_scored_shows_nothing(figures: dict[str, Any] | None) -> None:
    console = Console(record=True, width=120, file=io.StringIO())
    print_figures(console, "binary", figures)
    assert console.export_text() == ""


def test_a_single_row_still_has_a_bar() -> None:
    figures = {"rows": 10_001, "labels": {"often": 10_000, "once": 1}}
    assert printed(task="multiclass", figures=figures)[-1].endswith("█")
