from collections.abc import Iterator

import pytest
from postgres_schema import schema
from redis import Redis
from rq import Queue
from servers import Server
from sqlalchemy import Engine

from db.engine import open_database
from workers.queue import connect, queue


@pytest.fixture
def database(postgres: Server) -> Iterator[str]:
    """The URL of an empty database on a PostgreSQL server."""
    with schema(postgres.url) as url:
        yield url


@pytest.fixture
def engine(database: str) -> Iterator[Engine]:
    engine = open_database(database)
    yield engine
    engine.dispose()


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
