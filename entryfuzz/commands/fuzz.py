"""`entryfuzz fuzz`."""

from __future__ import annotations

import click

from entryfuzz.commands.options import campaign_fields, campaign_options, database_option, json_option, mode_option

DEFAULT_SECONDS = 60.0


@click.command()
@campaign_options
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Stop after this time; 60 without --cases.")
@click.option("--cases", type=click.IntRange(min=1), help="Stop after this many cases.")
@click.option("--jobs", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes; their number changes no result.")
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
    from workers.local import Settings

    settings = Settings(
        **campaign_fields(targets, cores, profiles, seed),
        cases=cases,
        seconds=DEFAULT_SECONDS if seconds is None and cases is None else seconds,
        jobs=jobs,
        database=database,
        mode=mode,
    )
    result = fuzz_with_progress(settings)
    if as_json:
        print_json(campaign.summary_json(result, settings))
    else:
        print_view(*campaign.summary(result, settings))
