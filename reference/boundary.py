"""What happens between two instructions: events become pending, and the one of highest priority is taken.

The order is that of SDM Vol. 3A, Table 7-2: machine check, debug traps of the previous instruction, NMI, maskable
interrupts, then the faults of the next instruction.
"""

from __future__ import annotations

from typing import Final

from reference.debug import take_trap
from reference.delivery import Entry, Source, enter
from reference.faults import NotModelled, Shutdown, Vector
from reference.image import Event, EventKind
from reference.machine import NEVER, Machine
from reference.profiles import Cr4

_PRIORITY: Final = (EventKind.MACHINE_CHECK, EventKind.NMI, EventKind.INTERRUPT)


def admit_arrivals(m: Machine) -> None:
    """Make pending what is due at this boundary. A latch holds one event of a kind: a second NMI is lost while one waits
    (SDM Vol. 3A, 7.7.1), and so is a second interrupt of the same vector (SDM Vol. 3A, 11.8.4)."""
    while m.arrivals and m.arrivals[-1].boundary <= m.retired:
        event = m.arrivals.pop()
        if all(event.kind is not waiting.kind or event.vector != waiting.vector for waiting in m.pending):
            m.pending.append(event)
    m.next_arrival = m.arrivals[-1].boundary if m.arrivals else NEVER


def take_events(m: Machine) -> bool:
    """Deliver the first event that the architecture allows at this boundary; whether there was one."""
    shadow, blocking = m.shadow, m.blocking_shadow
    if blocking and m.shadowed and m.pending:
        raise NotModelled("an event pending after two loads of SS in a row")
    _end_shadow(m)
    m.shadowed = blocking
    if event := _choose(m, EventKind.MACHINE_CHECK, allowed=True):
        if not m.cr4 & Cr4.MCE:
            raise Shutdown
        _take(m, event, Vector.MC)
    elif not blocking and take_trap(m):
        enter(m, Entry(Vector.DB, Source.TRAP, m.rip, resume=m.repeating))
    elif event := _choose(m, EventKind.NMI, allowed=not m.nmi_blocked and not blocking):
        m.nmi_blocked = True
        _take(m, event, Vector.NMI)
    elif event := _choose(m, EventKind.INTERRUPT, allowed=m.interrupts_enabled and not shadow):
        _take(m, event, event.vector)
    else:
        return False
    m.shadowed = False
    return True


def _choose(m: Machine, kind: EventKind, allowed: bool) -> Event | None:
    """The pending event of a kind, if it may be taken; among interrupts the highest vector (SDM Vol. 3A, 11.8.3)."""
    waiting = [event for event in m.pending if event.kind is kind]
    return max(waiting, key=lambda event: event.vector) if waiting and allowed else None


def _take(m: Machine, event: Event, vector: int) -> None:
    m.pending.remove(event)
    m.halted = False
    enter(m, Entry(vector, Source.EXTERNAL, m.rip, resume=m.repeating))


def _end_shadow(m: Machine) -> None:
    m.shadow = False
    m.blocking_shadow = False
