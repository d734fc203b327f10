"""The local servers, started once for all integration tests."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench import Bench
from nightscore.local import servers
from nightscore.local.servers import LocalServers
from nightscore.run import Services, build_services
from nightscore.settings import LOCAL_DIR, Settings, read_settings

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def bigquery_environment_path() -> Path:
    """The BigQuery server's environment: the checkout's own, created by whoever needs it first."""
    return REPOSITORY / LOCAL_DIR / "bigquery-env"


@pytest.fixture(scope="session")
def local_servers(tmp_path_factory: pytest.TempPathFactory, bigquery_environment_path: Path) -> Iterator[LocalServers]:
    """Both servers, with data of their own."""
    root = tmp_path_factory.mktemp("local-servers")
    try:
        yield servers.up(root, environment=bigquery_environment_path)
    finally:
        servers.down(root)


@pytest.fixture(scope="session")
def settings(local_servers: LocalServers) -> Settings:
    """Settings that point at the local servers."""
    return read_settings(local_servers.environment())


@pytest.fixture(scope="session")
def services(settings: Settings) -> Services:
    """The local warehouse, bucket and registry."""
    return build_services(settings)


@pytest.fixture(scope="session")
def new_bench(services: Services) -> Callable[[Path], Bench]:
    """Makes benches for fixtures that live longer than a test."""
    return lambda folder: Bench(services, folder, f"t{uuid.uuid4().hex[:10]}")


@pytest.fixture
def bench(new_bench: Callable[[Path], Bench], tmp_path: Path) -> Bench:
    """A dataset, a model name and a pipeline name that no other test uses."""
    return new_bench(tmp_path)
