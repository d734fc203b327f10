"""Telling a passing failure of BigQuery from a lasting one."""

import pytest
from google.api_core import exceptions
from google.auth.exceptions import RefreshError, TransportError

from nightscore.warehouse import ConflictingStatementError, StatementError, WarehouseError, translated


def reason(name):
    return [{"reason": name, "message": "no more"}]


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (exceptions.ServiceUnavailable("away"), WarehouseError),
        (exceptions.TooManyRequests("slower"), WarehouseError),
        (exceptions.Aborted("once more"), WarehouseError),
        (exceptions.Forbidden("no more", errors=reason("rateLimitExceeded")), WarehouseError),
        (exceptions.Forbidden("no more", errors=reason("quotaExceeded")), WarehouseError),
        (exceptions.Forbidden("not you", errors=reason("accessDenied")), StatementError),
        (exceptions.BadRequest("syntax", errors=reason("invalidQuery")), StatementError),
        (exceptions.InternalServerError("dear", errors=reason("bytesBilledLimitExceeded")), StatementError),
        (exceptions.InternalServerError("oops", errors=reason("backendError")), WarehouseError),
        (exceptions.NotFound("gone"), StatementError),
        (
            exceptions.BadRequest("Could not serialize access to table t", errors=reason("invalidQuery")),
            ConflictingStatementError,
        ),
        (TransportError("no name server"), WarehouseError),
        (RefreshError("no token", retryable=True), WarehouseError),
        (RefreshError("no token"), StatementError),
        (ConnectionResetError("reset"), WarehouseError),
    ],
)
def test_translated(raised, expected):
    with pytest.raises((WarehouseError, StatementError)) as error, translated("testing"):
        raise raised
    assert type(error.value) is expected
    assert "while testing" in str(error.value)
    assert error.value.__cause__ is raised
