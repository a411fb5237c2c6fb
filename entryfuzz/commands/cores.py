"""`entryfuzz cores`."""

from __future__ import annotations

import click

from entryfuzz.commands.options import json_option
from entryfuzz.commands.silicon_check import silicon_check


@click.group()
def cores() -> None:
    """The engines that can be compared with the specification."""


@cores.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the cores, their versions, and why one cannot be used."""
    from entryfuzz.catalogue import core_rows
    from entryfuzz.output import print_json, print_view
    from entryfuzz.views import listings

    rows = core_rows()
    if as_json:
        print_json(rows)
    else:
        print_view(listings.cores(rows))


cores.add_command(silicon_check)
