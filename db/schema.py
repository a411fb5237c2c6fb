"""Bringing the schema up to date, without loading Alembic when there is nothing to do."""

from sqlalchemy import Connection, Engine, inspect, text

from db.errors import DatabaseError, place
from db.migrations import HEAD, REVISIONS
from db.transactions import reading, writing
from db.views import create_views, drop_views

# Any number will do, as long as nothing else in the same PostgreSQL database uses it ("entryfuz").
MIGRATION_LOCK = int.from_bytes(b"entryfuz")


def bring_up_to_date(engine: Engine) -> None:
    """Leave the schema at this program's revision, or raise DatabaseError; safe in many processes at once."""
    with reading(engine) as connection:
        if _revision(connection) == HEAD:
            return

    with writing(engine, migrating=True) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
        # Asked again, now that nobody else can be migrating.
        if _revision(connection) != HEAD:
            _upgrade(connection)


def _revision(connection: Connection) -> str | None:
    """The revision the database is at, None for an empty one."""
    here = place(connection.engine.url)
    if not inspect(connection).has_table("alembic_version"):
        if inspect(connection).get_table_names():
            raise DatabaseError(f"{here}: holds the tables of another program; name a new file or an empty database")
        return None

    revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if revision is not None and revision not in REVISIONS:
        raise DatabaseError(f"{here}: its schema {revision} is newer than this program's {HEAD}; update entryfuzz")
    return revision


def _upgrade(connection: Connection) -> None:
    # Imported here: it doubles the time the program takes to start.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "db:migrations")
    config.attributes["connection"] = connection
    drop_views(connection)
    command.upgrade(config, "head")
    create_views(connection)
