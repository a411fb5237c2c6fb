"""Opening the database for commands that only read: what does not exist is a mistake, not a new file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from entryfuzz.errors import Mistake

if TYPE_CHECKING:
    from sqlalchemy import Engine

_SQLITE = "sqlite:///"


@contextmanager
def opened(url: str) -> Iterator[Engine]:
    """The engine of an existing database, closed afterwards."""
    from db.engine import open_database

    file = url.removeprefix(_SQLITE)
    if file and "://" not in file and not Path(file).exists():
        raise Mistake(f"{file}: there is no such database; run entryfuzz fuzz --db {url}, or name another with --db")
    engine = open_database(url)
    try:
        yield engine
    finally:
        engine.dispose()
