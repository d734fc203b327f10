"""A plan as text: the same lines on a terminal, where some are coloured, and in the log of an Airflow task."""

import datetime as dt
import re
from collections.abc import Iterator, Sequence
from typing import Any

from nightscore.objects import Json

Line = tuple[str, str]  # the text, and the style that a terminal gives it

_MARKS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}
_STYLES = {"missing": "red", "wrong type": "red", "may be NULL": "yellow"}


def preview_as_text(plan: Json) -> str:
    """Return the lines of a plan without colours."""
    return "\n".join(text for text, _ in preview_lines(plan))


def preview_lines(plan: Json) -> Iterator[Line]:
    """Yield the lines of a plan, as `nightscore.preview` makes it, each with its style."""
    yield f"{plan['pipeline']} {plan['partition']}: what a run would do", "bold"
    if plan["dry_run"]:
        yield "dry run: nothing will be published", "bold"
    for name, text in _facts(plan):
        yield f"  {name:<11} {text}", ""
    yield from _section("changes", _changes(plan["changes"]))
    yield from _section(f"columns of {plan['source']['table']}", _columns(plan["columns"]))
    yield from _section("row rules", [(f"{name}: {_flat(rule)}", "") for name, rule in plan["row_rules"].items()])
    yield from _section("waits for", [(f"{item['condition']}: {item['seen']}", "") for item in plan["waits_for"]])
    yield from _section("checks before scoring", _checks(plan["checks"]["features"]))
    yield from _section("checks before publishing", _checks(plan["checks"]["predictions"]))
    yield "", ""
    for warning in plan["warnings"]:
        yield f"warning: {warning}", "yellow"
    for reason in plan["reasons"]:
        yield f"blocked: {reason['message']}", "red"
    yield _verdict(plan), "bold green" if plan["verdict"] == "ready" else "bold red"


def _verdict(plan: Json) -> str:
    count = len(plan["reasons"])
    if not count:
        return "ready" + (", as a dry run: nothing will be published" if plan["dry_run"] else "")
    return f"blocked, for {count} reason{'s' if count > 1 else ''}: nothing would be frozen, scored or published"


def _facts(plan: Json) -> Iterator[tuple[str, str]]:
    source = plan["source"]
    yield "source", f"{source['table']}, {_count(source['rows'], 'row')}"
    yield "freeze", f"{_cost(source)}, {_count(source['shards'], 'shard')}"
    yield "model", _model(plan["model"]) if plan["model"] else "unknown"
    for found in plan["challengers"]:
        yield "challenger", _model(found)
    for asked, why in plan["left_out"].items():
        yield "left out", f"{asked}: {why}"
    yield "replaces", _replaces(plan["replaces"])
    yield from _time(plan["expected"])


def _count(number: int | None, what: str) -> str:
    if number is None:
        return f"{what}s not counted"
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _cost(source: Json) -> str:
    if source["bytes"] is None:
        return "bytes not known"
    most = "" if source["bytes_from"] == "dry run" else "at most "
    cost, currency = source["cost"], source["currency"]
    price = f"{cost:,.2f} {currency}" if cost >= 0.005 or cost == 0 else f"less than 0.01 {currency}"
    return f"{most}{_size(source['bytes'])}, {price} at {source['price_per_tib']:g} {currency} per TiB"


def _size(size: float) -> str:
    """Return a number of bytes in few digits.

    >>> _size(999), _size(1_250_000)
    ('999 B', '1.2 MB')
    """
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} PB"


def _model(model: Json) -> str:
    digest = f"sha256 {model['digest'][:12]}"
    return f"{model['version']} ({model['requested']}), {model['task']}, {model['estimator']}, {digest}"


