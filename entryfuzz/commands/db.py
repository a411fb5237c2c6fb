"""`entryfuzz db`."""

from __future__ import annotations

import click

from entryfuzz.commands.options import database_option


@click.group()
def db() -> None:
    """The database of results."""


@db.command()
@click.option("--wait", "seconds", type=click.FloatRange(min=0), default=60.0, show_default=True, help="Seconds to wait for its server.")
@database_option
def upgrade(seconds: float, database: str) -> None:
    """Make the tables, or bring them up to date; what is stored stays. Every other command does this as well."""
    from entryfuzz.cluster import upgrade_database
    from entryfuzz.output import note

    note(upgrade_database(database, seconds))
