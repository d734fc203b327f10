"""The GoogleSQL of the snapshot: which rows are frozen, the hash of their keys and the rules that reject them."""

import datetime as dt
from collections.abc import Mapping, Sequence

from nightscore.row_rules import rejected_by
from nightscore.spec import Spec

PARTITION_TYPES = ("DATE", "DATETIME", "TIMESTAMP")


def frozen_select(
    spec: Spec, columns: Mapping[str, str], partition_type: str, snapshot_time: dt.datetime | None
) -> str:
    """Return the SELECT that freezing runs, with the parameters `@partition` and, for a table, `@snapshot_time`.

    Args:
        spec: the pipeline.
        columns: name → GoogleSQL type of the columns to freeze.
        partition_type: GoogleSQL type of the partition column in the source.
        snapshot_time: the pinned time, or None for a query.
    """
    partition = spec.features.partition
    names = [f"DATE(`{name}`) AS `{name}`" if name.lower() == partition.lower() else f"`{name}`" for name in columns]
    if spec.features.table:
        pinned = " FOR SYSTEM_TIME AS OF @snapshot_time" if snapshot_time is not None else ""
        source = f"`{spec.features.table}`{pinned}"
    else:
        source = f"(\n{spec.features.query}\n)"
    return (
        f"SELECT {', '.join(names)},\n"
        f"  {key_hash(spec.features.keys)} AS _key_hash,\n"
        f"  {rejected_by(spec.features.rules)} AS _rejected_by\n"
        f"FROM {source}\n"
        f"WHERE {where_partition(partition, partition_type)}"
    )


def key_hash(keys: Sequence[str]) -> str:
    """Return GoogleSQL for 60 bits of MD5 of the keys, as INT64 ≥ 0.

    Each key is preceded by its length, so that ('a', 'bc') and ('ab', 'c') differ. FARM_FINGERPRINT would be shorter,
    but local servers take a minute per million rows for it.

    >>> key_hash(["id"])[:60]
    "CAST(CONCAT('0x', SUBSTR(TO_HEX(MD5(CONCAT(CAST(LENGTH(CAST("
    """
    parts = [f"CAST(LENGTH(CAST(`{k}` AS STRING)) AS STRING), ':', CAST(`{k}` AS STRING)" for k in keys]
    return f"CAST(CONCAT('0x', SUBSTR(TO_HEX(MD5(CONCAT({', '.join(parts)}))), 1, 15)) AS INT64)"


def where_partition(column: str, kind: str) -> str:
    """Return the condition that picks the rows of `@partition`, in a form that lets BigQuery prune the other days.

    >>> where_partition("d", "DATE")
    '`d` = @partition'
    """
    if kind == "DATE":
        return f"`{column}` = @partition"
    return f"`{column}` >= {kind}(@partition) AND `{column}` < {kind}(DATE_ADD(@partition, INTERVAL 1 DAY))"
