"""`entryfuzz mutants`."""

from __future__ import annotations

from pathlib import Path

import click

from entryfuzz.commands.options import Name, json_option

DEFAULT_SECONDS = 8.0


def _mutants() -> list[str]:
    from fuzzer.mutants.catalogue import MUTANTS

    return list(MUTANTS)


MUTANT = Name("mutant", _mutants)


@click.group()
def mutants() -> None:
    """Planted bugs: what the fuzzer finds, and what it misses."""


@mutants.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the mutants with their stories."""
    from entryfuzz.output import print_json, print_view
    from entryfuzz.views import mutants as views
    from fuzzer.mutants.catalogue import MUTANTS

    if as_json:
        print_json([views.mutant_json(mutant) for mutant in MUTANTS.values()])
    else:
        print_view(views.mutants(MUTANTS.values()))


@mutants.command("run")
@click.argument("names", nargs=-1, type=MUTANT, metavar="[NAME]...")
@click.option(
    "--seconds-per-mutant",
    "seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=DEFAULT_SECONDS,
    show_default=True,
    help="How long an arm may look for a mutant with one seed.",
)
@click.option("--seed", type=click.IntRange(0, 2**32), default=1, show_default=True, help="The first of the seeds.")
@click.option("--jobs", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes.")
@json_option
def run(names: tuple[str, ...], seconds: float, seed: int, jobs: int, as_json: bool) -> None:
    """Look for mutants, all if none is named, and for false alarms on the clean build."""
    from entryfuzz.mutating import score_with_progress
    from entryfuzz.output import print_json, print_view
    from entryfuzz.views import mutants as views

    result = score_with_progress(tuple(dict.fromkeys(names)) or tuple(_mutants()), seconds, seed, jobs)
    if as_json:
        print_json(result)
    else:
        print_view(*views.score(result))


@mutants.command("page")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE")
def page(file: Path) -> None:
    """Print the page docs/planted-bugs.md of a result that `mutants run --json` wrote."""
    import json

    from entryfuzz.errors import Mistake
    from entryfuzz.views.planted_bugs import page as markdown

    try:
        text = markdown(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError):
        raise Mistake(f"{file}: not a result of `entryfuzz mutants run --json`; make one with that") from None
    click.echo(text, nl=False)
