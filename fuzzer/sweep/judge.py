"""Comparing what the specification says of many cases with a core, and adding it up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Final

from fuzzer.compare import Comparison, compare
from fuzzer.cores.core import Core
from fuzzer.sweep.outcomes import Outcome
from fuzzer.sweep.result import Breach, Divergence, PathResult
from fuzzer.sweep.trial import Trial
from reference.image import End, Observation

BATCH: Final = 50
"""Cases that the specification runs before the core runs them: the two drive each other out of the caches."""


class Judge:
    """Takes trials in, gives outcomes back, and remembers what was found."""

    def __init__(self, core: Core | None) -> None:
        self._core = core
        self._runs = self._merged = self._broken = self._divergent = 0
        self._breaches: dict[tuple[str, int], Breach] = {}
        self._divergences: dict[tuple[str, ...], Divergence] = {}
        self.not_modelled: Counter[str] = Counter()
        self._tolerated: Counter[str] = Counter()

    def outcomes(self, tried: Iterable[Trial | None]) -> Iterator[Outcome]:
        """The outcome of each trial, the core and the contract included."""
        coming = iter(tried)
        while batch := list(islice(coming, BATCH)):
            asked = [trial.image for trial in batch if trial and trial.spec.end is not End.NOT_MODELLED]
            observed = self._core.run(asked) if self._core else iter(())
            for trial in batch:
                yield Outcome.UNTRIED if trial is None else self._judged(trial, observed)

    def _judged(self, trial: Trial, observed: Iterator[Observation]) -> Outcome:
        self._runs += 1
        self._merged += trial.shared
        outcome = trial.outcome
        if trial.spec.end is End.NOT_MODELLED:
            self.not_modelled[trial.spec.detail] += 1
        elif self._core:
            outcome = self._compared(trial, next(observed), self._core.name)
        if trial.violations:
            self._note_breaches(trial)
            outcome = Outcome.BROKEN
        return outcome

    def _compared(self, trial: Trial, observed: Observation, core: str) -> Outcome:
        comparison = compare(trial.image, trial.spec, observed)
        self._tolerated.update(comparison.tolerated)
        if observed.end is End.UNSUPPORTED:
            self.not_modelled[f"{core}: {observed.detail}"] += 1
            return Outcome.NOT_MODELLED
        if not comparison.differences:
            return trial.outcome
        self._divergent += 1
        key = _alike(comparison, observed)
        known = self._divergences.get(key) or Divergence(trial.case, trial.spec, observed, comparison, 0)
        self._divergences[key] = replace(known, hits=known.hits + 1)
        return Outcome.DIVERGENT

    def _note_breaches(self, trial: Trial) -> None:
        self._broken += 1
        for key, violation in {(each.promise, each.rip): each for each in reversed(trial.violations)}.items():
            known = self._breaches.get(key) or Breach(trial.case, violation, 0)
            self._breaches[key] = replace(known, hits=known.hits + 1)

    def result(self, scenario: str, profile: str, cells: Mapping[str, tuple[Outcome, ...]]) -> PathResult:
        """All of it, for the path that these rows of outcomes are about."""
        return PathResult(
            scenario=scenario,
            profile=profile,
            cells=cells,
            runs=self._runs,
            merged=self._merged,
            contract_violations=self._broken,
            divergent=self._divergent,
            breaches=tuple(self._breaches.values()),
            divergences=tuple(self._divergences.values()),
            not_modelled=self.not_modelled,
            tolerated=self._tolerated,
        )


def _alike(comparison: Comparison, observed: Observation) -> tuple[str, ...]:
    """What divergences of one path have in common: the end, and the fields without their places in memory."""
    return observed.end.value, *sorted({difference.field.partition("+")[0] for difference in comparison.differences})
