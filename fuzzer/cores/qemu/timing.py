"""From boundaries to the timers of QEMU's machine: with -icount, the guest's clock moves by instructions and by nothing else.

The harness executes a fixed number of instructions between setting a timer and the first instruction of the case: counted here, and
proved by the tests of arrival at every boundary.
"""

from __future__ import annotations

from typing import Final

from fuzzer.cores.qemu.process import NANOSECONDS

_HPET_PERIOD: Final = 10
_BEFORE_STOP: Final = 4
"""Instructions between the write to the APIC's timer and boundary 0."""
_BEFORE_EVENTS: Final = 9
"""The same from the reading of the HPET's counter, without the loop that sets its timers."""
_ROUND: Final = 11
"""Instructions of the loop for one event."""


class QemuTiming:
    """Counts and delays for the harness."""

    beginning = NANOSECONDS * (_BEFORE_STOP + 1)

    def stop(self, boundary: int, events: int) -> int:
        """The APIC timer's count that stops a run at a boundary."""
        return NANOSECONDS * (boundary + _BEFORE_STOP) + NANOSECONDS // 4

    def delays(self, boundaries: tuple[int, ...]) -> tuple[int, ...]:
        """The HPET's ticks, one for each event, after which events at these boundaries become pending.

        Setting a timer is exact to one period either way, so the aim is inside the time of one instruction by that much.
        """
        before = _BEFORE_EVENTS + _ROUND * len(boundaries)
        return tuple((NANOSECONDS * (before + boundary) - _HPET_PERIOD) // _HPET_PERIOD for boundary in boundaries)
