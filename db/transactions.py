"""The two ways to touch the database: reading and writing, one transaction each."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine

from db.errors import explained


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection to read with; nothing it does is kept."""
    with explained(engine.url), engine.connect() as connection:
        yield connection


@contextmanager
def writing(engine: Engine, *, migrating: bool = False) -> Iterator[Connection]:
    """One transaction that writes: all of it is kept at the end, or none of it on an exception."""
    with explained(engine.url), engine.connect() as connection:
        connection.execution_options(writes=True, migrating=migrating)
        with connection.begin():
            yield connection
