"""What the command line prints: tables and moving bars on a terminal, plain lines elsewhere, JSON when asked."""

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from typer import TyperException

from nightscore.errors import NightscoreError, shorten
from nightscore.logs import are_json
from nightscore.objects import Json
from nightscore.progress import LoggedProgress

# Rich takes 80 columns where there is no terminal, and folds tables that a file or a pipe has room for.
PIPE_WIDTH = 160
INTERRUPTED = 130
PIPE_CLOSED = 141

log = logging.getLogger(__name__)


class _Output(Console):
    """Standard output: when its reader has gone there is nobody to tell, and no code of ours that says so."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class _Messages(Console):
    """Standard error: a run goes on when nobody reads its progress."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


out = _Output(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
err = _Messages(stderr=True, highlight=False, width=None if sys.stderr.isatty() else PIPE_WIDTH)

STAGE_NAMES = {
    "wait": "wait for data",
    "plan": "plan",
    "freeze": "freeze",
    "feature_gate": "feature gate",
    "score": "score",
    "prediction_gate": "prediction gate",
    "publish": "publish",
    "shadow": "challengers",
    "evidence": "evidence",
    "record": "record",
}


def print_json(content: Mapping[str, Any] | Sequence[Any]) -> None:
    """Print one JSON document, and nothing else, on standard output."""
    sys.stdout.write(json.dumps(content, indent=2, default=str) + "\n")


def errors_as_json(arguments: Sequence[str]) -> bool:
    """Return whether the command asked for JSON, so that its failure is JSON too."""
    return "--json" in arguments


def print_error(error: Exception, *, as_json: bool) -> None:
    """Print an error: its sentence on standard error and, when asked for, one JSON object on standard output."""
    kind = type(error).__name__
    if as_json:
        code = error.exit_code if isinstance(error, NightscoreError) else 3
        record = getattr(error, "record", None)
        found = {"status": "refused" if code == 1 else "error", "error": kind, "message": str(error), "exit_code": code}
        print_json({**found, **({"gate": record} if record else {})})
    if are_json():
        log.error("%s: %s", kind, error)
        return
    err.print(f"[bold red]{kind}[/]: ", end="")
    err.print(str(error), markup=False)


def print_usage_error(error: TyperException, *, as_json: bool) -> None:
    """Print what is wrong with the arguments as the parser itself would, and as JSON when asked."""
    show = getattr(error, "show", None)
    if show is not None:
        show()
    if as_json:
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        print_json({"status": "error", "error": "UsageError", "message": message, "exit_code": 2})


def describe(stage: str, record: Json) -> str:
    """Return a stage's record in a few words."""
    words: dict[str, Callable[[Json], str]] = {
        "wait": lambda r: str(r["seen"]),
        "plan": _plan,
        "freeze": lambda r: f"{_rows(r['accepted'])} to score, {r['rejected']:,} rejected by row rules",
        "feature_gate": lambda r: f"{r['verdict']}: {_checks(r)}",
        "score": lambda r: f"{_rows(r['rows'])} in {r['shards']} shard(s)",
        "prediction_gate": lambda r: f"{r['verdict']}: {_checks(r)}",
        "publish": lambda r: f"{_rows(r['rows'])} in {r['table']}" if r["published"] else f"nothing: {r['reason']}",
        "shadow": _shadow,
        "evidence": _evidence,
        "record": lambda r: str(r["status"]),
    }
    text = words[stage](record)
    again = "  (done before)" if record.get("reused") else ""
    seconds = f"  {record['seconds']:.1f} s" if stage not in ("plan", "record") and not again else ""
    return f"{text}{seconds}{again}"


def _plan(record: Json) -> str:
    beside = f" beside {record['challengers']}" if record["challengers"] else ""
    shards = f"{record['shards']} shard(s)"
    return f"run {record['run_id']}, {_rows(record['rows'])}, {shards}, model {record['model']}{beside}"


def _shadow(record: Json) -> str:
    if not record["published"]:
        return f"nothing: {record['reason']}"
    parts = [f"{label} {_rows(rows)}" for label, rows in record["rows"].items()]
    return ", ".join([*parts, *(f"{label} left out" for label in record["left_out"])]) + f" in {record['table']}"


def _evidence(record: Json) -> str:
    if record["error"]:
        return f"nothing: {shorten(record['error'])}"
    found = [f"{label} {agreement(item['figures'])}" for label, item in record["challengers"].items()]
    return "; ".join(found) or "no challenger to compare"


def agreement(figures: Json) -> str:
    """Return how far a challenger agrees with the champion, in a few words; `figures` may lack what is not known."""
    words = (("correlation", "correlation {:.4f}"), ("psi", "PSI {:.4f}"), ("flips", "{:,} flips"))
    parts = [form.format(figures[name]) for name, form in words if figures.get(name) is not None]
    share = figures.get("flip_share")
    return ", ".join(parts) + (f" ({share:.2%})" if share is not None else "")


def _rows(rows: int | None) -> str:
    return "rows not counted" if rows is None else f"{rows:,} rows"


def _checks(record: Json) -> str:
    failed = sum(1 for check in record["checks"] if not check["passed"])
    return f"{len(record['checks'])} checks" + (f", {failed} failed" if failed else "")


class PlainProgress:
    """Progress as plain lines on standard error."""

    def stage_began(self, stage: str) -> None:
        """Print nothing yet."""

    def stage_ended(self, stage: str, record: Json) -> None:
        """Print the stage's line."""
        err.print(f"{STAGE_NAMES[stage]:<16} {describe(stage, record)}", markup=False, soft_wrap=True)

    def waiting(self, seen: str) -> None:
        """Print what is seen."""
        err.print(f"{STAGE_NAMES['wait']:<16} {seen}", markup=False, soft_wrap=True)

    def note(self, sentence: str) -> None:
        """Print the sentence."""
        err.print(sentence, markup=False, soft_wrap=True)

    def shard_advanced(self, shard: int, rows: int, total: int) -> None:
        """Print nothing: the stage's line has the sum."""


class LiveProgress:
    """Progress as one moving line per stage and per shard in work, on a terminal."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._stages: dict[str, TaskID] = {}
        self._shards: dict[int, TaskID] = {}

    def stage_began(self, stage: str) -> None:
        """Show the stage's line."""
        self._stages[stage] = self._bars.add_task(STAGE_NAMES[stage], total=None, figures="")

    def stage_ended(self, stage: str, record: Json) -> None:
        """Finish the stage's line with its figures."""
        if stage not in self._stages:
            self.stage_began(stage)
        for shard in self._shards.values():
            self._bars.remove_task(shard)
        self._shards.clear()
        self._bars.update(self._stages[stage], total=1, completed=1, figures=describe(stage, record))

    def waiting(self, seen: str) -> None:
        """Show what is seen in the line of the wait."""
        self._bars.update(self._stages["wait"], figures=seen)

    def note(self, sentence: str) -> None:
        """Print the sentence above the moving lines."""
        self._bars.console.print(sentence, markup=False, soft_wrap=True)

    def shard_advanced(self, shard: int, rows: int, total: int) -> None:
        """Move the shard's bar."""
        if shard not in self._shards:
            self._shards[shard] = self._bars.add_task(f"  shard {shard}", total=total, figures="")
        self._bars.update(self._shards[shard], completed=rows, figures=f"{rows:,} of {total:,} rows")


@contextmanager
def watching() -> Iterator[PlainProgress | LiveProgress | LoggedProgress]:
    """Yield the progress that suits where standard error goes."""
    if are_json():
        yield LoggedProgress()
        return
    if not err.is_terminal:
        yield PlainProgress()
        return
    columns = (
        SpinnerColumn(finished_text="[green]✓[/]"),
        TextColumn("{task.description:<16}"),
        BarColumn(bar_width=16),
        TimeElapsedColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
    )
    with Progress(*columns, console=err) as bars:
        yield LiveProgress(bars)


class _PlainTable(Table):
    """A table whose cells and title are shown as they are: text of others may look like markup."""

    def add_row(self, *cells: Any, **options: Any) -> None:
        super().add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in cells), **options)


def table(title: str, *columns: str) -> Table:
    """Return an empty table; columns whose name ends in # are figures."""
    made = _PlainTable(
        title=Text(title), title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False
    )
    for column in columns:
        made.add_column(column.rstrip("#"), justify="right" if column.endswith("#") else "left", overflow="fold")
    return made
