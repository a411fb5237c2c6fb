"""Trying every path of a target in a process of its own: a sweep of each, and the runs that did not come to their end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from entryfuzz.isolation import results
from fuzzer.build import builder
from fuzzer.case import Case
from fuzzer.cores.core import Core
from fuzzer.cores.registry import CORES
from fuzzer.sweep.result import PathResult
from fuzzer.sweep.sweep import sweep_path
from fuzzer.targets.target import Target
from reference.image import End, Event, Image, Observation, Step
from reference.run import run

PATIENCE: Final = 600.0
"""Seconds for one path; at depth 2 they take minutes."""
_LOST: Final = (End.DID_NOT_END, End.HALTED)
"""Ends of entry code that never returns; that the processor does not shut down is a promise of the contract."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to try."""

    target: Target
    profiles: tuple[str, ...]
    kinds: tuple[str, ...]
    depth: int
    core: str


@dataclass(frozen=True, slots=True)
class Stuck:
    """The first run of a path that does not come to its end, and how many do not; a case without events is the path itself."""

    case: Case
    end: End
    hits: int


@dataclass(frozen=True, slots=True)
class Tried:
    """A path with everything that was tried on it."""

    result: PathResult
    stuck: Stuck | None


def tried(plan: Plan) -> Iterator[Tried]:
    """Each path as it is done; a core that dies ends nothing but its own process."""
    return results(try_all, plan, patience=PATIENCE)


def try_all(plan: Plan) -> Iterator[Tried]:
    """Every scenario in every profile."""
    core, build = _Noticing(CORES[plan.core].load()), builder(plan.target)
    for profile in plan.profiles:
        for scenario in plan.target.scenarios:
            core.lost.clear()
            result = sweep_path(plan.target, build, scenario.name, profile, plan.kinds, plan.depth, core)
            cases = (Case(plan.target.name, scenario.name, profile, events=events) for events in core.lost)
            yield Tried(result, _stuck([(case, run(build(case)).end) for case in cases]))


def _stuck(runs: Sequence[tuple[Case, End]]) -> Stuck | None:
    """Those that the specification does not bring to their end either; the rest are divergences."""
    lost = [(case, end) for case, end in runs if end in _LOST]
    return Stuck(*lost[0], len(lost)) if lost else None


class _Noticing:
    """A core that remembers the events of the runs that were lost in it."""

    def __init__(self, core: Core) -> None:
        self.name, self.version, self.delivers_events = core.name, core.version, core.delivers_events
        self._core = core
        self.lost: list[tuple[Event, ...]] = []

    def run(self, images: Sequence[Image]) -> Iterator[Observation]:
        """Run each image."""
        for image, observation in zip(images, self._core.run(images), strict=True):
            if observation.end in _LOST:
                self.lost.append(image.events)
            yield observation

    def trace(self, image: Image) -> Iterator[Step]:
        """Run an image in steps."""
        return self._core.trace(image)
