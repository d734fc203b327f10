"""The assessment: may a run of this partition begin, and if not, for which reasons?

`nightscore plan` shows it; `nightscore.plan` asks for it before it decides a run. It bills nothing but the counting of
two partitions, and writes nothing but the import of another registry's model.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nightscore.challengers import choose_challengers
from nightscore.column_fit import ComparedColumn, compare_columns
from nightscore.errors import ConfigurationError, GateRefusedError, NightscoreError
from nightscore.prediction_schema import prediction_columns, require_checked_columns, require_table_fits
from nightscore.registry.signature import SignatureError
from nightscore.registry.store import Registry, Version
from nightscore.source import ColumnError, Reasons, Source, look_at_source, source_columns
from nightscore.spec import ModelReference, Spec
from nightscore.warehouse import Warehouse

MOST_REASONS = 8


class BlockedError(GateRefusedError):
    """A run must not begin, for several reasons that all lie in the data."""


class MisfitError(ConfigurationError):
    """A run must not begin, for several reasons, of which one at least lies in the spec, the model or a table."""


@dataclass(frozen=True)
class Target:
    """The partition of the predictions table that a publication will replace.

    Attributes:
        exists: whether there is such a table.
        rows: rows of the partition; None where the table does not fit.
        live_since: when what is published was planned.
    """

    exists: bool = False
    rows: int | None = 0
    live_since: dt.datetime | None = None


@dataclass(frozen=True)
class Assessment:
    """What a run would find.

    Attributes:
        spec: the spec as it was asked for.
        partition: the scoring date.
        requested: the model as it was asked for.
        version: the version that it means; None when there is none.
        challengers: challenger as asked → version, of those that take part.
        left_out: challenger as asked → a sentence why it does not.
        columns: what is frozen, against the model's signature.
        source: what freezing will find; None where faults keep that from being told.
        target: what a publication will replace.
        reasons: why the run must not begin; none when it may.
        library_warnings: how the libraries installed here differ, harmlessly, from those of the models' registration.
    """

    spec: Spec
    partition: dt.date
    requested: ModelReference
    version: Version | None
    challengers: dict[str, Version]
    left_out: dict[str, str]
    columns: tuple[ComparedColumn, ...]
    source: Source | None
    target: Target
    reasons: tuple[NightscoreError, ...]
    library_warnings: tuple[str, ...] = ()

    @property
    def bytes(self) -> int | None:
        """What freezing will bill; None where columns are missing, which would make it less than it is."""
        is_partial = self.version is None or any(isinstance(r, (SignatureError, ColumnError)) for r in self.reasons)
        return None if self.source is None or is_partial else self.source.bytes

    def with_reasons(self, more: Sequence[NightscoreError]) -> "Assessment":
        """Return the same with further reasons."""
        return replace(self, reasons=(*self.reasons, *more))

    def require_ready(self) -> tuple[Version, Source]:
        """Return the model and the source of a run that may begin.

        Raises:
            GateRefusedError: it must not, because of the data.
            ConfigurationError: it must not, because of the spec, the model or a table.
        """
        if self.version is None or self.source is None or self.reasons:
            raise self._refusal()
        return self.version, self.source

    def _refusal(self) -> NightscoreError:
        if len(self.reasons) == 1:
            return self.reasons[0]
        shown = "\n".join(f"  - {reason}" for reason in self.reasons[:MOST_REASONS])
        more = f"\n  … and {len(self.reasons) - MOST_REASONS} more" if len(self.reasons) > MOST_REASONS else ""
        is_misfit = any(isinstance(reason, ConfigurationError) for reason in self.reasons)
        return (MisfitError if is_misfit else BlockedError)(
            f"{self.spec.name}: {self.partition} cannot be scored, for {len(self.reasons)} reasons:\n{shown}{more}"
        )


def assess(
    spec: Spec,
    partition: dt.date,
    warehouse: Warehouse,
    registry: Registry,
    *,
    model: ModelReference | None = None,
) -> Assessment:
    """Look at everything that a run depends on, and collect every reason why it must not begin.

    Args:
        spec: the pipeline.
        partition: the scoring date.
        warehouse: where the rows are.
        registry: where the models are.
        model: another model than the spec's.

    Raises:
        TransientError: a server failed; that is no reason, and there is no assessment.
    """
    reasons = Reasons()
    requested = model or spec.model
    version = reasons.collect(lambda: registry.resolve(requested))
    versions: dict[str, Version] = {}
    left_out: dict[str, str] = {}
    warnings: list[str] = []
    if version is not None:
        found = version
        warnings += reasons.collect(found.require_libraries) or ()
        reasons.collect(lambda: registry.require_signed(found))
        chosen = choose_challengers(spec.model, version, registry)
        versions, left_out = chosen.versions, chosen.left_out
        warnings += (warning for other in versions.values() for warning in other.require_libraries())
    columns = reasons.collect(lambda: source_columns(spec, warehouse)) or ()
    source = None
    if columns:
        source = reasons.collect(
            lambda: look_at_source(spec, partition, version, columns, warehouse, versions, reasons)
        )
        left_out = {**left_out, **(source.left_out if source else {})}
    target = reasons.collect(lambda: _target(spec, partition, version, source, warehouse)) or Target(True, None)
    taking_part = {asked: found for asked, found in versions.items() if asked not in left_out}
    return Assessment(
        spec=spec,
        partition=partition,
        requested=requested,
        version=version,
        challengers=taking_part,
        left_out=left_out,
        columns=compare_columns(spec, version, taking_part.values(), columns) if columns else (),
        source=source,
        target=target,
        reasons=tuple(reasons),
        library_warnings=tuple(warnings),
    )


def _target(
    spec: Spec, partition: dt.date, version: Version | None, source: Source | None, warehouse: Warehouse
) -> Target:
    """Return what a publication will replace.

    Raises:
        PredictionsTableError: the table exists and cannot hold the predictions.
        PredictionColumnError: a check is about a column that predictions do not have.
    """
    found = warehouse.find_table(spec.predictions.table)
    if version is None or source is None:
        return Target() if found is None else Target(exists=True, rows=None)
    keys = {key: source.columns[key] for key in source.spec.features.keys}
    column = source.spec.features.partition
    wanted = prediction_columns(version.manifest.name, keys, column, version.manifest.task)
    require_checked_columns(source.spec, wanted)
    if found is None:
        return Target()
    require_table_fits(source.spec, found, wanted)
    [row] = warehouse.query(
        f"SELECT COUNT(*) AS n, MAX(scored_at) AS latest FROM {warehouse.quoted(spec.predictions.table)} "
        f"WHERE `{column}` = @partition",
        {"partition": partition},
        doing=f"counting the published rows of {spec.predictions.table}",
    ).rows
    return Target(exists=True, rows=int(row["n"]), live_since=row["latest"])
