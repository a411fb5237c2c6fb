"""A place of its own in a PostgreSQL for one test."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from sqlalchemy import NullPool, create_engine, make_url, text


@contextmanager
def schema(server: str) -> Iterator[str]:
    """The URL of an empty schema; it is gone afterwards."""
    name = f"entryfuzz_{uuid4().hex}"
    # A server may be started again meanwhile: no connection is kept.
    owner = create_engine(server, poolclass=NullPool)
    with owner.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {name}"))
    # A time zone far from UTC shows a moment that is read in the wrong one.
    settings = {"options": f"-csearch_path={name} -ctimezone=Asia/Tokyo"}
    yield make_url(server).update_query_dict(settings).render_as_string(hide_password=False)
    with owner.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {name} CASCADE"))
    owner.dispose()
