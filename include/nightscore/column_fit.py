"""The source's columns against the model's signature, column by column: what a plan shows as a table."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from nightscore.registry.manifest import Input
from nightscore.registry.signature import FEEDS
from nightscore.registry.store import Version
from nightscore.row_rules import columns_of
from nightscore.snapshot_sql import PARTITION_TYPES
from nightscore.source import KEY_TYPES, SLICE_TYPES
from nightscore.spec import Spec
from nightscore.warehouse import Column

_TYPES = {"partition": PARTITION_TYPES, "key": KEY_TYPES, "slice": SLICE_TYPES}

Finding = Literal["ok", "missing", "wrong type", "may be NULL", "extra"]


@dataclass(frozen=True)
class ComparedColumn:
    """One column that is frozen, or that should be.

    Attributes:
        name: as the source spells it; where it is missing, as spec or model do.
        type: GoogleSQL type in the source; None where it is missing.
        nullable: whether the source allows NULL; None where it is missing.
        read_by: who needs it: `partition`, `key`, `model`, `check`, `rule`, `slice`, `challenger`.
        fitted_on: the type that the model was fitted on; None for a column that it does not read.
        takes_null: whether the model predicts a row in which it is NULL; None for a column that it does not read.
        finding: what to think of it.
    """

    name: str
    type: str | None
    nullable: bool | None
    read_by: tuple[str, ...]
    fitted_on: str | None
    takes_null: bool | None
    finding: Finding


def compare_columns(
    spec: Spec, version: Version | None, challengers: Iterable[Version], columns: Sequence[Column]
) -> tuple[ComparedColumn, ...]:
    """Return every column that a run freezes or misses: partition, keys, inputs in the model's order, all others.

    Args:
        spec: the pipeline.
        version: the model; None where it could not be resolved.
        challengers: the versions that score beside it.
        columns: the source's columns.
    """
    there = {column.name.lower(): column for column in columns}
    inputs = {} if version is None else {item.name.lower(): item for item in version.manifest.inputs}
    readers: dict[str, dict[str, None]] = {}
    spelt: dict[str, str] = {}
    for reader, name in _readers(spec, inputs, challengers):
        if reader == "rule" and name not in there:  # what a rule names is told by its text, and is BigQuery's to judge
            continue
        readers.setdefault(name.lower(), {})[reader] = None
        spelt.setdefault(name.lower(), name)
    return tuple(_compared(spelt[name], there.get(name), tuple(by), inputs.get(name)) for name, by in readers.items())


def _readers(spec: Spec, inputs: Mapping[str, Input], challengers: Iterable[Version]) -> Iterator[tuple[str, str]]:
    """Yield who reads which column."""
    yield "partition", spec.features.partition
    yield from (("key", name) for name in spec.features.keys)
    yield from (("model", item.name) for item in inputs.values())
    yield from (("check", name) for item in spec.checks.features for name in item.reads)
    yield from (("rule", name) for name in columns_of(spec.features.rules.values()))
    yield from (("slice", name) for name in spec.evidence.slices)
    yield from (("challenger", item.name) for version in challengers for item in version.manifest.inputs)


def _compared(name: str, column: Column | None, by: tuple[str, ...], item: Input | None) -> ComparedColumn:
    kind = None if column is None else f"ARRAY<{column.type}>" if column.mode == "REPEATED" else column.type
    nullable = None if column is None else column.mode == "NULLABLE"
    return ComparedColumn(
        name=name if column is None else column.name,
        type=kind,
        nullable=nullable,
        read_by=by,
        fitted_on=None if item is None else item.type,
        takes_null=None if item is None else item.nullable,
        finding=_finding(kind, by, item, nullable=bool(nullable)),
    )


def _finding(kind: str | None, by: tuple[str, ...], item: Input | None, *, nullable: bool) -> Finding:
    if kind is None:
        return "missing"
    allowed: list[tuple[str, ...]] = [FEEDS[item.type]] if item is not None else []
    allowed += [types for role, types in _TYPES.items() if role in by]
    if any(kind not in types for types in allowed):
        return "wrong type"
    if item is None:
        return "ok" if "partition" in by or "key" in by else "extra"
    return "ok" if item.nullable or not nullable else "may be NULL"
