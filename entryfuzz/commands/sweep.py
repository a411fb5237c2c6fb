"""`entryfuzz sweep`."""

from __future__ import annotations

from typing import Any

import click

from entryfuzz.commands.options import CORE, DEFAULT_CORE, PROFILE, TARGET, database_option, json_option

DEFAULT_TARGET = "linux4"
EXIT_FOUND = 1


class EventName(click.ParamType[str]):
    """A kind of event: `interrupt`, `interrupt:0x40`, `nmi`, `mce`."""

    name = "event"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name, or a usage error that says which there are."""
        from fuzzer.sweep.events import KINDS, is_kind

        if is_kind(value):
            return str(value)
        raise click.UsageError(f'there is no event "{value}"; known: {", ".join(KINDS)}, and interrupt:0x40 for another vector.', ctx)


EVENT = EventName()


@click.group(invoke_without_command=True)
@click.option("--target", type=TARGET, default=DEFAULT_TARGET, metavar="TARGET", show_default=True, help="The target to sweep.")
@click.option("--scenario", "scenarios", multiple=True, metavar="SCENARIO", help="A scenario of it; may be given again. All if left out.")
@click.option(
    "--event", "kinds", type=EVENT, multiple=True, metavar="EVENT", help="interrupt, nmi or mce; may be given again. All if left out."
)
@click.option(
    "--profile", "profiles", type=PROFILE, multiple=True, metavar="PROFILE", help="A CPU profile; may be given again. All if left out."
)
@click.option(
    "--depth", type=click.IntRange(1, 2), default=1, show_default=True, help="2: also a second event in what the first one opens."
)
@click.option(
    "--second", type=EVENT, multiple=True, metavar="EVENT", help="The second event at depth 2; may be given again. nmi if left out."
)
@click.option(
    "--core", type=CORE, default=DEFAULT_CORE, metavar="CORE", show_default=True, help="The core to compare with the specification."
)
@click.option("--jobs", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes; their number changes no result.")
@database_option
@json_option
@click.pass_context
def sweep(
    ctx: click.Context,
    target: str,
    scenarios: tuple[str, ...],
    kinds: tuple[str, ...],
    profiles: tuple[str, ...],
    depth: int,
    second: tuple[str, ...],
    core: str,
    jobs: int,
    database: str,
    as_json: bool,
) -> None:
    """Try every event at every boundary of every path, on the specification, its contract and a core.

    What an interrupted sweep of the same has stored is not run again. Exit 0: nothing found; 1: the core differs or the contract is
    broken somewhere; 2: a mistake.
    """
    if ctx.invoked_subcommand:
        return

    from entryfuzz.output import print_json, print_view
    from entryfuzz.sweeping import known_scenarios, sweep_with_progress
    from entryfuzz.views import sweeps
    from fuzzer.sweep.events import KINDS
    from fuzzer.sweep.sweep import SECOND
    from fuzzer.targets.registry import TARGETS
    from reference.profiles import PROFILES
    from workers.sweeping import SweepSettings

    settings = SweepSettings(
        target=target,
        scenarios=known_scenarios(target, scenarios),
        profiles=tuple(dict.fromkeys(profiles)) or tuple(PROFILES),
        kinds=tuple(dict.fromkeys(kinds)) or TARGETS[target].kinds or KINDS,
        second=tuple(dict.fromkeys(second)) or SECOND,
        depth=depth,
        core=core,
        jobs=jobs,
        database=database,
    )
    result = sweep_with_progress(settings)
    if as_json:
        print_json(sweeps.summary_json(result, settings))
    else:
        print_view(*sweeps.summary(result, settings))
    ctx.exit(EXIT_FOUND if result.totals.contract_violations or result.totals.divergences else 0)


@sweep.command("show")
@click.argument("sweep_id", type=int, required=False, metavar="ID")
@click.option("--scenario", metavar="SCENARIO", help="Only this scenario, beside its disassembly.")
@click.option("--profile", type=PROFILE, metavar="PROFILE", help="Only this CPU profile.")
@click.option("--html", "file", type=click.Path(dir_okay=False), metavar="FILE", help="Write one self-contained page, disassembly and all.")
@database_option
@json_option
def show(sweep_id: int | None, scenario: str | None, profile: str | None, file: str | None, database: str, as_json: bool) -> None:
    """Show a sweep as a map of its paths; with --scenario, boundary by boundary beside the disassembly.

    ID is the number of a sweep; the newest if left out.
    """
    from entryfuzz.output import note, print_json, print_view
    from entryfuzz.sweeping import find_sweep, write_page
    from entryfuzz.views import heat_map, sweep_page

    shown = find_sweep(sweep_id, scenario, profile, database)
    if file is not None:
        write_page(file, sweep_page.page(shown))
        note(f"sweep {shown.sweep.id} is in {file}")
    if as_json:
        print_json(heat_map.sweep_json(shown, code=scenario is not None))
    elif file is None:
        print_view(*(heat_map.paths(shown) if scenario else heat_map.overview(shown)))
