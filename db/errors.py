"""What went wrong with the database, in one line for the person who named it."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL, exc

# What the driver says, and what a person can do about it. The first that fits is used.
WAYS_OUT = (
    ("file is not a database", "name another file, or a new one"),
    ("malformed", "restore a copy: the file is damaged"),
    ("unable to open database file", "check that the folder exists and can be written"),
    ("readonly", "make the file and its folder writable"),
    ("is locked", "another process is writing; try again"),
    ("disk is full", "free some space and try again"),
    ("disk I/O error", "check the disk"),
    ("deadlock", "try again"),
    ("password", "check the user and the password in the URL"),
    ("permission denied", "grant this user CREATE on the schema"),
    ("no schema", "create the schema, or correct the search_path"),
    ("does not exist", "create it, or correct the URL"),
)
OTHERWISE = "check that the server runs and that the URL is right"

# PostgreSQL calls these errors in the program: no permission on the schema, and no schema of this name.
OUTSIDE_STATES = frozenset({"42501", "3F000"})


class DatabaseError(Exception):
    """The database cannot be used as asked: one line with the thing, the place and the way out."""


@contextmanager
def explained(url: URL) -> Iterator[None]:
    """Turn a failure of the database's surroundings into a DatabaseError; a bug of ours passes unchanged."""
    try:
        yield
    except exc.DBAPIError as error:
        if not _is_from_outside(error):
            raise
        raise DatabaseError(_one_line(url, error)) from error


def place(url: URL) -> str:
    """How a person would name this database: the file, or the URL without its password."""
    if url.get_backend_name() == "sqlite":
        return url.database or "in-memory database"
    # The query can hold a password as well (`?password=`).
    return url.set(query={}).render_as_string(hide_password=True)


def _is_from_outside(error: exc.DBAPIError) -> bool:
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        # SQLite calls wrong SQL and a full disk the same class of error. The low byte tells them apart.
        return code & 0xFF not in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH)
    if getattr(error.orig, "sqlstate", None) in OUTSIDE_STATES:
        return True
    return isinstance(error, exc.OperationalError | exc.InterfaceError)


def _one_line(url: URL, error: exc.DBAPIError) -> str:
    said = (str(error.orig).strip() or type(error.orig).__name__).splitlines()[0]
    way_out = next((way for fragment, way in WAYS_OUT if fragment in said), OTHERWISE)
    return f"{place(url)}: {said}; {way_out}"
