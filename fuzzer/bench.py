"""How fast cases run: the specification alone, the core alone, and both with comparison, on the same cases in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fuzzer.build import build
from fuzzer.compare import compare
from fuzzer.cores.core import Core
from fuzzer.generate.generator import generate
from fuzzer.targets.registry import TARGETS
from reference.image import End, Image
from reference.run import run

SEED = 1
CASES = 200


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
    """A row for each target; each of the three measurements takes about `seconds`."""
    return [_measure(core, target, seconds) for target in TARGETS]


def _measure(core: Core, target: str, seconds: float) -> Row:
    """Cases that end by themselves, as the generator makes them: what runs to its limit says nothing about paths."""
    images = [image for image in _images(target) if run(image).end is End.ENDED]

    def pair(image: Image) -> None:
        compare(image, run(image), next(iter(core.run([image]))))

    spec = _rate(lambda image: run(image), images, seconds)
    alone = _rate(lambda image: next(iter(core.run([image]))), images, seconds)
    both = _rate(pair, images, seconds)
    return Row(target, "plain", spec, alone, both, both / alone)


def _images(target: str) -> list[Image]:
    return [build(generate(SEED, target, ("intel",), number)) for number in range(CASES)]


def _rate(work: Callable[[Image], object], images: Sequence[Image], seconds: float) -> float:
    """Images per second of processor time, after one warm-up round."""
    for image in images:
        work(image)
    done, start = 0, time.process_time()
    while (spent := time.process_time() - start) < seconds:
        for image in images:
            work(image)
        done += len(images)
    return done / spent
