"""A campaign on this machine: slices spread over processes, results stored in order, lost processes replaced."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Engine

from db import queries, store
from db.engine import open_database
from db.records import BucketRow, NewCampaign, SliceResult
from fuzzer.cores.registry import CORES
from workers.guided_campaign import SLICE_EXECUTIONS, guided_results
from workers.pool import Pool
from workers.slices import Slice, cut, plan

SLICE_CASES = 250


@dataclass(frozen=True, slots=True)
class Settings:
    """What to fuzz and for how long: until `cases` have run, or until `seconds` have passed."""

    targets: tuple[str, ...]
    cores: tuple[str, ...]
    seed: int
    cases: int | None
    seconds: float | None
    jobs: int
    profiles: tuple[str, ...]
    database: str
    mode: str = "random"
    """One of `MODES`."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a campaign is: stored slices only."""

    cases: int
    seconds: float
    buckets: int
    not_modelled: int
    crashes: int


@dataclass(frozen=True, slots=True)
class Summary:
    """A finished campaign."""

    cases: int
    seconds: float
    not_modelled: dict[str, int]
    tolerated: dict[str, int]
    crashes: int
    buckets: list[BucketRow]
    campaign_id: int


def run_campaign(settings: Settings, on_progress: Callable[[Progress], None] | None = None) -> Summary:
    """Run a campaign to its end and store what it finds.

    For a number of cases the result depends on seed, targets, profiles and, if it is guided, the corpus that was stored, not on
    the number of processes. An interrupt from the keyboard ends it early; what was stored stays.
    """
    engine = open_database(settings.database)
    campaign = store.start_campaign(engine, _new_campaign(settings))
    begun = time.monotonic()
    try:
        _run_slices(settings, engine, campaign, begun, on_progress)
    finally:
        store.finish_campaign(engine, campaign)
    summary = _summary(engine, campaign, time.monotonic() - begun)
    engine.dispose()
    return summary


def _new_campaign(settings: Settings) -> NewCampaign:
    versions = [CORES[name].available()[0] or "" for name in settings.cores]
    return NewCampaign(
        targets=settings.targets,
        core=", ".join(settings.cores),
        core_version=", ".join(versions),
        profiles=settings.profiles,
        seed=settings.seed,
        slice_cases=MODES[settings.mode][1],
        arguments={"cases": settings.cases, "seconds": settings.seconds, "jobs": settings.jobs, "mode": settings.mode},
    )


def _run_slices(settings: Settings, engine: Engine, campaign: int, begun: float, on_progress: Callable[[Progress], None] | None) -> None:
    """Store results in the order of their slices: which examples are kept must not depend on who was faster."""
    waiting: dict[int, SliceResult] = {}
    following = 0
    seen: set[str] = set()
    cases = not_modelled = crashes = 0
    for result in MODES[settings.mode][0](settings, engine, begun):
        waiting[result.number] = result
        while following in waiting:
            stored = waiting.pop(following)
            store.save_slice(engine, campaign, stored)
            following += 1
            seen.update(stored.hits)
            cases += stored.cases
            not_modelled += sum(stored.not_modelled.values())
            crashes += stored.crashes
        if on_progress is not None:
            on_progress(Progress(cases, time.monotonic() - begun, len(seen), not_modelled, crashes))


def _random_results(settings: Settings, engine: Engine, begun: float) -> Iterator[SliceResult]:
    with Pool[SliceResult](settings.jobs, settings.cores) as pool:
        yield from pool.run(_slices(settings, begun))


Results = Callable[[Settings, Engine, float], Iterator[SliceResult]]
MODES: Final[dict[str, tuple[Results, int]]] = {
    "random": (_random_results, SLICE_CASES),
    "guided": (guided_results, SLICE_EXECUTIONS),
}
"""By mode: where results of slices come from, and how many cases a slice has."""


def _slices(settings: Settings, begun: float) -> Iterator[Slice]:
    """Slices until the budget is spent; the last one of a number of cases is as short as it must be."""
    for number in itertools.count():
        if settings.seconds is not None and time.monotonic() - begun >= settings.seconds:
            return
        work: Slice | None = plan(settings.targets, settings.profiles, settings.seed, SLICE_CASES, number)
        if work is not None and settings.cases is not None:
            work = cut(work, SLICE_CASES, settings.cases)
        if work is None:
            return
        yield work


def _summary(engine: Engine, campaign: int, seconds: float) -> Summary:
    totals = queries.campaign_totals(engine, campaign)
    return Summary(
        cases=totals.cases,
        seconds=seconds,
        not_modelled=dict(totals.not_modelled),
        tolerated=dict(totals.tolerated),
        crashes=totals.crashes,
        buckets=queries.campaign_buckets(engine, campaign),
        campaign_id=campaign,
    )
