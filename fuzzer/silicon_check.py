"""The specification against the host's processor, over generated cases that run in user mode."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from fuzzer.build import build
from fuzzer.case import Case
from fuzzer.compare import Difference
from fuzzer.cores.silicon.core import SiliconCore
from fuzzer.cores.silicon.event import FirstEvent, Kind
from fuzzer.cores.silicon.host import HostImage
from fuzzer.first_event import first_event
from fuzzer.generate.snippets import generate_in
from fuzzer.silicon import agree

SCENARIO: Final = "user"
SLICE: Final = 1000
"""Cases that are run together, in two orders."""


@dataclass(frozen=True, slots=True)
class Differing:
    """A case of which the processor says something else."""

    case: Case
    spec: str
    silicon: str
    differences: tuple[Difference, ...]


@dataclass(slots=True)
class Tally:
    """What came of some cases. Every case is in one of `compared`, `open` (why it was not asked) and `unrepeatable`."""

    cases: int = 0
    compared: int = 0
    unrepeatable: int = 0
    open: Counter[str] = field(default_factory=Counter)
    tolerated: Counter[str] = field(default_factory=Counter)
    differing: list[Differing] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Count what another tally counted."""
        self.cases += other.cases
        self.compared += other.compared
        self.unrepeatable += other.unrepeatable
        self.open += other.open
        self.tolerated += other.tolerated
        self.differing += other.differing


def generated(seed: int, number: int, profile: str) -> Case:
    """Case `number` of a check: the same on any machine of the profile."""
    material = hashlib.sha256(f"{seed}/silicon/{number}".encode()).digest()
    return generate_in(Random(int.from_bytes(material[:8], "little")), profile, SCENARIO)


def check(seed: int, numbers: range, core: SiliconCore) -> Tally:
    """Run the cases of these numbers on both, and compare their first events."""
    tally = Tally(cases=len(numbers))
    asked: list[tuple[Case, HostImage]] = []
    for number in numbers:
        case = generated(seed, number, core.profile.name)
        fitted = core.host.fit(build(case))
        if isinstance(fitted, str):
            tally.open[fitted] += 1
        else:
            asked.append((case, fitted))
    images = [image for _, image in asked]
    for (case, image), once, again in zip(asked, core.first(images), _backwards(core, images), strict=True):
        _judge(tally, core, case, image, once, again)
    return tally


def _backwards(core: SiliconCore, images: Sequence[HostImage]) -> list[FirstEvent]:
    """The same cases in the other order, each then where it belongs."""
    return list(core.first(images[::-1]))[::-1]


def _judge(tally: Tally, core: SiliconCore, case: Case, image: HostImage, once: FirstEvent, again: FirstEvent) -> None:
    spec = first_event(image.image)
    for each in (spec, once):
        if each.kind is Kind.OPEN:
            tally.open[each.detail] += 1
            return
    if once != again:
        tally.unrepeatable += 1
        return
    tally.compared += 1
    found = agree(image.image, spec, once, core.hypervisor)
    tally.tolerated.update(found.tolerated)
    if found.differences:
        tally.differing.append(Differing(core.host.whole(case), spec.words, once.words, found.differences))
