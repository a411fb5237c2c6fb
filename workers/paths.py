"""One path of a sweep as a piece of work: sweeping it, explaining what was found, and making records of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from db.records import NewCase, NewFinding, SliceResult
from db.sweep_records import PathFound, SweptPath
from fuzzer.breach import of_violation
from fuzzer.build import build
from fuzzer.case import encode
from fuzzer.cores.core import Core
from fuzzer.explain import explain
from fuzzer.observation_json import to_json
from fuzzer.outcome import CRASHES
from fuzzer.signature import of_crash, of_parting_unseen
from fuzzer.sweep.outcomes import letters
from fuzzer.sweep.result import Breach, Divergence, PathResult
from fuzzer.sweep.sweep import sweep_path
from fuzzer.targets.registry import TARGETS
from reference.image import End, Event, Image, Observation, Step
from reference.run import run
from workers.child import NO_CASE, Starting
from workers.findings import bucket_of, new_finding, where


@dataclass(frozen=True, slots=True)
class PathWork:
    """A path to sweep; `lost` are the cases, by number, that took the engine's process with them, and how."""

    number: int
    target: str
    scenario: str
    profile: str
    start: str
    kinds: tuple[str, ...]
    second: tuple[str, ...]
    depth: int
    lost: tuple[tuple[int, End], ...] = ()

    def without(self, case: int, place: int, end: End) -> PathWork:
        """The same path, with the knowledge that one case cannot be run here; a path is for one core."""
        return replace(self, lost=(*self.lost, (case, end)))

    def run(self, cores: Sequence[Core], starting: Starting) -> PathFound:
        """Sweep the path on the one core there is; `starting` is told the number of each case before the engine runs it."""
        begun = time.monotonic()
        (core,) = cores
        watched = _Watched(core, starting, dict(self.lost))
        result = sweep_path(TARGETS[self.target], build, self.scenario, self.profile, self.kinds, self.depth, watched, self.second)
        findings = [*(_diverging(each, watched) for each in result.divergences), *(_breaking(each) for each in result.breaches)]
        return self._found(result, findings, time.monotonic() - begun)

    def _found(self, result: PathResult, findings: Sequence[tuple[NewFinding, int]], seconds: float) -> PathFound:
        hits: Counter[str] = Counter()
        for finding, count in findings:
            hits[finding.bucket.signature] += count
        crashes = sum(each.hits for each in result.divergences if each.core.end in CRASHES)
        found = SliceResult(
            number=self.number,
            cases=result.runs,
            seconds=seconds,
            not_modelled=result.not_modelled,
            tolerated=result.tolerated,
            crashes=crashes,
            hits=hits,
            findings=[finding for finding, _ in findings],
        )
        return PathFound(self._swept(result, seconds), found)

    def _swept(self, result: PathResult, seconds: float) -> SweptPath:
        return SweptPath(
            number=self.number,
            scenario=self.scenario,
            profile=self.profile,
            start=self.start,
            boundaries=result.boundaries,
            cells={kind: letters(row) for kind, row in result.cells.items()},
            runs=result.runs,
            merged=result.merged,
            contract_violations=result.contract_violations,
            divergences=result.divergent,
            seconds=seconds,
        )


class _Watched:
    """A core that says which case it is about to run, and does not run those that it is known not to survive.

    The cases of a path differ in their events only, and come in the same order each time.
    """

    def __init__(self, core: Core, starting: Starting, lost: dict[int, End]) -> None:
        self.name, self.version, self.delivers_events = core.name, core.version, core.delivers_events
        self._core = core
        self._starting = starting
        self._lost = lost
        self._numbers: dict[tuple[Event, ...], int] = {}

    def run(self, images: Sequence[Image]) -> Iterator[Observation]:
        """Run each image that the engine survives."""
        for image in images:
            number = self._numbers[image.events] = len(self._numbers)
            if number in self._lost:
                yield Observation(self._lost[number], detail="the engine's process was lost")
                continue
            self._starting(number, 0)
            observation = next(iter(self._core.run([image])))
            self._starting(NO_CASE, 0)
            yield observation

    def trace(self, image: Image) -> Iterator[Step]:
        """Run an image in steps, which an engine may fail to survive as well."""
        self._starting(self._numbers[image.events], 0)
        yield from self._core.trace(image)
        self._starting(NO_CASE, 0)


def _diverging(found: Divergence, core: Core) -> tuple[NewFinding, int]:
    """What is stored of a divergence, and how many cases it stands for."""
    case, image, end = found.case, build(found.case), found.core.end
    lost = end in CRASHES and end is not End.CORE_ERROR
    explanation = None if lost else explain(image, core)
    if lost:
        signature = of_crash(core.name, case.profile, end)
    elif explanation is None:
        signature = of_parting_unseen(core.name, case.profile, found.comparison.differences)
    else:
        signature = explanation.signature
    return new_finding(case, image, core, found.spec, found.core, found.comparison, signature, where(explanation)), found.hits


def _breaking(found: Breach) -> tuple[NewFinding, int]:
    """The same for a broken promise: both sides are the specification's run, in which it broke."""
    case, image, violation = found.case, build(found.case), found.violation
    code = TARGETS[case.target].code
    assert code is not None, "only what has a contract breaks it"
    seen = to_json(run(image), image)
    place = f"{violation.text}, at {violation.rip:#x}, boundary {violation.boundary}"
    finding = NewFinding(
        bucket=bucket_of(of_violation(violation, image, code)),
        case=NewCase(encode(case), case.target, case.scenario, case.profile, place),
        core_version="",
        spec=seen,
        observed=seen,
        differences=[],
    )
    return finding, found.hits
