"""A process that does not outlive the one that started it."""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Final

_DEATH_SIGNAL: Final = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


def die_with(parent: int) -> None:
    """Runs in the child, whose parent has this process id: be killed when the thread that started it is gone."""
    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    # It may have gone before. In a container the parent can be process 1, so that number says nothing.
    if os.getppid() != parent:
        os._exit(1)
