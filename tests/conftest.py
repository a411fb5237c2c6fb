import shutil
from collections.abc import Iterator

import pytest
from postgres_schema import schema
from redis import Redis
from rq import Queue
from servers import Server, postgres_server, redis_server

from workers.queue import connect, queue


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


@pytest.fixture
def database(postgres: Server) -> Iterator[str]:
    """The URL of an empty database on a PostgreSQL server."""
    with schema(postgres.url) as url:
        yield url


@pytest.fixture
def connection(redis: Server) -> Iterator[Redis]:
    """An empty Redis."""
    connection = connect(redis.url)
    connection.flushall()
    yield connection
    connection.close()


@pytest.fixture
def slices(connection: Redis) -> Queue:
    """The queue of slices, empty."""
    return queue(connection)
