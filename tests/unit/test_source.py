"""The source: what is said when there is nothing to score."""

import datetime as dt

import pytest

from nightscore.errors import GateRefusedError
from nightscore.source import EmptyPartitionError
from nightscore.spec import Spec

SPEC = Spec.model_validate(
    {
        "name": "credit_default",
        "features": {"table": "features.card_accounts", "partition": "snapshot_date", "keys": ["account_id"]},
        "model": {"name": "credit_default"},
        "predictions": {"table": "predictions.credit_default"},
    }
)


@pytest.mark.parametrize(
    ("latest", "there"),
    [
        ([], "Nor has any day 60 days around it."),
        ([dt.date(2026, 11, 18), dt.date(2026, 11, 17)], "The latest partitions are 2026-11-18, 2026-11-17."),
    ],
)
def test_an_empty_partition_says_which_are_there(latest: list[dt.date], there: str) -> None:
    error = EmptyPartitionError(SPEC, dt.date(2026, 11, 19), latest)
    assert isinstance(error, GateRefusedError)
    assert str(error) == (
        "credit_default: features.card_accounts has no row with snapshot_date = 2026-11-19. "
        f"{there} Nothing was published."
    )
