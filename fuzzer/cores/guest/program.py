"""Engines that are programs of their own: which version is here, and what time they have used."""

from __future__ import annotations

import re
import shutil
import subprocess
import time


def ask_version(program: str, option: str, pattern: str, package: str) -> tuple[str | None, str]:
    """(version, empty string) by what the program says to an option, or (None, what is missing and how to get it)."""
    path = shutil.which(program)
    if path is None:
        return None, f"{program} is not on the path; on Debian: apt-get install {package}"
    done = subprocess.run([path, option], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    said = done.stdout + done.stderr
    match = re.search(pattern, said)
    return (match[1], "") if match else (None, f"{program} {option} says nothing that is understood: {said[:60]!r}")


def processor_time(pid: int) -> float:
    """Seconds of processor time that a process has had; 0 of one that has ended. On a busy machine, what a stall is measured by."""
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return 0.0
