"""Opening the database: any URL or file name in, an engine with the present schema out."""

import sqlite3
import time
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor

from db.errors import DatabaseError, place
from db.schema import bring_up_to_date

SUPPORTED = ("sqlite", "postgresql")
EXAMPLES = "write findings.db or postgresql://user@host/name"

BUSY_SECONDS = 30
CONNECT_SECONDS = 10
ANSWER_SECONDS = 20
WAIT_SECONDS = 0.5


def open_database(url: str) -> Engine:
    """The engine for a URL or the name of an SQLite file, its schema made or brought up to date. One per process."""
    engine = _make_engine(_parse(url))
    try:
        bring_up_to_date(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def open_when_up(url: str, seconds: float) -> Engine:
    """The same, waiting up to some seconds for a server that does not answer yet or has nothing ready."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return open_database(url)
        except DatabaseError as error:
            # A URL that is wrong stays wrong; only what a driver said can change.
            if not isinstance(error.__cause__, exc.DBAPIError) or time.monotonic() > deadline:
                raise
            time.sleep(WAIT_SECONDS)


def _parse(text: str) -> URL:
    if "://" not in text:
        if not text:
            raise DatabaseError(f"database: the name is empty; {EXAMPLES}")
        return URL.create("sqlite", database=text)

    scheme = text.partition("://")[0]
    try:
        url = make_url(text)
    except (exc.ArgumentError, ValueError):
        # The text is not repeated: there may be a password in it.
        raise DatabaseError(f"{scheme}://...: not a database URL; {EXAMPLES}") from None
    if url.get_backend_name() not in SUPPORTED:
        raise DatabaseError(f"{scheme}://...: databases of this kind are not supported; {EXAMPLES}")
    return url


def _make_engine(url: URL) -> Engine:
    try:
        # A server that was restarted between two slices costs one round trip, not a slice.
        engine = create_engine(_with_timeout(url), pool_pre_ping=True)
    except exc.NoSuchModuleError:
        raise DatabaseError(f"{place(url)}: there is no driver {url.drivername}; {EXAMPLES}") from None
    except ModuleNotFoundError as missing:
        raise DatabaseError(f"{place(url)}: the driver {missing.name} is not installed; pip install {missing.name}") from None
    if engine.dialect.is_async:
        raise DatabaseError(f"{place(url)}: {url.drivername} is an asynchronous driver; {EXAMPLES}")
    if url.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _with_timeout(url: URL) -> URL:
    # Without them, a host that swallows packets holds the program for minutes: the first is for new connections, the other for old ones.
    limits = {"connect_timeout": str(CONNECT_SECONDS), "tcp_user_timeout": str(ANSWER_SECONDS * 1000)}
    missing = {name: value for name, value in limits.items() if name not in url.query}
    return url.update_query_dict(missing) if url.get_backend_name() == "postgresql" else url


def _prepare_sqlite(connection: DBAPIConnection, _record: Any) -> None:
    # The driver would begin by itself, too late and not for DDL: `_begin_sqlite` does it.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000}")
    _switch_to_wal(cursor)
    cursor.close()


def _switch_to_wal(cursor: DBAPICursor) -> None:
    # Two processes that make the same file at once: the busy timeout does not cover this one statement.
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    # A migration rebuilds tables others refer to. The pragma does nothing inside a transaction, so it stands before BEGIN.
    connection.exec_driver_sql(f"PRAGMA foreign_keys={'OFF' if options.get('migrating') else 'ON'}")
    # A transaction that reads first and writes later fails at once if somebody wrote in between; IMMEDIATE waits its turn.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("writes") else "BEGIN")
