"""Steps of different grain are put beside each other by the boundaries that they pass."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fuzzer_builders import snippet

from fuzzer.alignment import beside, by_boundary
from fuzzer.build import build
from fuzzer.cores.unicorn.core import UnicornCore
from fuzzer.explain import step_differences
from reference.image import End, Event, EventKind, Image, Step
from reference.trace import trace


class Coarse(UnicornCore):
    """Unicorn as an engine would show it that delivers events itself and stops at boundaries only."""

    delivers_events = True

    def trace(self, image: Image) -> Iterator[Step]:
        return by_boundary(super().trace(image))


CASES = {
    "nothing-but-instructions": snippet("90 48ffc0 90"),
    "nmi-between": snippet("90 90 90", events=(Event(1, EventKind.NMI),)),
    "two-events-at-once": snippet("90 90 90", events=(Event(1, EventKind.NMI), Event(1, EventKind.INTERRUPT, 0x40))),
    "a-fault-and-its-handler": snippet("90 0f0b"),
    "an-event-behind-a-fault": snippet("90 0f0b", events=(Event(1, EventKind.NMI),)),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_boundary_is_passed_once(case: object) -> None:
    steps = list(by_boundary(trace(build(case))))  # type: ignore[arg-type]

    assert [step.retired for step in steps[:-1]] == list(range(len(steps) - 1))
    assert steps[-1].end is End.ENDED


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_core_that_shows_boundaries_only_is_compared_step_by_step(case: object) -> None:
    image = build(case)  # type: ignore[arg-type]

    pairs = list(beside(image, Coarse()))

    assert len(pairs) > 1
    assert [step_differences(image, *pair) for pair in pairs] == [()] * len(pairs)
    assert all(spec.delivered == other.delivered and spec.raised == other.raised for spec, other in pairs)


def test_what_is_met_on_the_way_is_told_with_the_instruction_behind_it() -> None:
    image = build(CASES["nmi-between"])

    (told,) = [step for step in by_boundary(trace(image)) if step.delivered and step.end is None]

    assert [entry.vector for entry in told.delivered] == [2]
    assert told.asynchronous


def test_a_delivery_says_where_its_frame_lies() -> None:
    image = build(CASES["nmi-between"])

    fine = next(step for step in trace(image) if step.delivered)

    assert fine.delivered[0].frame == fine.registers[4], "RSP, before the handler has moved it"
