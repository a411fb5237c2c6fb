"""Whether Bochs is here, and which."""

from __future__ import annotations

from functools import cache
from typing import Final

from fuzzer.cores.guest.program import ask_version

PROGRAM: Final = "bochs"
PACKAGE: Final = "bochs"


@cache
def available() -> tuple[str | None, str]:
    """(version of Bochs, empty string), or (None, what is missing and how to get it)."""
    return ask_version(PROGRAM, "--help", r"Bochs x86 Emulator (\d+(?:\.\d+)+)", PACKAGE)
