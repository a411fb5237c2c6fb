"""A guided campaign on this machine: rounds of slices, which share what they found worth keeping when a round is over.

All slices of a round begin with the corpus as it was before the round, whoever is faster: so a number of cases gives the same result in
any number of processes, from the same corpus.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from db.corpus import corpus, save_corpus
from db.records import SliceResult
from workers.guided import FRESH, GuidedResult, GuidedSlice
from workers.pool import Pool

if TYPE_CHECKING:
    from workers.local import Settings

SLICE_EXECUTIONS = 3000
ROUND = 4
"""Slices."""
REASON = "reached something new"
"""Of cases that a guided slice adds to the corpus."""


def guided_results(settings: Settings, engine: Engine, begun: float) -> Iterator[SliceResult]:
    """The results of slices until the budget is spent, in the order of their numbers; the corpus is stored on the way."""
    left = settings.cases
    with Pool[GuidedResult](settings.jobs, settings.cores) as pool:
        for first in itertools.count(step=ROUND):
            counts = _counts(left)
            works = _round(settings, first, counts, _stored(settings, engine), begun)
            results = sorted(pool.run(iter(works)), key=lambda result: result.found.number)
            if not results:
                return
            for result in results:
                save_corpus(engine, result.target, result.corpus, REASON)
                yield result.found
            left = None if left is None else left - sum(counts)


def _counts(left: int | None) -> list[int]:
    """Executions of the slices of the next round; the last one of a number of cases is as short as it must be."""
    if left is None:
        return [SLICE_EXECUTIONS] * ROUND
    return [count for number in range(ROUND) if (count := min(SLICE_EXECUTIONS, left - number * SLICE_EXECUTIONS)) > 0]


def _target(settings: Settings, number: int) -> str:
    return settings.targets[number % len(settings.targets)]


def _stored(settings: Settings, engine: Engine) -> dict[str, tuple[bytes, ...]]:
    return {target: tuple(row.data for row in corpus(engine, target)) for target in settings.targets}


def _round(
    settings: Settings, first: int, counts: Sequence[int], stored: Mapping[str, tuple[bytes, ...]], begun: float
) -> Iterator[GuidedSlice]:
    for number, count in enumerate(counts, start=first):
        if settings.seconds is not None and time.monotonic() - begun >= settings.seconds:
            return
        target = _target(settings, number)
        fresh = number // len(settings.targets) * FRESH
        yield GuidedSlice(number, target, settings.profiles, settings.cores, settings.seed, fresh, count, stored[target])
