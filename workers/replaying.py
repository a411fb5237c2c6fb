"""Stored examples run again, on the specification and on the core as it is now: does each still show its bucket?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from db.life_records import ReplayedCase, ReplayFound
from fuzzer.build import build
from fuzzer.case import decode
from fuzzer.compare import compare
from fuzzer.cores.core import Core
from fuzzer.explain import explain
from fuzzer.outcome import CRASHES
from fuzzer.signature import of_crash, of_parting_unseen
from reference.image import End
from reference.run import run
from workers.child import NO_CASE, Starting


@dataclass(frozen=True, slots=True)
class Example:
    """A stored case of a bucket, and the target and scenario that its bytes meant when they were stored."""

    bucket_id: str
    case_digest: str
    data: bytes
    target: str
    scenario: str


@dataclass(frozen=True, slots=True)
class ReplayWork:
    """Examples to run again on one core; `lost` are those, by place, that took the engine's process with them, and how."""

    number: int
    core: str
    examples: tuple[Example, ...]
    lost: tuple[tuple[int, End], ...] = ()

    def without(self, case: int, place: int, end: End) -> ReplayWork:
        """The same examples, with the knowledge that one of them cannot be run here."""
        return replace(self, lost=(*self.lost, (case, end)))

    def run(self, cores: Sequence[Core], starting: Starting) -> ReplayFound:
        """What each of them shows now; `starting` is told the place of each before the engine runs it."""
        begun = time.monotonic()
        (core,) = cores
        lost = dict(self.lost)
        replayed = []
        for place, example in enumerate(self.examples):
            starting(place, 0)
            replayed.append(_lost(example, core, lost[place]) if place in lost else _replayed(example, core))
        starting(NO_CASE, 0)
        crashes = sum(end in CRASHES for end in lost.values())
        return ReplayFound(self.number, self.core, core.version, time.monotonic() - begun, crashes, replayed)


def _lost(example: Example, core: Core, end: End) -> ReplayedCase:
    """What a case shows that took its process with it; if that was our adapter's mistake, nothing."""
    told = end is not End.UNSUPPORTED
    shows = of_crash(core.name, decode(example.data).profile, end).text if told else ""
    return ReplayedCase(example.bucket_id, example.case_digest, shows, told)


def _replayed(example: Example, core: Core) -> ReplayedCase:
    silent = ReplayedCase(example.bucket_id, example.case_digest, "", told=False)
    case = decode(example.data)
    if (case.target, case.scenario) != (example.target, example.scenario):
        return silent  # Of somebody's own target, which this machine does not know: the bytes mean another case here.
    image = build(case)
    spec = run(image)
    if spec.end is End.NOT_MODELLED:
        return silent
    (observation,) = core.run([image])
    comparison = compare(image, spec, observation)
    if not comparison.comparable:
        return silent
    if not comparison.differences:
        return replace(silent, told=True)
    explanation = explain(image, core)
    signature = explanation.signature if explanation else of_parting_unseen(core.name, case.profile, comparison.differences)
    return replace(silent, shows=signature.text, told=True)
