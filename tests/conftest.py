import shutil
from collections.abc import Iterator

import pytest
from servers import Server, postgres_server, redis_server


def _running(server: Server) -> Iterator[Server]:
    server.start()
    yield server
    server.stop()
    shutil.rmtree(server.folder)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A PostgreSQL for all tests of this process: each test works in a schema of its own."""
    yield from _running(postgres_server())


@pytest.fixture(scope="session")
def redis() -> Iterator[Server]:
    """A Redis for all tests of this process: each test begins by emptying it."""
    yield from _running(redis_server())
