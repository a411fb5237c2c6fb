"""A guided campaign on this machine: rounds of slices, which share what they found worth keeping when a round is over.

All slices of a round begin with the corpus as it was before the round, whoever is faster: so a number of cases gives the same result in
any number of processes, from the same corpus.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from db.corpus import corpus_cases, save_corpus
from db.records import SliceResult
from workers.guided import GuidedResult, GuidedSlice, plan_guided
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
    with Pool[GuidedResult](settings.jobs, settings.cores) as pool:
        for first in itertools.count(step=ROUND):
            stored = {target: corpus_cases(engine, target) for target in settings.targets}
            results = sorted(pool.run(_round(settings, first, stored, begun)), key=lambda result: result.number)
            if not results:
                return
            for result in results:
                save_corpus(engine, result.target, result.corpus, REASON)
                yield result.found


def _round(settings: Settings, first: int, stored: Mapping[str, tuple[bytes, ...]], begun: float) -> Iterator[GuidedSlice]:
    for number in range(first, first + ROUND):
        if settings.seconds is not None and time.monotonic() - begun >= settings.seconds:
            return
        work = plan_guided(settings.targets, settings.profiles, settings.cores, settings.seed, SLICE_EXECUTIONS, settings.cases, number)
        if work is not None:
            yield replace(work, corpus=stored[work.target])
