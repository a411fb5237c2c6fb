"""The events that a sweep puts at every boundary."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from fuzzer.case import Case
from fuzzer.targets.layout import END_VECTOR
from reference.image import Event, EventKind

_EVENTS: Final = {
    "interrupt": (EventKind.INTERRUPT, 0x21),
    "nmi": (EventKind.NMI, 2),
    "mce": (EventKind.MACHINE_CHECK, 18),
}
"""Kind and vector by the names people give them."""
KINDS: Final = tuple(_EVENTS)
_VECTOR: Final = re.compile(r"interrupt:0x([2-9a-f][0-9a-f])")


def is_kind(name: str) -> bool:
    """Whether `name` is a kind of event: one of KINDS, or `interrupt:0x20` to `interrupt:0xff` but for the vector that ends a run."""
    vector = _VECTOR.fullmatch(name)
    return name in KINDS or (vector is not None and int(vector[1], 16) != END_VECTOR)


def event_at(kind: str, boundary: int) -> Event:
    """The event of a kind that becomes pending at `boundary`; `interrupt:0x30` is the interrupt of another vector."""
    name, _, other = kind.partition(":")
    what, vector = _EVENTS[name]
    return Event(boundary, what, int(other, 0) if other else vector)


def with_event(case: Case, event: Event) -> Case:
    """`case` with one event more, as `fuzzer.case.canonical` would order them."""
    events = sorted({*case.events, event}, key=lambda each: (each.boundary, each.kind.value, each.vector))
    return replace(case, events=tuple(events))
