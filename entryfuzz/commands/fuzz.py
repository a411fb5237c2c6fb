"""`entryfuzz fuzz`."""

from __future__ import annotations

import secrets

import click

from entryfuzz.commands.options import CORE, DEFAULT_CORE, PROFILE, TARGET, database_option, json_option, mode_option

DEFAULT_SECONDS = 60.0
_SEED_BITS = 32


@click.command()
@click.option(
    "--target", "targets", type=TARGET, multiple=True, metavar="TARGET", help="A target to fuzz; may be given again. All if left out."
)
@click.option(
    "--core",
    "cores",
    type=CORE,
    multiple=True,
    metavar="CORE",
    help="A core to compare with the specification; may be given again: all run the same cases. unicorn if left out.",
)
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Stop after this time; 60 without --cases.")
@click.option("--cases", type=click.IntRange(min=1), help="Stop after this many cases.")
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), help="The same seed gives the same cases. Random if left out, and shown.")
@click.option("--jobs", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes; their number changes no result.")
@click.option(
    "--profile", "profiles", type=PROFILE, multiple=True, metavar="PROFILE", help="A CPU profile; may be given again. All if left out."
)
@mode_option
@database_option
@json_option
def fuzz(
    targets: tuple[str, ...],
    cores: tuple[str, ...],
    seconds: float | None,
    cases: int | None,
    seed: int | None,
    jobs: int,
    profiles: tuple[str, ...],
    mode: str,
    database: str,
    as_json: bool,
) -> None:
    """Fuzz targets on cores and on the specification, and store what diverges."""
    if seconds is not None and cases is not None:
        raise click.UsageError("--seconds and --cases both say when to stop; give one.", click.get_current_context())

    from entryfuzz.fuzzing import fuzz_with_progress
    from entryfuzz.output import print_json, print_view
    from entryfuzz.views import campaign
    from fuzzer.generate.generator import GENERATORS
    from reference.profiles import PROFILES
    from workers.local import Settings

    for own in (name for name in targets if name not in GENERATORS):
        raise click.UsageError(f"no generator makes cases for {own}; targets add tries all of its paths.", click.get_current_context())
    settings = Settings(
        targets=tuple(dict.fromkeys(targets)) or tuple(GENERATORS),
        cores=tuple(dict.fromkeys(cores)) or (DEFAULT_CORE,),
        seed=secrets.randbits(_SEED_BITS) if seed is None else seed,
        cases=cases,
        seconds=DEFAULT_SECONDS if seconds is None and cases is None else seconds,
        jobs=jobs,
        profiles=tuple(dict.fromkeys(profiles)) or tuple(PROFILES),
        database=database,
        mode=mode,
    )
    result = fuzz_with_progress(settings)
    if as_json:
        print_json(campaign.summary_json(result, settings))
    else:
        print_view(*campaign.summary(result, settings))
