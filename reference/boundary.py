"""What happens between two instructions: events become pending, and the one of highest priority is taken.

The order is that of SDM Vol. 3A, Table 7-2: machine check, debug traps of the previous instruction, NMI, maskable
interrupts, then the faults of the next instruction.
"""

from __future__ import annotations

from reference.bits import TF
from reference.debug import ENABLES, take_trap
from reference.delivery import Entry, Source, enter
from reference.faults import NotModelled, Shutdown, Vector
from reference.image import Event, EventKind
from reference.machine import NEVER, Machine
from reference.profiles import Cr4


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
    _leave_model_where_open(m)
    _end_shadow(m)
    m.shadowed = blocking
    m.sheltered = shadow or m.sheltered
    if event := _choose(m, EventKind.MACHINE_CHECK, allowed=True):
        _start_machine_check(m)
        _take(m, event, Vector.MC)
    elif not blocking and take_trap(m):
        m.halted = False
        enter(m, Entry(Vector.DB, Source.TRAP, m.rip, resume=m.repeating))
    elif event := _choose(m, EventKind.NMI, allowed=not m.nmi_blocked and not blocking):
        m.nmi_blocked = True
        _take(m, event, Vector.NMI)
    elif event := _choose(m, EventKind.INTERRUPT, allowed=m.interrupts_enabled and not shadow):
        _take(m, event, event.vector)
    else:
        return False
    m.shadowed = m.sheltered = False
    return True


def _start_machine_check(m: Machine) -> None:
    """Shut down where no machine check can be delivered: CR4.MCE is 0, or MCG_STATUS.MCIP is still 1 (SDM Vol. 3B, 16.3.1.2)."""
    if not m.cr4 & Cr4.MCE or m.machine_check_in_progress:
        raise Shutdown
    m.machine_check_in_progress = True


def _leave_model_where_open(m: Machine) -> None:
    """What the manual leaves open: a second load of SS in a row (SDM Vol. 3A, 7.8.3), an NMI after STI (SDM Vol. 2B, STI), a debug
    trap that a machine check overtakes (SDM Vol. 3A, 7.9); and whether interrupts pass the task priority is the platform's choice."""
    if m.blocking_shadow and m.shadowed and (m.pending or m.debug_hits or m.rflags & TF or m.dr7 & ENABLES):
        raise NotModelled("an event after two loads of SS in a row")
    if m.repeating and m.sheltered and m.pending:
        raise NotModelled("an event waiting for a shadow that a repeated instruction began in")
    if m.shadow and not m.blocking_shadow and not m.nmi_blocked and _choose(m, EventKind.NMI, allowed=True):
        raise NotModelled("an NMI pending right after STI")
    if (m.trap_pending or m.debug_hits) and _choose(m, EventKind.MACHINE_CHECK, allowed=True):
        raise NotModelled("a machine check together with a debug trap")
    if m.cr8 and any(event.kind is EventKind.INTERRUPT and event.vector >> 4 <= m.cr8 for event in m.pending):
        raise NotModelled("an interrupt that the task priority may hold")


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
