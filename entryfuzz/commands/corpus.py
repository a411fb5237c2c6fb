"""`entryfuzz corpus`."""

from __future__ import annotations

from pathlib import Path

import click

from entryfuzz.commands.options import CORE, DEFAULT_CORE, TARGET, database_option, json_option

_target_option = click.option("--target", type=TARGET, metavar="TARGET", help="Only cases of this target. All if left out.")


@click.group()
def corpus() -> None:
    """The cases that guided campaigns begin with and change: those that reached something new."""


@corpus.command("export")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@_target_option
@database_option
@json_option
def export(folder: Path, target: str | None, database: str, as_json: bool) -> None:
    """Write the corpus into a folder: one file of case bytes for each case, in a folder for each target."""
    from entryfuzz.corpora import exported
    from entryfuzz.output import print_json, print_view
    from entryfuzz.views import corpora

    counts = exported(folder, target, database)
    print_json(counts) if as_json else print_view(corpora.exported(counts, folder))


@corpus.command("import")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@database_option
@json_option
def import_(folder: Path, database: str, as_json: bool) -> None:
    """Add every file of a folder, and of the folders in it, to the corpus. Any bytes are a case; files that are too large are left out."""
    from entryfuzz.corpora import imported
    from entryfuzz.output import print_json, print_view
    from entryfuzz.views import corpora

    counts = imported(folder, database)
    print_json(counts) if as_json else print_view(corpora.imported(counts, folder))


@corpus.command("merge")
@_target_option
@click.option(
    "--core",
    "cores",
    type=CORE,
    multiple=True,
    metavar="CORE",
    help="A core whose differences count as something reached; may be given again. unicorn if left out.",
)
@database_option
@json_option
def merge(target: str | None, cores: tuple[str, ...], database: str, as_json: bool) -> None:
    """Keep only as many cases as it takes to reach all that the corpus reaches; the others are forgotten."""
    from entryfuzz.corpora import merged_corpora
    from entryfuzz.output import print_json, print_view
    from entryfuzz.views import corpora

    rows = merged_corpora(target, tuple(dict.fromkeys(cores)) or (DEFAULT_CORE,), database)
    print_json(rows) if as_json else print_view(corpora.merged(rows))
