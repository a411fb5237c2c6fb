"""Whether QEMU is here, and which."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from typing import Final

PROGRAM: Final = "qemu-system-x86_64"
PACKAGE: Final = "qemu-system-x86"


@cache
def available() -> tuple[str | None, str]:
    """(version of QEMU, empty string), or (None, what is missing and how to get it)."""
    path = shutil.which(PROGRAM)
    if path is None:
        return None, f"{PROGRAM} is not on the path; on Debian: apt-get install {PACKAGE}"
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"version (\d+(?:\.\d+)+)", said)
    return (match[1], "") if match else (None, f"{PROGRAM} --version says nothing that is understood: {said[:60]!r}")
