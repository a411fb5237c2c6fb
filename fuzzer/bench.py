"""How fast cases run: the specification alone, the core alone, and both with comparison, on the same cases in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

from fuzzer.build import build
from fuzzer.case import Case
from fuzzer.compare import compare
from fuzzer.cores.core import Core
from fuzzer.generate.generator import GENERATORS, generate
from fuzzer.targets.registry import TARGETS
from reference.image import End, Image
from reference.profiles import PROFILES
from reference.run import run

SEED = 1
CASES = 200
BATCH = 250
"""Cases that the specification runs before the core runs them, as in a campaign."""


@dataclass(frozen=True, slots=True)
class Row:
    """Cases per second of processor time for one target; `ratio` is pair to core."""

    target: str
    copy: str
    spec: float
    core: float
    pair: float
    ratio: float


def measure(core: Core, seconds: float) -> list[Row]:
    """A row for the paths of `linux4`, and one for each target's generated cases; each measurement takes about `seconds`."""
    generated = [_measure(core, f"{target} (generated)", _generated(target), seconds) for target in GENERATORS]
    return [_measure(core, "linux4", _paths(), seconds), *generated]


def _measure(core: Core, name: str, images: Sequence[Image], seconds: float) -> Row:

    def both_sides() -> None:
        for first in range(0, len(images), BATCH):
            batch = images[first : first + BATCH]
            for image, expected, observed in zip(batch, [run(image) for image in batch], core.run(batch), strict=True):
                compare(image, expected, observed)

    def specification() -> None:
        for image in images:
            run(image)

    def engine() -> None:
        for _ in core.run(images):
            pass

    spec = _rate(specification, len(images), seconds)
    alone = _rate(engine, len(images), seconds)
    both = _rate(both_sides, len(images), seconds)
    return Row(name, "plain", spec, alone, both, both / alone)


def _paths() -> list[Image]:
    """Every scenario of `linux4` once, with the events that it is named for, in each profile."""
    cases = (
        Case("linux4", scenario.name, profile, events=scenario.events) for scenario in TARGETS["linux4"].scenarios for profile in PROFILES
    )
    return [build(case) for case in cases]


def _generated(target: str) -> list[Image]:
    """Cases as a campaign makes them, those that end by themselves: what runs to its limit says nothing about paths."""
    images = [build(generate(SEED, target, ("intel",), number)) for number in range(CASES)]
    return [image for image in images if run(image).end is End.ENDED]


def _rate(work: Callable[[], object], cases: int, seconds: float) -> float:
    """Cases per second of processor time, after one round to warm up; a round is a batch, as in a campaign."""
    work()
    done, start, begun = 0, _processor_time(), time.monotonic()
    while time.monotonic() - begun < seconds or _processor_time() == start:
        work()
        done += cases
    return done / (_processor_time() - start)


def _processor_time() -> float:
    """Seconds of processor time of this process and of the engines that it has started as programs."""
    here = psutil.Process()
    times = [process.cpu_times() for process in (here, *here.children(recursive=True))]
    return sum(each.user + each.system for each in times)
