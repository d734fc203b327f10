"""The model card: what is known of a version, for people. Rendered as tables on a terminal, or as Markdown."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from nightscore.errors import listed
from nightscore.markdown import plain
from nightscore.objects import Json
from nightscore.registry.aliases import Alias
from nightscore.registry.examination import Examined
from nightscore.registry.manifest import REFERENCE_FILE, Agreement, Input, Origin
from nightscore.registry.store import Version


@dataclass(frozen=True)
class Part:
    """One table of a card; without names of columns it is a list of facts."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Card:
    """A model card: its title and its tables."""

    title: str
    parts: tuple[Part, ...]


def card(version: Version, reference: Json | None, aliases: Iterable[Alias]) -> Card:
    """Return the card of a version.

    Args:
        version: the version.
        reference: its reference histograms, see `registry.reference`.
        aliases: the model's aliases.
    """
    manifest, label = version.manifest, version.label
    parts = [
        Part(label, ("", ""), tuple((name, value) for name, value in _facts(version, aliases) if value)),
        Part("metrics", ("", ""), tuple((name, f"{value:.6g}") for name, value in sorted(manifest.metrics.items()))),
        Part(
            "inputs",
            ("name", "type", "may be NULL", "in the sample"),
            tuple(_input(item, (reference or {}).get("features", {}).get(item.name)) for item in manifest.inputs),
        ),
    ]
    if reference is not None:
        parts.append(Part("predictions of the sample", ("", ""), (("distribution", _histogram(reference["score"])),)))
    return Card(label, tuple(part for part in parts if part.rows))


def examination_card(file: str, found: Examined) -> Card:
    """Return what an examination found of a file, as a card."""
    manifest = found.manifest
    reference = json.loads(found.files[REFERENCE_FILE])
    facts = {
        "estimator": f"{manifest.estimator} ({manifest.format})",
        "task": manifest.task,
        "classes": ", ".join(manifest.classes),
        "files": ", ".join(f"{name} ({part.size:,} bytes)" for name, part in sorted(manifest.files.items())),
        "tried on": f"{manifest.sample_rows:,} rows{_agreement(manifest.agreement)}",
        "speed": f"{found.rows_per_second:,.0f} rows/s in one thread",
        "libraries": ", ".join(f"{name} {number}" for name, number in sorted(manifest.libraries.items())),
        "creates": listed(manifest.types, most=40) or "nothing beyond what its format trusts",
    }
    inputs = tuple(_input(item, reference["features"].get(item.name)) for item in manifest.inputs)
    return Card(
        file,
        (
            Part(file, ("", ""), tuple((name, value) for name, value in facts.items() if value)),
            Part("inputs", ("name", "type", "may be NULL", "in the sample"), inputs),
            Part("predictions of the sample", ("", ""), (("distribution", _histogram(reference["score"])),)),
        ),
    )


def card_as_markdown(told: Card) -> str:
    """Return a card as Markdown: a heading, and a table for every part."""
    lines = [f"# {plain(told.title)}"]
    for part in told.parts:
        if part.title != told.title:
            lines += ["", f"## {plain(part.title)}"]
        lines += ["", _row(part.columns), "|---" * len(part.columns) + "|", *(_row(row) for row in part.rows)]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(plain(cell) for cell in cells) + " |"


def _facts(version: Version, aliases: Iterable[Alias]) -> Iterator[tuple[str, str]]:
    manifest = version.manifest
    yield "description", manifest.description
    yield "owner", manifest.owner
    yield "estimator", f"{manifest.estimator} ({manifest.format})"
    yield "task", manifest.task
    yield "classes", ", ".join(manifest.classes)
    yield "aliases", "; ".join(_alias(found) for found in aliases if found.version == manifest.version)
    yield "digest", version.digest
    yield "imported from", _origin(manifest.source)
    yield "training data", manifest.training_data
    yield "git revision", manifest.git_revision
    yield "registered", f"{manifest.created_at} by {manifest.created_by}"
    yield "tried on", f"{manifest.sample_rows:,} rows{_agreement(manifest.agreement)}"
    yield "libraries", ", ".join(f"{name} {number}" for name, number in sorted(manifest.libraries.items()))
    yield "creates", listed(manifest.types, most=12)
    yield "files", ", ".join(f"{name} ({file.size:,} bytes)" for name, file in sorted(manifest.files.items()))


def _origin(source: Origin | None) -> str:
    if source is None:
        return ""
    run = f", run {source.run_id}" if source.run_id else ""
    return f"{source} at {source.server}{run}, registered there {source.registered_at[:19]}"


def _alias(found: Alias) -> str:
    last = found.last or {}
    return f"{found.alias} since {last.get('at')}, by {last.get('by')}: {last.get('reason')}"


def _agreement(found: Agreement | None) -> str:
    if found is None:
        return ""
    whose = "the file's own" if found.original == "file" else f"the sample's {found.original}"
    if not found.differing:
        return f"; predicts the same bits as {whose}"
    return (
        f"; {found.differing:,} rows differ from {whose}, by {found.mean:.2g} on average, {found.largest:.2g} at most "
        f"(allowed: {found.tolerance:g})"
    )


def _input(item: Input, histogram: Json | None) -> tuple[str, str, str, str]:
    return item.name, item.type, "yes" if item.nullable else "no", _histogram(histogram) if histogram else ""


def _histogram(found: Json) -> str:
    """Return a histogram in a few words: quantiles of numbers, the most frequent labels, the share that is missing."""
    if found["kind"] == "number":
        known = sum(found["counts"])
        shown = _quantiles(found) if known else "no value"
    else:
        known = sum(found["labels"].values()) + found["other"]
        frequent = sorted(found["labels"].items(), key=lambda item: -item[1])[:4]
        named = [f"{label} {count / known:.0%}" for label, count in frequent]
        rest = len(found["labels"]) - len(named)
        shown = ", ".join(named) + (f" and {rest} more" if rest else "") if named else f"{known:,} rare labels"
    missing = found["missing"] / max(known + found["missing"], 1)
    return f"{shown}; {missing:.1%} missing" if missing else shown


def _quantiles(found: Json) -> str:
    """Return which share of the numbers lies below the edges that are nearest to a tenth, half and nine tenths.

    >>> _quantiles({"edges": [2.0, 5.0], "counts": [4, 5, 1]})
    '40% below 2, 90% below 5'
    """
    if not found["edges"]:
        return "too few for quantiles"
    below = list(accumulate(found["counts"][:-1]))
    total = below[-1] + found["counts"][-1]
    shares = [count / total for count in below]
    at = range(len(shares))
    nearest = {min((abs(shares[index] - wanted), index) for index in at)[1] for wanted in (0.1, 0.5, 0.9)}
    return ", ".join(f"{shares[index]:.0%} below {found['edges'][index]:.4g}" for index in sorted(nearest))
