"""`entryfuzz cores silicon-check`."""

from __future__ import annotations

import click

from entryfuzz.commands.options import json_option


@click.command("silicon-check")
@click.option("--cases", type=click.IntRange(min=1), default=20_000, show_default=True, metavar="N", help="How many cases to make.")
@click.option("--seed", type=int, default=1, show_default=True, metavar="S", help="The same seed gives the same cases.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, metavar="J", help="Processes.")
@json_option
def silicon_check(cases: int, seed: int, jobs: int, as_json: bool) -> int:
    """Check the specification against the host's own processor in user mode; exit 1 when they differ."""
    from entryfuzz.output import print_json, print_view
    from entryfuzz.silicon import check_with_progress
    from entryfuzz.views.silicon import report

    found = check_with_progress(seed, cases, jobs)
    if as_json:
        print_json(found)
    else:
        print_view(*report(found))
    return 1 if found["differences"] else 0
