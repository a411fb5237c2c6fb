"""Whether QEMU is here, and which."""

from __future__ import annotations

from functools import cache
from typing import Final

from fuzzer.cores.guest.program import ask_version

PROGRAM: Final = "qemu-system-x86_64"
PACKAGE: Final = "qemu-system-x86"


@cache
def available() -> tuple[str | None, str]:
    """(version of QEMU, empty string), or (None, what is missing and how to get it)."""
    return ask_version(PROGRAM, "--version", r"version (\d+(?:\.\d+)+)", PACKAGE)
