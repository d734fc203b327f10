"""The fixtures of everything that disturbs runs; a folder's conftest imports them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from faults.network import Network
from faults.nights import Nights
from nightscore.local.servers import LocalServers
from nightscore.settings import Settings


@pytest.fixture(scope="module")
def network(settings: Settings) -> Iterator[Network]:
    """Proxies before the local servers."""
    made = Network(settings)
    yield made
    made.close()


@pytest.fixture(scope="module")
def nights(
    request: pytest.FixtureRequest,
    new_bench: Callable[[Path], Any],
    local_servers: LocalServers,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Nights]:
    """A pipeline with as many partitions as the module's DAYS, each of its ROWS if it says so."""
    bench = new_bench(tmp_path_factory.mktemp("nights"))
    rows = getattr(request.module, "ROWS", 300)
    made = Nights(bench, local_servers.environment(), request.module.DAYS, rows)
    made.publish_old()
    yield made
    made.close()
