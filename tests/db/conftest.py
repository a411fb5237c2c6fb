from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_schema import schema
from servers import Server
from sqlalchemy import Engine

from db.engine import open_database


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database."""
    if request.param == "sqlite":
        yield str(tmp_path / "findings.db")
        return
    server: Server = request.getfixturevalue("postgres")
    with schema(server.url) as url:
        yield url


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """An open database with nothing in it."""
    engine = open_database(url)
    yield engine
    engine.dispose()
