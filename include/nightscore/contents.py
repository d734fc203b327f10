"""What a table of predictions holds for a partition: whose rows, how many, and their checksum, by one scan."""

import datetime as dt
from dataclasses import dataclass

from nightscore.run import Run
from nightscore.scoring.checksum import Checksum, sql_sums, sql_value
from nightscore.snapshot_sql import key_hash


@dataclass(frozen=True)
class Held:
    """The rows of one run and model version; `scored_at` is when that run was planned."""

    run_id: str | None
    model_version: str | None
    scored_at: dt.datetime | None
    checksum: Checksum


@dataclass(frozen=True)
class Contents:
    """Everything that a partition of a table holds."""

    held: tuple[Held, ...] = ()

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(item.checksum.rows for item in self.held)

    def of(self, run: Run) -> "Contents":
        """Return what belongs to a run."""
        return Contents(tuple(item for item in self.held if item.run_id == run.plan.run_id))

    def beside(self, run: Run) -> "Contents":
        """Return what belongs to other runs."""
        return Contents(tuple(item for item in self.held if item.run_id != run.plan.run_id))

    def is_exactly(self, run: Run, expected: Checksum) -> bool:
        """Return whether there is nothing but a run's rows, all of them, by its model version, as they were scored."""
        return [(item.run_id, item.model_version, item.checksum) for item in self.held] == [
            (run.plan.run_id, run.plan.model.label, expected)
        ]

    def __str__(self) -> str:
        parts = [f"{item.checksum.rows:,} of {item.run_id} by {item.model_version}" for item in self.held[:3]]
        more = f" and {len(self.held) - 3} more" if len(self.held) > 3 else ""
        return f"{self.rows:,} rows ({', '.join(parts)}{more})" if parts else "no row"


def read_contents(run: Run, table: str, task: str) -> Contents:
    """Return what a table holds for the run's partition; nothing when there is no such table."""
    if run.warehouse.find_table(table) is None:
        return Contents()
    partition = run.spec.features.partition
    found = run.warehouse.query(
        f"SELECT run_id, model_version, MAX(scored_at) AS scored_at, COUNT(*) AS n, {sql_sums('key_hash', 'value')}\n"
        f"FROM (SELECT run_id, model_version, scored_at, {key_hash(run.spec.features.keys)} AS key_hash,\n"
        f"    {sql_value(task)} AS value\n"
        f"  FROM {run.warehouse.quoted(table)} WHERE `{partition}` = @partition)\n"
        "GROUP BY run_id, model_version ORDER BY run_id, model_version",
        {"partition": run.plan.partition},
        doing=f"looking at {run.plan.partition} of {table}",
        labels=run.plan.labels,
        max_bytes_billed=run.spec.limits.max_bytes_billed,
    )
    return Contents(
        tuple(
            Held(
                row["run_id"],
                row["model_version"],
                row["scored_at"],
                Checksum(int(row["n"]), int(row["modulo_prime"] or 0), int(row["modulo_power"] or 0)),
            )
            for row in found.rows
        )
    )
