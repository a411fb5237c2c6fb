"""A sweep on this machine: paths spread over processes, results stored in order, what is stored not run again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256

from sqlalchemy import Engine

from db import queries, sweeps
from db.engine import open_database
from db.records import BucketRow, NewCampaign
from db.store import finish_campaign
from db.sweep_records import PathFound, SweepRow, SweepTotals, totals
from fuzzer.build import build
from fuzzer.case import Case
from fuzzer.cores.registry import CORES
from fuzzer.targets.registry import TARGETS
from reference.image import Image
from workers.paths import PathWork
from workers.pool import Pool


@dataclass(frozen=True, slots=True)
class SweepSettings:
    """What to sweep: every scenario on every profile, with every kind of event; `second` are those that arrive at depth 2."""

    target: str
    scenarios: tuple[str, ...]
    profiles: tuple[str, ...]
    kinds: tuple[str, ...]
    second: tuple[str, ...]
    depth: int
    core: str
    jobs: int
    database: str


@dataclass(frozen=True, slots=True)
class SweepProgress:
    """How far a sweep is: stored paths only; `of` is how many there are."""

    of: int
    totals: SweepTotals
    seconds: float


@dataclass(frozen=True, slots=True)
class SweepSummary:
    """A finished sweep; `resumed` of its paths had been stored before."""

    sweep_id: int
    campaign_id: int
    resumed: int
    totals: SweepTotals
    not_modelled: dict[str, int]
    crashes: int
    seconds: float
    buckets: list[BucketRow]


def run_sweep(settings: SweepSettings, on_progress: Callable[[SweepProgress], None] | None = None) -> SweepSummary:
    """Sweep whole, or what an interrupted sweep of the same has left; store what is found.

    The result does not depend on the number of processes, nor on how often it was interrupted.
    """
    works = list(works_of(settings))
    engine = open_database(settings.database)
    begun = time.monotonic()
    sweep = sweeps.start_sweep(engine, new_campaign(settings), key_of(settings, works), len(works))
    stored = {path.number: path for path in sweeps.swept_paths(engine, sweep.id)}
    resumed = len(stored)

    def tell() -> None:
        if on_progress is not None:
            on_progress(SweepProgress(len(works), totals(tuple(stored.values())), time.monotonic() - begun))

    tell()
    for result in _results(settings, [work for work in works if work.number not in stored]):
        sweeps.save_path(engine, sweep, result)
        stored[result.number] = result.path
        tell()
    finish_campaign(engine, sweep.campaign.id)
    return _summary(engine, sweep, resumed, time.monotonic() - begun)


def works_of(settings: SweepSettings) -> Iterator[PathWork]:
    """The paths of a sweep, numbered: the same for the same settings."""
    paths = [(profile, scenario) for profile in settings.profiles for scenario in settings.scenarios]
    digests = Digests()
    for number, (profile, scenario) in enumerate(paths):
        start = digests.of(start_image(settings.target, scenario, profile))
        yield PathWork(number, settings.target, scenario, profile, start, settings.kinds, settings.second, settings.depth)


def start_image(target: str, scenario: str, profile: str) -> Image:
    """The machine at the start of a path."""
    return build(Case(target, scenario, profile, events=TARGETS[target].scenario(scenario).events))


class Digests:
    """Names for starts of paths: equal for equal machines. Pages that many of them share are read once."""

    def __init__(self) -> None:
        self._pages: dict[int, tuple[bytes, bytes]] = {}

    def of(self, image: Image) -> str:
        """The digest of registers, memory, profile and events."""
        whole = sha256(repr((image.profile, sorted(image.registers.items()), image.events)).encode())
        for frame in sorted(image.pages):
            whole.update(frame.to_bytes(8, "little") + self._page(image.pages[frame]))
        return whole.hexdigest()[:16]

    def _page(self, page: bytes) -> bytes:
        # Kept with its page: an identity is good for as long as the object lives.
        known = self._pages.get(id(page))
        if known is None:
            known = self._pages[id(page)] = (page, sha256(page).digest())
        return known[1]


def _results(settings: SweepSettings, works: list[PathWork]) -> Iterator[PathFound]:
    """Results in the order of their paths: which examples are kept must not depend on who was faster."""
    order = [work.number for work in works]
    waiting: dict[int, PathFound] = {}
    following = iter(order)
    wanted = next(following, None)
    with Pool[PathFound](min(settings.jobs, len(works)), [settings.core]) as pool:
        for result in pool.run(iter(works)):
            waiting[result.number] = result
            while wanted in waiting:
                yield waiting.pop(wanted)
                wanted = next(following, None)


def new_campaign(settings: SweepSettings) -> NewCampaign:
    """The campaign that a sweep is stored as."""
    version, _ = CORES[settings.core].available()
    return NewCampaign(
        targets=(settings.target,),
        core=settings.core,
        core_version=version or "",
        profiles=settings.profiles,
        seed=0,
        slice_cases=0,
        arguments=_arguments(settings),
    )


def _arguments(settings: SweepSettings) -> dict[str, object]:
    return {
        "sweep": True,
        "scenarios": list(settings.scenarios),
        "events": list(settings.kinds),
        "second": list(settings.second) if settings.depth > 1 else [],
        "depth": settings.depth,
    }


def key_of(settings: SweepSettings, works: list[PathWork]) -> str:
    """Equal for sweeps that would find the same."""
    version, _ = CORES[settings.core].available()
    text = json.dumps([settings.target, settings.core, version, _arguments(settings), [work.start for work in works]])
    return sha256(text.encode()).hexdigest()[:16]


def _summary(engine: Engine, sweep: SweepRow, resumed: int, seconds: float) -> SweepSummary:
    campaign = queries.campaign_totals(engine, sweep.campaign.id)
    return SweepSummary(
        sweep_id=sweep.id,
        campaign_id=sweep.campaign.id,
        resumed=resumed,
        totals=totals(sweeps.swept_paths(engine, sweep.id)),
        not_modelled=dict(campaign.not_modelled),
        crashes=campaign.crashes,
        seconds=seconds,
        buckets=queries.campaign_buckets(engine, sweep.campaign.id),
    )
