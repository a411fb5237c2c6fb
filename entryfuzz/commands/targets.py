"""`entryfuzz targets`."""

from __future__ import annotations

from pathlib import Path

import click

from entryfuzz.commands.options import CORE, DEFAULT_CORE, PROFILE, TARGET, json_option

DEFAULT_PROFILE = "intel"


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


@targets.command("paths")
@click.argument("name", type=click.Choice(("linux4",)), metavar="NAME")
@click.option("--markdown", is_flag=True, help="The page docs/entry-paths.md.")
@json_option
def paths(name: str, markdown: bool, as_json: bool) -> None:
    """List every way into linux4: its gate, its GS test, its handler's stacks, and its length."""
    from entryfuzz.output import print_json, print_view
    from entryfuzz.views import paths as view
    from fuzzer.entry_paths import entry_paths, handler_calls
    from fuzzer.targets.registry import TARGETS

    if as_json:
        print_json(view.to_json(entry_paths()))
    elif markdown:
        click.echo(view.page(entry_paths(), TARGETS[name].scenarios, handler_calls()), nl=False)
    else:
        print_view(view.view(entry_paths()))


@targets.command("add")
@click.argument("code", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--manifest", type=click.Path(path_type=Path), required=True, metavar="FILE", help="What is what in the code (TOML).")
@click.option("--name", metavar="NAME", help="The target's name; the manifest's if left out.")
@click.option(
    "--profile", "profiles", type=PROFILE, multiple=True, metavar="PROFILE", help="A CPU profile; may be given again. intel if left out."
)
@click.option("--depth", type=click.IntRange(1, 2), default=1, show_default=True, help="2 puts an NMI into what each event opens, too.")
@click.option("--core", type=CORE, default=DEFAULT_CORE, metavar="CORE", show_default=True, help="The core to compare with.")
@click.option("--db", "database", metavar="URL", help="Also store what is found in this database, as entryfuzz sweep does.")
@json_option
@click.pass_context
def add(
    ctx: click.Context,
    code: Path,
    manifest: Path,
    name: str | None,
    profiles: tuple[str, ...],
    depth: int,
    core: str,
    database: str | None,
    as_json: bool,
) -> None:
    """Add your own entry code, and try every event at every boundary of every path into it.

    FILE is assembly source for GNU as, or an ELF file. Exit 0: the contract holds; 1: it is broken, or a run does not
    end; 2: a mistake.
    """
    from entryfuzz.added import add as add_target
    from entryfuzz.checking import check_with_progress, store
    from entryfuzz.output import print_json, print_view
    from entryfuzz.replay import find_core
    from entryfuzz.trying import Plan
    from entryfuzz.views import own

    find_core(core)
    added = add_target(code, manifest, name)
    wanted = tuple(dict.fromkeys(profiles)) or (DEFAULT_PROFILE,)
    plan = Plan(added.own.target, wanted, added.own.target.kinds, depth, core)
    found = check_with_progress(added, plan)
    if database is not None:
        store(plan, database)
    if as_json:
        print_json(own.report_json(found))
    else:
        print_view(*own.report(found))
    ctx.exit(0 if found.sound else 1)
