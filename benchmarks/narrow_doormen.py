"""Planted bugs that only show where several things come together: what random cases rarely do."""

from __future__ import annotations

from unicorn import x86_const

from fuzzer.cores.unicorn.delivery import NT, Arrival, Doorman


class Narrow(Doorman):
    """Saves an RSP that is off by 8, where `wrong` says so."""

    def frame(self, arrival: Arrival) -> list[int]:
        ss, rsp, *rest = super().frame(arrival)
        return [ss, rsp + 8 if self.wrong(arrival) else rsp, *rest]

    def wrong(self, arrival: Arrival) -> bool:
        return False

    @property
    def user_gs(self) -> bool:
        return self.cpl == 0 and not self._engine.read(x86_const.UC_X86_REG_GS_BASE) >> 63


class NmiOnUserGs(Narrow):
    """For an NMI in kernel mode with the user's GS."""

    def wrong(self, arrival: Arrival) -> bool:
        return arrival.vector == 2 and self.user_gs


class ThirdOnUserGs(Narrow):
    """For the third delivery of a run or a later one, in kernel mode with the user's GS."""

    def wrong(self, arrival: Arrival) -> bool:
        return len(self.deliveries) >= 2 and self.user_gs


class NestedTaskMachineCheck(Narrow):
    """For a machine check with NT set."""

    def wrong(self, arrival: Arrival) -> bool:
        return arrival.vector == 18 and bool(self.rflags & NT)


class InterruptInNmi(Narrow):
    """For a page fault in kernel mode behind an NMI."""

    def wrong(self, arrival: Arrival) -> bool:
        return arrival.vector == 14 and self.cpl == 0 and any(entry.vector == 2 for entry in self.deliveries)


NARROW = {
    "narrow-nmi-on-user-gs": NmiOnUserGs,
    "narrow-third-on-user-gs": ThirdOnUserGs,
    "narrow-machine-check-with-nt": NestedTaskMachineCheck,
    "narrow-page-fault-behind-nmi": InterruptInNmi,
}
