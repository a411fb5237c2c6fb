"""From boundaries to the timers of Bochs's machine: its clock moves by instructions and by nothing else.

The harness executes a fixed number of instructions between reading the HPET's counter and the first instruction of the case: counted
here, and proved by the tests of arrival at every boundary.
"""

from __future__ import annotations

from typing import Final

INSTRUCTIONS_PER_SECOND: Final = 1_000_000
_TICKS: Final = 100
"""Of the HPET, 10 ns each, for one instruction."""
_BEFORE: Final = 13
"""Instructions from the reading of the counter to boundary 0, without the loop that sets the timers."""
_ROUND: Final = 13
"""Instructions of the loop for one timer."""


class BochsTiming:
    """Delays for the harness; the stop is a timer like the others, set before them."""

    beginning = 5

    def stop(self, boundary: int, events: int) -> int:
        """The HPET's ticks after which a run with so many events stops at a boundary."""
        return _TICKS * (_BEFORE + _ROUND * (events + 1) + boundary)

    def delays(self, boundaries: tuple[int, ...]) -> tuple[int, ...]:
        """The HPET's ticks, one for each event, after which events at these boundaries become pending."""
        return tuple(self.stop(boundary, len(boundaries)) for boundary in boundaries)
