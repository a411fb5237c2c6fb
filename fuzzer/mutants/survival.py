"""Events that no entry code of this kind survives, whatever it does right: neither arm sends them."""

from __future__ import annotations

from collections.abc import Iterable

from reference.image import Event, EventKind


def fatal(events: Iterable[Event]) -> frozenset[Event]:
    """The events that are too many.

    A second machine check shuts the processor down, as nothing in the model clears MCG_STATUS.MCIP (SDM Vol. 3B, 16.3.1.2). One inside
    the first instructions of an NMI's entry opens the latch with its IRET, before that entry is ready for another NMI; Linux takes it
    that this does not happen. So beside a machine check there is at most one NMI.
    """
    known = tuple(events)
    checks = [event for event in known if event.kind is EventKind.MACHINE_CHECK]
    nmis = [event for event in known if event.kind is EventKind.NMI]
    return frozenset((*checks[1:], *(nmis[1:] if checks else ())))
