"""The ways to look for a mutant. Each is a row of cases that a seed decides; none knows what is planted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Final

from fuzzer.build import builder
from fuzzer.case import Case
from fuzzer.mutants.detect import Tried
from fuzzer.mutants.random_case import random_case
from fuzzer.mutants.survival import fatal
from fuzzer.sweep.events import KINDS
from fuzzer.sweep.path import Path, record
from fuzzer.sweep.trial import trials
from fuzzer.targets.target import Target
from reference.image import Image
from reference.linux.contract import judge
from reference.run import run

Arm = Callable[[Random, Target, Sequence[str]], Iterator[Tried]]
"""From randomness, a target and profiles to cases with what the specification says of them; without end, or until all are tried."""


def sweep(rng: Random, target: Target, profiles: Sequence[str]) -> Iterator[Tried]:
    """Every path as it is, then every kind of event at every boundary of every path, what is new first; the seed orders the paths."""
    build, paths = builder(target), _paths(rng, target, profiles)
    for case in paths:
        yield tried(target, case, build(case))
    seen: set[Place] = set()
    for fresh in (True, False):
        for case in paths:
            if path := record(case, build(case), target.code):
                yield from _arrivals(path, build, seen, fresh)


def _paths(rng: Random, target: Target, profiles: Sequence[str]) -> list[Case]:
    """Every scenario once, in some profile, before any of them in a second one."""
    scenarios = [(scenario, rng.sample(profiles, len(profiles))) for scenario in target.scenarios]
    rounds = []
    for number in range(len(profiles)):
        rng.shuffle(scenarios)
        rounds += [Case(target.name, scenario.name, order[number], events=scenario.events) for scenario, order in scenarios]
    return rounds


Place = tuple[object, ...]


def _arrivals(path: Path, build: Callable[[Case], Image], seen: set[Place], fresh: bool) -> Iterator[Tried]:
    """Every kind of event at the boundaries of a path whose places were not `seen` before, or at all the others."""
    for kind in KINDS:
        boundaries = [boundary for boundary in path.boundaries if (_place(path, boundary, kind) not in seen) is fresh]
        seen.update(_place(path, boundary, kind) for boundary in boundaries)
        for trial in trials(path, kind, boundaries[::-1], build):
            if trial and not fatal(trial.case.events):
                yield Tried(trial.case, trial.image, trial.spec, trial.violations)


def _place(path: Path, boundary: int, kind: str) -> Place:
    """Where an event arrives: the instruction, and what the entry code may have changed already or not yet."""
    m = path.starts[boundary].m
    return kind, m.rip, m.gs.base, m.cr3, m.interrupts_enabled, m.nmi_blocked, len(m.deliveries)


def at_random(rng: Random, target: Target, profiles: Sequence[str]) -> Iterator[Tried]:
    """Random scenarios in random states with random events: the control."""
    build = builder(target)
    while True:
        case = random_case(rng, target, profiles)
        yield tried(target, case, build(case))


def tried(target: Target, case: Case, image: Image) -> Tried:
    """A case on the specification, with the contract if the target has one."""
    return Tried(case, image, *judge(image, target.code)) if target.code else Tried(case, image, run(image))


ARMS: Final[dict[str, Arm]] = {"sweep": sweep, "random": at_random}
