"""The unit tier: no network and none of the machine's settings. Collected cases are data beside the tests."""

import os
from pathlib import Path

import pytest
from pytest_socket import disable_socket, enable_socket

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Make every warning an error in this folder, unless a test says otherwise."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("error"), append=False)


@pytest.fixture(autouse=True)
def _no_network():
    """Refuse every socket but those within the machine, which event loops are made of."""
    disable_socket(allow_unix_socket=True)
    yield
    enable_socket()


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide what a developer's shell says about projects, buckets and local servers."""
    for name in os.environ:
        if name.startswith("NIGHTSCORE_") or name.endswith("_EMULATOR_HOST"):
            monkeypatch.delenv(name)
