"""Waiting for an engine's turn to end: jobs that take no time, on an engine that may die, or stay with one of them for ever."""

from __future__ import annotations

import subprocess
import time
from enum import Enum
from typing import Final

from fuzzer.cores.guest.memory import GuestMemory
from fuzzer.cores.guest.program import processor_time

_NAP: Final = 0.0005
_NOTICED: Final = 0.02
"""Seconds without progress after which the engine's processor time is looked at: that look costs more than a job."""


class Turn(Enum):
    """How a turn went."""

    DONE = "done"
    STALLED = "stalled"
    """The engine works, and gets nowhere."""
    LOST = "lost"


def wait(guest: GuestMemory, process: subprocess.Popen[bytes], stall: float, seconds: float) -> Turn:
    """Wait for the end of a turn: STALLED after `stall` of processor time without progress, LOST after `seconds`, or where the engine ends.

    Raises OSError where the guest's memory is gone with the engine.
    """
    watched, since, spent = -1, time.monotonic(), 0.0
    while not guest.done():
        progress, now = guest.progress(), time.monotonic()
        if progress != watched:
            watched, since, spent = progress, now, 0.0
        elif process.poll() is not None or now - since > seconds:
            return Turn.LOST
        elif now - since > _NOTICED:
            so_far = processor_time(process.pid)
            spent = spent or so_far
            if so_far - spent > stall:
                return Turn.STALLED
        time.sleep(_NAP)
    return Turn.DONE
