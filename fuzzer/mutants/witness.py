"""A witness: the case, made by hand, that shows that a mutant can be seen at all."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from fuzzer.build import builder
from fuzzer.case import Case, canonical
from fuzzer.mutants.code import EditError, Place
from fuzzer.targets import layout
from fuzzer.targets.linux4 import image
from fuzzer.targets.target import Patch, Target, patch
from reference.image import REGISTER_INDEX, Event, EventKind
from reference.trace import trace

_VECTORS = {EventKind.INTERRUPT: 0x21, EventKind.NMI: 2, EventKind.MACHINE_CHECK: 18}


@dataclass(frozen=True, slots=True)
class Arrival:
    """An event that becomes pending when the processor stands before an instruction, the `visit`th time that it does.

    In the interrupted code, which has no labels, the place is the number of instructions before it.
    """

    kind: EventKind
    place: Place | int
    visit: int = 0

    def event(self, boundary: int) -> Event:
        """The event at the boundary that this turned out to be."""
        return Event(boundary, self.kind, _VECTORS[self.kind])


@dataclass(frozen=True, slots=True)
class Witness:
    """A scenario with its own events, what arrives besides and where, and what is in registers and memory.

    Places in the code, not numbers, so that it outlives changes.
    """

    scenario: str
    arrivals: tuple[Arrival, ...] = ()
    profile: str = "intel"
    registers: Mapping[str, int] = field(default_factory=dict)
    memory: tuple[Patch, ...] = ()

    def case(self, target: Target) -> Case:
        """The case on `target`, arrivals as boundaries of its own path."""
        events = target.scenario(self.scenario).events
        for arrival in self.arrivals:
            events = (*events, arrival.event(_boundary(target, self._with(events), arrival)))
        return self._with(events)

    def _with(self, events: tuple[Event, ...]) -> Case:
        return canonical(Case("linux4", self.scenario, self.profile, tuple(self.registers.items()), self.memory, events))


def recorder_asks(what: str, handler: str) -> Patch:
    """The control page that makes `handler` once execute INT3 (`breakpoint`), or make the scheduler due (`reschedule`)."""
    return patch(layout.CONTROL, image.CONTROL_FIELDS[what], struct.pack("<Q", image.HANDLERS[handler]))


def recorder_changes(handler: str, **fields: int) -> Patch:
    """The control page that makes `handler`, or any if it is '', once write fields of its pt_regs, as ptrace and sigreturn do."""
    pairs = b"".join(struct.pack("<QQ", image.PT_REGS[name], value) for name, value in fields.items())
    return patch(layout.CONTROL, 0, struct.pack("<QQQQ", 0, image.HANDLERS.get(handler, 0), len(fields), 0) + pairs)


def _boundary(target: Target, case: Case, arrival: Arrival) -> int:
    """The first boundary at which RIP is at the place, behind all events that the case has already.

    A boundary number belongs to the first stop there: a handler that a fault opens begins at the boundary of the faulting instruction.
    """
    if isinstance(arrival.place, int):
        return arrival.place
    address = arrival.place.find(target).ip
    last, visits = max((event.boundary for event in case.events), default=-1), 0
    for step in trace(builder(target)(case)):
        if step.retired > last and step.registers[REGISTER_INDEX["rip"]] == address:
            if visits == arrival.visit:
                return step.retired
            visits += 1
        last = max(last, step.retired)
    raise EditError(f"{case.scenario} does not reach {arrival.place.symbol}: {arrival.place.text} {arrival.visit + 1} times")
