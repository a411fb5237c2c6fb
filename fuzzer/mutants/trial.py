"""A trial: one arm looks for one mutant with one seed, until it finds it or its time is over."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import Final

from fuzzer.case import Case
from fuzzer.cores.core import Core
from fuzzer.cores.unicorn.core import UnicornCore
from fuzzer.mutants.arms import ARMS
from fuzzer.mutants.catalogue import CONTROLS, MUTANTS
from fuzzer.mutants.detect import Look, broken_promise, divergence
from fuzzer.mutants.mutant import Mutant
from fuzzer.targets.registry import TARGETS
from fuzzer.targets.target import Target
from reference.profiles import PROFILES

TARGET: Final = "linux4"


@dataclass(frozen=True, slots=True)
class Trial:
    """What to do, in plain values that go through a pipe; `mutant` may be one of the controls, where nothing is wrong."""

    mutant: str
    arm: str
    seed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a trial: cases and seconds of processor time until the first finding, or all of them where there was none.

    A control is not left at its first finding: `findings` counts every false alarm.
    """

    trial: Trial
    cases: int
    seconds: float
    findings: int
    finding: str = ""
    """The first finding: what was seen, and in which case."""


def run_trial(trial: Trial) -> Result:
    """Look for the mutant."""
    mutant = (MUTANTS | CONTROLS)[trial.mutant]
    look = look_of(mutant)
    rng = Random(f"{trial.seed}/{trial.arm}/{trial.mutant}")
    cases, findings, first = 0, 0, ""
    start = time.process_time()
    for tried in ARMS[trial.arm](rng, target_of(mutant), tuple(PROFILES)):
        cases += 1
        if finding := look(tried):
            findings += 1
            first = first or f"{finding} ({told(tried.case)})"
        if (findings and mutant.name not in CONTROLS) or time.process_time() - start > trial.seconds:
            break
    return Result(trial, cases, time.process_time() - start, findings, first)


def target_of(mutant: Mutant) -> Target:
    """The target that a mutant runs on; where a core is wrong nobody asks for the contract."""
    target = mutant.target(TARGETS[TARGET])
    return replace(target, code=None) if mutant.core else target


def look_of(mutant: Mutant) -> Look:
    """How a mutant is told."""
    return divergence(_core(UnicornCore), _core(mutant.core)) if mutant.core else broken_promise


@cache
def _core(make: Callable[[], Core]) -> Core:
    """An engine takes a moment to start, and leaves nothing behind between cases."""
    return make()


def told(case: Case) -> str:
    """A case in one line."""
    events = (f"{event.kind.value} at {event.boundary}" for event in case.events)
    return ", ".join((case.scenario, case.profile, *events))
