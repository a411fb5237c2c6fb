import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine, create_engine, make_url, text

from db.engine import open_database

POSTGRES = os.environ.get("ENTRYFUZZ_TEST_POSTGRES")


@pytest.fixture(params=["sqlite", "postgresql"] if POSTGRES else ["sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database."""
    if request.param == "sqlite":
        yield str(tmp_path / "findings.db")
        return

    assert POSTGRES
    schema = f"entryfuzz_{uuid4().hex}"
    owner = create_engine(POSTGRES)
    with owner.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    # A time zone far from UTC shows a moment that is read in the wrong one.
    settings = {"options": f"-csearch_path={schema} -ctimezone=Asia/Tokyo"}
    yield make_url(POSTGRES).update_query_dict(settings).render_as_string(hide_password=False)
    with owner.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    owner.dispose()


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    """An open database with nothing in it."""
    engine = open_database(url)
    yield engine
    engine.dispose()
