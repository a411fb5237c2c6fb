"""`entryfuzz cores`."""

from __future__ import annotations

import click

from entryfuzz.commands.options import CORE, json_option
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


@cores.command("check")
@click.argument("name", type=CORE, metavar="NAME")
@json_option
@click.pass_context
def check(ctx: click.Context, name: str, as_json: bool) -> None:
    """Run the conformance checks on a core: what every core has to keep. Exit 1 if one is broken.

    NAME is a core of `entryfuzz cores list`.
    """
    from entryfuzz.conforming import checked
    from entryfuzz.output import print_json, print_view
    from entryfuzz.views import conformance

    results = list(checked(name))
    if as_json:
        print_json([conformance.result_json(each) for each in results])
    else:
        print_view(*conformance.results(name, results))
    ctx.exit(1 if any(each.state == "broken" for each in results) else 0)


cores.add_command(silicon_check)
