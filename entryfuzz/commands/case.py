"""`entryfuzz case`: one case, from a file or from the database."""

from __future__ import annotations

import click

from entryfuzz.commands.options import CORE, DEFAULT_CORE, database_option, json_option


@click.group()
def case() -> None:
    """Run and show single cases; write them by hand."""


@case.command("run")
@click.argument("name", metavar="FILE|ID")
@click.option(
    "--core", "cores", type=CORE, multiple=True, metavar="CORE", help="A core to run on; may be given again. The bucket's, or unicorn."
)
@click.option("--trace", is_flag=True, help="Show specification and core step by step, the first step that differs marked.")
@database_option
@json_option
@click.pass_context
def run(ctx: click.Context, name: str, cores: tuple[str, ...], trace: bool, database: str, as_json: bool) -> None:
    """Run one case on the specification and on cores, and compare: exit 0 if they agree, 1 if not or if the entry code
    breaks its contract, 2 for a mistake.

    FILE is a case file (docs/case-format.md), - for standard input. ID is a bucket's id or a case's digest in the database, or its
    first digits.
    """
    from entryfuzz.output import print_json, print_view
    from entryfuzz.replay import find_case, find_core, replay
    from entryfuzz.views import verdict

    named = find_case(name, database)
    wanted = dict.fromkeys(cores or (named.core or DEFAULT_CORE,))
    replayed = replay(named.case, [find_core(each) for each in wanted], paths=trace)
    if as_json:
        print_json(verdict.verdict_json(replayed))
    else:
        print_view(*verdict.verdict(replayed))
    ctx.exit(1 if replayed.diverges or replayed.violations else 0)


@case.command("show")
@click.argument("name", metavar="FILE|ID")
@database_option
def show(name: str, database: str) -> None:
    """Print a case as a case file, to keep or to change by hand."""
    from entryfuzz.output import print_json
    from entryfuzz.replay import find_case
    from fuzzer.case_json import dump

    print_json(dump(find_case(name, database).case))


@case.command("schema")
def schema() -> None:
    """Print the JSON Schema of case files."""
    from entryfuzz.output import print_json
    from fuzzer.case_json import SCHEMA

    print_json(SCHEMA)
