"""Whether Bochs is here, and which."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from typing import Final

PROGRAM: Final = "bochs"
PACKAGE: Final = "bochs"


@cache
def available() -> tuple[str | None, str]:
    """(version of Bochs, empty string), or (None, what is missing and how to get it)."""
    path = shutil.which(PROGRAM)
    if path is None:
        return None, f"{PROGRAM} is not on the path; on Debian: apt-get install {PACKAGE}"
    done = subprocess.run([path, "--help"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    match = re.search(r"Bochs x86 Emulator (\d+(?:\.\d+)+)", done.stdout + done.stderr)
    return (match[1], "") if match else (None, f"{PROGRAM} --help says nothing that is understood: {done.stderr[:60]!r}")
