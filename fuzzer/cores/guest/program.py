"""Engines that are programs of their own: which version is here, and that none outlives the process that started it."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Final

_DEATH_SIGNAL: Final = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


def ask_version(program: str, option: str, pattern: str, package: str) -> tuple[str | None, str]:
    """(version, empty string) by what the program says to an option, or (None, what is missing and how to get it)."""
    path = shutil.which(program)
    if path is None:
        return None, f"{program} is not on the path; on Debian: apt-get install {package}"
    done = subprocess.run([path, option], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    said = done.stdout + done.stderr
    match = re.search(pattern, said)
    return (match[1], "") if match else (None, f"{program} {option} says nothing that is understood: {said[:60]!r}")


def dying_with(parent: int) -> Callable[[], None]:
    """What a child of the process `parent` runs, so that it is killed when that is gone."""

    def prepare() -> None:
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:  # gone already
            os._exit(1)

    return prepare


def processor_time(pid: int) -> float:
    """Seconds of processor time that a process has had; 0 of one that has ended. On a busy machine, what a stall is measured by."""
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return 0.0
