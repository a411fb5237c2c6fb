"""Events from outside: which wait, which goes first, and what holds the others back (SDM Vol. 3A, 7.7, 7.8 and Table 7-2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from fuzzer.cores.unicorn.delivery import ShutdownError
from reference.image import Event, EventKind

_RANK: Final = {EventKind.MACHINE_CHECK: 0, EventKind.NMI: 1, EventKind.INTERRUPT: 2}


class Arrivals:
    """The events of one run, with the latches that the engine does not have.

    `shadow` and `stack_shadow` say whether STI or MOV SS, or MOV SS itself, was the instruction before.
    """

    def __init__(self, events: Iterable[Event]) -> None:
        self.scheduled = sorted(events)
        self.waiting: list[Event] = []
        self.nmi_blocked = False
        self.machine_check_in_progress = False
        """MCG_STATUS.MCIP, which nothing in the model clears."""
        self.shadow = self.stack_shadow = False
        self.held_by_shadow = False
        """The engine's interrupt shadow held back an interrupt."""

    @property
    def open(self) -> bool:
        """Whether an event waits or is still to come."""
        return bool(self.waiting or self.scheduled)

    @property
    def watches_iret(self) -> bool:
        """Whether an NMI is held until the next IRET, or will be."""
        return self.nmi_blocked and any(event.kind is EventKind.NMI for event in (*self.waiting, *self.scheduled))

    def due(self, retired: int) -> bool:
        """Whether an event waits at this boundary."""
        return bool(self.waiting) or (bool(self.scheduled) and self.scheduled[0].boundary <= retired)

    def admit(self, retired: int) -> None:
        """Let wait what is due; one of its kind and vector that waits already swallows it (SDM Vol. 3A, 7.7.1 and 11.8.4)."""
        while self.scheduled and self.scheduled[0].boundary <= retired:
            event = self.scheduled.pop(0)
            if (event.kind, event.vector) not in [(waiting.kind, waiting.vector) for waiting in self.waiting]:
                self.waiting.append(event)

    def choose(self, interrupts_enabled: Callable[[], int]) -> Event | None:
        """The waiting event that goes first now, if any may."""
        for event in sorted(self.waiting, key=lambda waiting: (_RANK[waiting.kind], -waiting.vector)):
            if event.kind is EventKind.MACHINE_CHECK:
                return event
            if event.kind is EventKind.NMI and not self.nmi_blocked and not self.shadow_holds_nmi():
                return event
            if event.kind is EventKind.INTERRUPT and interrupts_enabled():
                if not self.shadow_holds_interrupts():
                    return event
                self.held_by_shadow = True
        return None

    def take(self, event: Event, machine_checks_enabled: bool) -> None:
        """Note that an event is delivered. Raises ShutdownError where no machine check can be (SDM Vol. 3B, 16.3.1.2)."""
        self.waiting.remove(event)
        if event.kind is EventKind.NMI:
            self.block_nmi()
        elif event.kind is EventKind.MACHINE_CHECK:
            if not machine_checks_enabled or self.machine_check_in_progress:
                raise ShutdownError
            self.machine_check_in_progress = True

    def shadow_holds_interrupts(self) -> bool:
        """Behind STI and MOV SS, interrupts wait for one instruction (SDM Vol. 3A, 7.8.1 and 7.8.3)."""
        return self.shadow

    def shadow_holds_nmi(self) -> bool:
        """Behind MOV SS, NMIs wait too (SDM Vol. 3A, 7.8.3)."""
        return self.stack_shadow

    def block_nmi(self) -> None:
        """An NMI is delivered: others wait (SDM Vol. 3A, 7.7.1)."""
        self.nmi_blocked = True

    def unblock_nmi(self) -> None:
        """IRET was executed."""
        self.nmi_blocked = False

    def end_shadow(self) -> None:
        """A handler was entered."""
        self.shadow = self.stack_shadow = False
