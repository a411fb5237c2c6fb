"""`entryfuzz divergences`: what the database holds."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from entryfuzz.commands.options import AREA, CORE, KIND, PROFILE, TARGET, VERDICT, database_option, json_option

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGO = re.compile(r"(\d{1,6})([mhdw])")


class Moment(click.ParamType[datetime]):
    """A date, a time, or how long ago: `2026-01-31`, `2026-01-31T12:00`, `12h`, `7d`; in UTC where no zone is named."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """The moment that the text means."""
        if isinstance(value, datetime):
            return value
        ago = _AGO.fullmatch(value)
        try:
            if ago:
                return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
            moment = datetime.fromisoformat(value)
        except (ValueError, OverflowError):
            self.fail(f'"{value}" is no moment; write 2026-01-31, 2026-01-31T12:00 or 7d.', param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@click.group()
def divergences() -> None:
    """List and show the divergences that were found."""


@divergences.command("list")
@click.option("--area", type=AREA, metavar="AREA", help="Only of this area: gs, stack, flags, control, fault, other.")
@click.option("--kind", type=KIND, metavar="KIND", help="Only of this kind: divergence, crash, hang, contract.")
@click.option("--core", type=CORE, metavar="CORE", help="Only of this core.")
@click.option("--profile", type=PROFILE, metavar="PROFILE", help="Only on this processor profile.")
@click.option("--target", type=TARGET, metavar="TARGET", help="Only seen in this target.")
@click.option("--since", type=Moment(), metavar="WHEN", help="Only seen at this moment or later: 2026-01-31, 12h, 7d.")
@click.option("--status", metavar="STATUS", help="Only of this status: open, fixed, regressed.")
@click.option("--verdict", type=VERDICT, metavar="VERDICT", help="Only of this verdict: engine-defect, spec-suspect, disputed, adapter.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many, those with most hits first.")
@database_option
@json_option
def list_(
    database: str,
    as_json: bool,
    limit: int | None,
    **filters: Any,
) -> None:
    """List buckets of divergences, most hits first."""
    from db import queries
    from entryfuzz.database import opened
    from entryfuzz.output import print_json, print_view
    from entryfuzz.views import listings

    with opened(database) as engine:
        rows = queries.buckets(engine, limit=limit, **filters)
    if as_json:
        print_json([listings.bucket_json(row) for row in rows])
    else:
        print_view(listings.buckets(rows))


@divergences.command("show")
@click.argument("bucket_id", metavar="ID")
@database_option
@json_option
def show(bucket_id: str, database: str, as_json: bool) -> None:
    """Show one divergence: rule, start state, path, both end states, and the command that replays it.

    ID is a bucket's id, or as many of its first digits as tell it from others.
    """
    from entryfuzz.output import print_json, print_view
    from entryfuzz.showing import find_divergence
    from entryfuzz.views import divergence

    shown = find_divergence(bucket_id, database)
    if as_json:
        print_json(divergence.divergence_json(shown))
    else:
        print_view(*divergence.divergence(shown))