def _replaces(replaces: Json) -> str:
    if not replaces["exists"]:
        return f"nothing: {replaces['table']} will be created"
    rows = f"{_count(replaces['rows'], 'row')} of {replaces['table']}"
    if replaces["run_id"] is None:
        return rows
    when = _moment(replaces["published_at"])
    return f"{rows}, published by {replaces['run_id']} with {replaces['model_version']} at {when}"


def _time(time: Json) -> Iterator[tuple[str, str]]:
    if time["seconds"] is None:
        yield "time", "not known: no run of this pipeline was published yet"
        yield "starts", _moment(time["starts_at"])
    else:
        yield "time", f"about {_duration(time['seconds'])}, told from {_count(time['runs'], 'published run')}"
        yield "starts", f"{_moment(time['starts_at'])}, and ends about {_moment(time['ends_at'])}"
    if time["deadline_at"] is not None:
        judged = {True: ": late", False: ": in time", None: ""}[time["late"]]
        yield "deadline", f"{_moment(time['deadline_at'])}{judged}"


def _duration(seconds: float) -> str:
    """Return a span of time in its two greatest units.

    >>> _duration(8.44), _duration(200), _duration(7500)
    ('8.4 s', '3 min 20 s', '2 h 5 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _moment(text: str) -> str:
    """Return a moment to the second, with its offset.

    >>> _moment("2026-11-21T02:00:00.123+01:00")
    '2026-11-21 02:00:00+01:00'
    """
    return dt.datetime.fromisoformat(text).isoformat(sep=" ", timespec="seconds")


def _changes(changes: Json) -> Iterator[Line]:
    since = changes["since"]
    if since is None:
        yield f"nothing to compare with: {changes['note']}", ""
        return
    what = "rolled back to" if since["kind"] == "rollback" else "published"
    yield f"since {since['run_id']}, {what} {_moment(since['published_at'])}", ""
    if changes["fields"] is None:
        yield f"cannot be told: {changes['note']}", "yellow"
        return
    for change in changes["fields"]:
        mark, style = _MARKS[change["change"]]
        yield f"  {mark} {change['field']}: {_change(change)}", style
    if not changes["fields"]:
        yield "  nothing changed", ""


def _change(change: Json) -> str:
    if change["change"] == "changed":
        before, after = _value(change["before"]), _value(change["after"])
        return "changed" if before == after else f"{before} → {after}"
    value = change["after"] if change["change"] == "added" else change["before"]
    return f"{change['change']}: {_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items() if item is not None)
    text = "none" if value is None else str(value)
    return text[:12] if re.fullmatch(r"[0-9a-f]{64}", text) else text


def _columns(columns: Sequence[Json]) -> Iterator[Line]:
    if not columns:
        yield "not known", "red"
        return
    titles = ("column", "type", "NULL", "read by", "fitted on", "takes NULL", "finding")
    rows = [
        (
            column["name"],
            column["type"] or "",
            _yes(column["nullable"]),
            ", ".join(column["read_by"]),
            column["fitted_on"] or "",
            _yes(column["takes_null"]),
            column["finding"],
        )
        for column in columns
    ]
    styles = ["bold", *(_STYLES.get(column["finding"], "") for column in columns)]
    yield from zip(_aligned([titles, *rows]), styles, strict=True)


def _yes(value: bool | None) -> str:
    return {True: "yes", False: "no", None: ""}[value]


def _checks(checks: Sequence[Json]) -> Iterator[Line]:
    rows = [
        (
            item["severity"],
            "built in" if item["built_in"] else "spec",
            item["check"] + (f" on {', '.join(item['columns'])}" if item["columns"] else ""),
            item["wanted"],
        )
        for item in checks
    ]
    yield from ((text, "") for text in _aligned(rows))


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _section(title: str, lines: Iterator[Line] | Sequence[Line]) -> Iterator[Line]:
    found = list(lines)
    if found:
        yield "", ""
        yield title, "bold"
        yield from ((f"  {text}", style) for text, style in found)


def _flat(text: str) -> str:
    return " ".join(text.split())
