"""`entryfuzz enqueue`, `worker`, `scheduler` and `status`: fuzzing on several machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from entryfuzz.commands.options import (
    campaign_fields,
    campaign_options,
    config_option,
    database_option,
    json_option,
    mode_option,
    redis_option,
    watched_options,
)

_SLICE_CASES = 20_000


@click.command()
@campaign_options
@click.option("--cases", type=click.IntRange(min=1), help="Stop after this many cases.")
@click.option("--forever", is_flag=True, help="Never stop.")
@click.option(
    "--slice-cases",
    type=click.IntRange(1, 10**9),
    default=_SLICE_CASES,
    show_default=True,
    help="Cases that a worker runs at once: best about two minutes' worth.",
)
@mode_option
@database_option
@json_option
def enqueue(
    targets: tuple[str, ...],
    cores: tuple[str, ...],
    profiles: tuple[str, ...],
    seed: int | None,
    cases: int | None,
    forever: bool,
    slice_cases: int,
    mode: str,
    database: str,
    as_json: bool,
) -> None:
    """Plan a campaign for the workers of a cluster, and print its number."""
    if forever == (cases is not None):
        raise click.UsageError("say when to stop: --cases N, or --forever.", click.get_current_context())

    from entryfuzz.cluster import Order, enqueue_campaign
    from entryfuzz.output import note, print_json

    order = Order(
        **campaign_fields(targets, cores, profiles, seed),
        cases=cases,
        slice_cases=slice_cases,
        mode=mode,
    )
    campaign = enqueue_campaign(database, order)
    if as_json:
        print_json({"campaign": campaign} | order.to_json())
        return
    note(f"campaign {campaign}: {', '.join(order.targets)} on {', '.join(order.cores)}, seed {order.seed}; see entryfuzz status")
    click.echo(campaign)


@click.command()
@click.option("--name", help="What the worker is called in entryfuzz status. The machine's name and some digits if left out.")
@click.option(
    "--spool",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("entryfuzz-spool"),
    envvar="ENTRYFUZZ_SPOOL",
    show_default=True,
    show_envvar=True,
    help="A folder for results that are finished while the database is away.",
)
@click.option(
    "--lease",
    type=click.FloatRange(min=1),
    default=90.0,
    show_default=True,
    help="Seconds of silence that cost it its slice.",
)
@click.option("--burst", is_flag=True, help="Leave when the queue is empty.")
@watched_options
@database_option
@redis_option
def worker(name: str | None, spool: Path, lease: float, burst: bool, database: str, redis: str, **watched: Any) -> None:
    """Do slices of planned campaigns, one at a time, until a signal asks to stop: the first one lets the slice finish."""
    from entryfuzz.cluster import Watched, work

    work(database, redis, name, spool.absolute(), lease, burst, Watched(**watched))


@click.command()
@click.option(
    "--webhook",
    metavar="URL",
    envvar="ENTRYFUZZ_WEBHOOK",
    show_envvar=True,
    help="Post every new bucket here, as JSON, at least once.",
)
@config_option
@watched_options
@database_option
@redis_option
@click.pass_context
def scheduler(ctx: click.Context, /, webhook: str | None, config: Path, database: str, redis: str, **watched: Any) -> None:
    """Keep the cluster going: plan slices ahead, give lost ones back, fill the queue, and begin what the timetable says.

    Runs until a signal asks to stop. Without a timetable, nothing is done by itself; one that was asked for has to be there.
    """
    from entryfuzz.cluster import Watched, schedule

    asked_for = ctx.get_parameter_source("config") is not ParameterSource.DEFAULT
    schedule(database, redis, config if asked_for or config.exists() else None, webhook, Watched(**watched))


@click.command()
@click.option("--watch", is_flag=True, help="Show it again every two seconds until interrupted.")
@database_option
@json_option
def status(watch: bool, database: str, as_json: bool) -> None:
    """Show how the cluster stands: workers, slices, cases per second, buckets."""
    if watch and as_json:
        raise click.UsageError("--watch is for people, --json for programs; give one.", click.get_current_context())

    from entryfuzz.cluster import cluster_status, watch_status
    from entryfuzz.output import print_json, print_view
    from entryfuzz.views import cluster

    if watch:
        watch_status(database)
    elif as_json:
        print_json(cluster.status_json(cluster_status(database)))
    else:
        print_view(*cluster.status(cluster_status(database)))
