"""`entryfuzz nightly`: what happens by itself, night after night."""

from __future__ import annotations

from pathlib import Path

import click

from entryfuzz.commands.options import config_option, database_option, json_option


@click.group()
def nightly() -> None:
    """Show the timetable of a cluster and its runs, or run a job of it now. All times are UTC."""


@nightly.command("list")
@config_option
@database_option
@json_option
def list_(config: Path, database: str, as_json: bool) -> None:
    """List the jobs of the timetable: when each is due next, and how its last run went."""
    from entryfuzz.nightly import list_due
    from entryfuzz.output import print_json, print_view
    from entryfuzz.views import nightly as views

    rows = list_due(database, config)
    if as_json:
        print_json([views.timetable_json(row) for row in rows])
    else:
        print_view(views.timetable(rows))


@nightly.command("run")
@click.argument("name", metavar="NAME")
@config_option
@database_option
@json_option
def run(name: str, config: Path, database: str, as_json: bool) -> None:
    """Plan a job of the timetable now; the workers do it. It will still run when it is due."""
    from entryfuzz.nightly import run_now
    from entryfuzz.output import print_json
    from entryfuzz.views import nightly as views

    begun = run_now(database, config, name)
    if as_json:
        print_json(views.run_json(begun))
    else:
        click.echo(f"{name}: {begun.outcome or 'planned as campaign ' + ', '.join(map(str, begun.campaigns))}")


@nightly.command("history")
@click.option("--name", metavar="NAME", help="Only the runs of this job.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many, the newest.")
@database_option
@json_option
def history(name: str | None, limit: int, database: str, as_json: bool) -> None:
    """List the runs of the timetable, newest first."""
    from entryfuzz.nightly import history as found
    from entryfuzz.output import print_json, print_view
    from entryfuzz.views import nightly as views

    rows = found(database, name, limit)
    if as_json:
        print_json([views.run_json(row) for row in rows])
    else:
        print_view(views.runs(rows))
