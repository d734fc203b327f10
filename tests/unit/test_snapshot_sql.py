"""The SQL that freezes, as people would read it."""

import datetime as dt
from typing import Any

import pytest

from nightscore.row_rules import rejected_by
from nightscore.snapshot_sql import PARTITION_TYPES, frozen_select, key_hash, where_partition
from nightscore.spec import Spec

NOW = dt.datetime(2026, 11, 20, 2, tzinfo=dt.UTC)


def spec(**features: Any) -> Spec:
    return Spec.model_validate(
        {
            "name": "credit_default",
            "features": {"partition": "snapshot_date", "keys": ["account_id"], **features},
            "model": {"name": "credit_default"},
            "predictions": {"table": "predictions.credit_default"},
        }
    )


def test_the_hash_of_one_key() -> None:
    assert key_hash(["id"]) == (
        "CAST(CONCAT('0x', SUBSTR(TO_HEX(MD5(CONCAT("
        "CAST(LENGTH(CAST(`id` AS STRING)) AS STRING), ':', CAST(`id` AS STRING)"
        "))), 1, 15)) AS INT64)"
    )


def test_the_hash_of_two_keys_tells_where_one_ends() -> None:
    assert key_hash(["a", "b"]) == (
        "CAST(CONCAT('0x', SUBSTR(TO_HEX(MD5(CONCAT("
        "CAST(LENGTH(CAST(`a` AS STRING)) AS STRING), ':', CAST(`a` AS STRING), "
        "CAST(LENGTH(CAST(`b` AS STRING)) AS STRING), ':', CAST(`b` AS STRING)"
        "))), 1, 15)) AS INT64)"
    )


WHERE = {
    "DATE": "`d` = @partition",
    "DATETIME": "`d` >= DATETIME(@partition) AND `d` < DATETIME(DATE_ADD(@partition, INTERVAL 1 DAY))",
    "TIMESTAMP": "`d` >= TIMESTAMP(@partition) AND `d` < TIMESTAMP(DATE_ADD(@partition, INTERVAL 1 DAY))",
}


@pytest.mark.parametrize("kind", PARTITION_TYPES)
def test_the_partition_is_a_range_that_can_be_pruned(kind: str) -> None:
    assert where_partition("d", kind) == WHERE[kind]


TABLE = """\
SELECT `account_id`, DATE(`Snapshot_Date`) AS `Snapshot_Date`, `age`,
  {hash} AS _key_hash,
  {rules} AS _rejected_by
FROM `features.card_accounts` FOR SYSTEM_TIME AS OF @snapshot_time
WHERE `snapshot_date` >= TIMESTAMP(@partition) AND `snapshot_date` < \
TIMESTAMP(DATE_ADD(@partition, INTERVAL 1 DAY))"""

QUERY = """\
SELECT `account_id`, DATE(`snapshot_date`) AS `snapshot_date`,
  {hash} AS _key_hash,
  CAST(NULL AS STRING) AS _rejected_by
FROM (
SELECT * FROM features.card_accounts -- all of them
)
WHERE `snapshot_date` = @partition"""


def test_freezing_a_table_pins_its_time() -> None:
    rules = {"too_old": "age > 110"}
    columns = {"account_id": "INT64", "Snapshot_Date": "DATE", "age": "INT64"}
    made = frozen_select(spec(table="features.card_accounts", reject=rules), columns, "TIMESTAMP", NOW)
    assert made == TABLE.format(hash=key_hash(["account_id"]), rules=rejected_by(rules))


def test_freezing_a_query_puts_it_in_brackets() -> None:
    query = "SELECT * FROM features.card_accounts -- all of them"
    columns = {"account_id": "INT64", "snapshot_date": "DATE"}
    made = frozen_select(spec(sql="features.sql", query=query), columns, "DATE", None)
    assert made == QUERY.format(hash=key_hash(["account_id"]))


def test_without_a_time_a_table_is_read_as_it_is() -> None:
    made = frozen_select(spec(table="features.card_accounts"), {"account_id": "INT64"}, "DATE", None)
    assert "FROM `features.card_accounts`\nWHERE" in made
