"""A slice of a campaign: a run of cases that gives the same result wherever and however often it is run."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from db.records import NewFinding, SliceResult
from fuzzer.build import build
from fuzzer.case import Case
from fuzzer.compare import Comparison, compare
from fuzzer.cores.core import Core
from fuzzer.explain import explain
from fuzzer.generate.generator import generate
from fuzzer.signature import of_crash, of_parting_unseen
from reference.image import End, Image, Observation
from reference.run import run
from workers.child import NO_CASE, Starting
from workers.findings import new_finding, where

BATCH = 250
"""Cases that the specification runs before each core runs them: they drive each other out of the caches, and to ask an engine that is a
program of its own takes time whatever it is asked."""
EXAMPLES = 3
"""Cases kept for each signature of a slice: the smallest ones."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Cases `first` to `first + count - 1` of a target; `lost` are those that took their process with them, on which core, and how."""

    number: int
    target: str
    profiles: tuple[str, ...]
    seed: int
    first: int
    count: int
    lost: tuple[tuple[int, int, End], ...] = ()

    def without(self, case: int, place: int, end: End) -> Slice:
        """The same slice, with the knowledge that one case cannot be run on the core of that place."""
        return replace(self, lost=(*self.lost, (case, place, end)))

    def run(self, cores: Sequence[Core], starting: Starting) -> SliceResult:
        """What it finds."""
        return run_slice(self, cores, starting)


@dataclass(slots=True)
class Tally:
    """What a slice has found so far."""

    not_modelled: Counter[str] = field(default_factory=Counter)
    tolerated: Counter[str] = field(default_factory=Counter)
    crashes: int = 0
    hits: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[NewFinding]] = field(default_factory=dict)

    def add(self, finding: NewFinding) -> None:
        """Count a finding, and keep it if it is among the smallest of its signature."""
        signature = finding.bucket.signature
        self.hits[signature] += 1
        kept = self.examples.setdefault(signature, [])
        kept.append(finding)
        kept.sort(key=lambda each: (len(each.case.data), each.case.data))
        del kept[EXAMPLES:]

    def result(self, number: int, cases: int, seconds: float) -> SliceResult:
        """The result of the slice of this number, which ran so many cases in so many seconds."""
        return SliceResult(
            number=number,
            cases=cases,
            seconds=seconds,
            not_modelled=self.not_modelled,
            tolerated=self.tolerated,
            crashes=self.crashes,
            hits=self.hits,
            findings=[finding for kept in self.examples.values() for finding in kept],
        )


def run_slice(work: Slice, cores: Sequence[Core], starting: Starting) -> SliceResult:
    """Run every case of a slice on the specification and on each core; `starting` is told the number of each before an engine runs it."""
    begun = time.monotonic()
    tally = Tally()
    numbers = range(work.first, work.first + work.count)
    for first in range(0, work.count, BATCH):
        starting(NO_CASE, 0)
        trials = list(_specified(work, numbers[first : first + BATCH], tally))
        for place, core in enumerate(cores):
            lost = {case: end for case, on, end in work.lost if on == place}
            _run_on_core(trials, core, tally, lost, partial(_starting_on, starting, place))
    return tally.result(work.number, work.count, time.monotonic() - begun)


def _starting_on(starting: Starting, place: int, number: int) -> None:
    starting(number, place)


@dataclass(frozen=True, slots=True)
class Trial:
    """A case that the specification has run, for a core to run."""

    number: int
    case: Case
    image: Image
    spec: Observation


def _specified(work: Slice, numbers: Iterable[int], tally: Tally) -> Iterator[Trial]:
    """Run cases on the specification: many of them before the core's turn, because the two drive each other out of the caches."""
    for number in numbers:
        case = generate(work.seed, work.target, work.profiles, number)
        image = build(case)
        spec = run(image)
        if spec.end is End.NOT_MODELLED:
            tally.not_modelled[spec.detail] += 1
        else:
            yield Trial(number, case, image, spec)


def _run_on_core(trials: Sequence[Trial], core: Core, tally: Tally, lost: Mapping[int, End], starting: Callable[[int], None]) -> None:
    """Run cases on a core, as one batch, without those that it is known not to survive."""
    coming = core.run([trial.image for trial in trials if trial.number not in lost])
    diverging = []
    for trial in trials:
        starting(trial.number)
        if trial.number in lost:
            note_lost(trial, core, tally, lost[trial.number])
            continue
        observation = next(coming)
        comparison = compare(trial.image, trial.spec, observation)
        tally.tolerated.update(comparison.tolerated)
        if observation.end is End.UNSUPPORTED:
            tally.not_modelled[f"{core.name}: {observation.detail}"] += 1
        if comparison.differences:
            diverging.append((trial, observation, comparison))
    for trial, observation, comparison in diverging:
        starting(trial.number)
        note_divergence(trial, core, tally, observation, comparison)


def note_divergence(trial: Trial, core: Core, tally: Tally, observation: Observation, comparison: Comparison) -> None:
    """Explain a case that diverges, which runs it again, and count it."""
    tally.crashes += observation.end is End.CORE_ERROR
    explanation = explain(trial.image, core)
    signature = explanation.signature if explanation else of_parting_unseen(core.name, trial.case.profile, comparison.differences)
    tally.add(new_finding(trial.case, trial.image, core, trial.spec, observation, comparison, signature, where(explanation)))


def note_lost(trial: Trial, core: Core, tally: Tally, end: End) -> None:
    """Count a case that took its process with it."""
    if end is End.UNSUPPORTED:
        tally.not_modelled[f"{core.name}: the adapter failed"] += 1
        return
    tally.crashes += 1
    case, image, spec = trial.case, trial.image, trial.spec
    observation = Observation(end, detail="the engine's process was lost")
    signature = of_crash(core.name, case.profile, end)
    tally.add(new_finding(case, image, core, spec, observation, compare(image, spec, observation), signature, ""))


def plan(targets: Sequence[str], profiles: tuple[str, ...], seed: int, size: int, number: int) -> Slice:
    """Slice `number` of an endless campaign: targets take turns, each with its own count of cases."""
    return Slice(number, targets[number % len(targets)], profiles, seed, number // len(targets) * size, size)


def cut(work: Slice, size: int, cases: int) -> Slice | None:
    """The same slice in a campaign of so many cases, in slices of `size`: shorter if it is the last, None if it comes after the end."""
    left = cases - work.number * size
    return replace(work, count=min(work.count, left)) if left > 0 else None
