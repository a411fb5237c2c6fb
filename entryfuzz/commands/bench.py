"""`entryfuzz bench`."""

from __future__ import annotations

import click

from entryfuzz.commands.options import CORE, DEFAULT_CORE, json_option


@click.command()
@click.option("--core", "name", type=CORE, default=DEFAULT_CORE, metavar="CORE", show_default=True, help="The core to measure.")
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), default=3.0, show_default=True, help="The time for each measurement."
)
@json_option
def bench(name: str, seconds: float, as_json: bool) -> None:
    """Measure cases per second: the specification alone, the core alone, and both with comparison."""
    from dataclasses import asdict

    from entryfuzz.output import print_json, print_view
    from entryfuzz.replay import find_core
    from entryfuzz.views import listings
    from fuzzer.bench import measure

    rows = [asdict(row) for row in measure(find_core(name).load(), seconds)]
    if as_json:
        print_json(rows)
    else:
        print_view(listings.measurements(rows))
