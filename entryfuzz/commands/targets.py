"""`entryfuzz targets`."""

from __future__ import annotations

import click

from entryfuzz.commands.options import TARGET, json_option


@click.group()
def targets() -> None:
    """The entry code under test."""


@targets.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the targets."""
    from entryfuzz.catalogue import target_row
    from entryfuzz.output import print_json, print_view
    from entryfuzz.views import listings
    from fuzzer.targets.registry import TARGETS

    if as_json:
        print_json([target_row(target) for target in TARGETS.values()])
    else:
        print_view(listings.targets(TARGETS.values()))


@targets.command("show")
@click.argument("name", type=TARGET, metavar="NAME")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show a target: its scenarios, and its code with symbols."""
    from entryfuzz.catalogue import scenario_starts, target_json
    from entryfuzz.disassembly import listing
    from entryfuzz.output import print_json, print_view
    from entryfuzz.views import listings, text
    from fuzzer.targets.registry import TARGETS

    target, lines = TARGETS[name], list(listing(TARGETS[name]))
    if as_json:
        print_json(target_json(target, lines))
        return
    print_view(f"{target.name}: {target.summary}", text.heading("Scenarios"), listings.scenarios(target, scenario_starts(target)))
    print_view(text.heading("Code"), listings.disassembly(lines))
