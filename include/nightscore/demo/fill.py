"""Filling the warehouse with nights of the invented portfolio: those that are not there yet, and no others."""

import datetime as dt
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from nightscore.demo import portfolio
from nightscore.loading.tables import load_files
from nightscore.progress import Tell, log
from nightscore.run import Services
from nightscore.warehouse import Column, Warehouse, translated

if TYPE_CHECKING:
    import pyarrow as pa

FEATURES_TABLE = "features.card_accounts"
OUTCOMES_TABLE = "outcomes.card_defaults"
NIGHTS = 35
ACCOUNTS = 20_000
ROWS_AT_ONCE = 4_000_000  # of one statement; bounds the disk that the nights wait on


@dataclass(frozen=True)
class FillReport:
    """What was written.

    Attributes:
        nights: the nights of features that were not there before.
        outcome_nights: the nights whose outcomes were not there before.
        rows: how many rows were written in all.
    """

    nights: tuple[dt.date, ...]
    outcome_nights: tuple[dt.date, ...]
    rows: int


def fill(
    services: Services,
    *,
    last: dt.date,
    nights: int = NIGHTS,
    accounts: int = ACCOUNTS,
    seed: int = portfolio.SEED,
    progress: Tell = log.info,
) -> FillReport:
    """Write the features of the nights up to `last`, and the outcomes of all of them but the last one.

    What happens after the last night is not known on that night; the next call with a later date adds it. Nights that
    are there are left as they are, whatever they hold.
    """
    wanted = [last - dt.timedelta(days=back) for back in reversed(range(nights))]
    tables = (
        (FEATURES_TABLE, portfolio.FEATURE_COLUMNS, portfolio.night_of, wanted),
        (OUTCOMES_TABLE, portfolio.OUTCOME_COLUMNS, portfolio.outcomes_of, wanted[:-1]),
    )
    written: list[tuple[dt.date, ...]] = []
    rows = 0
    for table, columns, make, dates in tables:
        _ensure_table(services.warehouse, table, columns)
        there = _nights_of(services.warehouse, table)
        missing = tuple(date for date in dates if date not in there)
        if not missing:
            progress(f"{table} holds the {len(dates)} nights up to {max(dates, default=last)} already.")
        for group in _groups(missing, max(1, ROWS_AT_ONCE // accounts)):
            progress(f"Writing {len(group)} nights of {accounts:,} accounts to {table}: {group[0]} to {group[-1]}.")
            rows += _write(services.warehouse, table, (make(date, accounts, seed) for date in group))
        written.append(missing)
    return FillReport(nights=written[0], outcome_nights=written[1], rows=rows)


def _write(warehouse: Warehouse, table: str, nights: "Iterable[pa.Table]") -> int:
    """Write nights in one statement; return the number of rows."""
    from pyarrow import parquet

    with tempfile.TemporaryDirectory() as folder:
        files: list[Path] = []
        for rows in nights:
            files.append(Path(folder) / f"{len(files)}.parquet")
            parquet.write_table(rows, files[-1], compression="lz4")
        return load_files(warehouse, table, files, partition=portfolio.PARTITION, progress=log.debug).rows


def _ensure_table(warehouse: Warehouse, table: str, columns: Sequence[Column]) -> None:
    """Create the table, with its descriptions, where there is none."""
    from google.cloud import bigquery

    full = warehouse.full_name(table)
    warehouse.create_dataset(full.rsplit(".", 1)[0], "Invented data of nightscore's demonstration.")
    wanted = bigquery.Table(full, schema=[column.to_api() for column in columns])
    wanted.time_partitioning = bigquery.TimePartitioning(bigquery.TimePartitioningType.DAY, field=portfolio.PARTITION)
    wanted.clustering_fields = [portfolio.KEY]
    wanted.description = "Card accounts that nobody has: invented by `nightscore demo`, a night at a time."
    with translated(f"creating {table}"):
        warehouse.client.create_table(wanted, exists_ok=True)


def _nights_of(warehouse: Warehouse, table: str) -> set[dt.date]:
    found = warehouse.query(
        f"SELECT DISTINCT {portfolio.PARTITION} AS night FROM {warehouse.quoted(table)}",
        doing=f"looking which nights {table} holds",
    )
    return {row["night"] for row in found.rows}


def _groups(dates: Iterable[dt.date], size: int) -> Iterator[list[dt.date]]:
    left = iter(dates)
    while group := list(islice(left, size)):
        yield group
