"""The promises of the unit tier itself."""

import os
import socket
import warnings

import pytest
from pytest_socket import SocketBlockedError


def test_the_network_is_off() -> None:
    with pytest.warns(UserWarning, match="tried to use socket"), pytest.raises(SocketBlockedError):
        socket.create_connection(("127.0.0.1", 9))


def test_sockets_within_the_machine_are_on() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    theirs.close()


def test_the_environment_names_no_deployment() -> None:
    assert [name for name in os.environ if name.startswith("NIGHTSCORE_") or name.endswith("_EMULATOR_HOST")] == []


def test_a_warning_is_an_error() -> None:
    with pytest.raises(DeprecationWarning):
        warnings.warn("old", DeprecationWarning, stacklevel=1)


@pytest.mark.filterwarnings("ignore:old")
def test_a_test_may_say_otherwise() -> None:
    warnings.warn("old", DeprecationWarning, stacklevel=1)
