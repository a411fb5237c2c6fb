"""Values as short text: numbers, RFLAGS by flag names, and marks that also work without colour."""

from __future__ import annotations

from typing import Final

from rich.text import Text

from reference.bits import FLAG_NAMES, IOPL

DIFFERS: Final = "bold red"
SET: Final = "bold yellow"
QUIET: Final = "dim"
HEADING: Final = "bold"

MARK: Final = "≠"
"""Before what differs between the specification and a core."""
OWN: Final = "*"
"""Before what the case sets."""


def hexadecimal(value: int) -> str:
    """A number as people read it here: 0x…, without leading zeros."""
    return f"{value:#x}"


def flags(value: int) -> str:
    """`0x246 [PF ZF IF]`: RFLAGS by flag names, IOPL with its level."""
    names = [name for name, bit in FLAG_NAMES.items() if value & bit and bit != IOPL]
    if value & IOPL:
        names.append(f"IOPL={(value & IOPL) >> 12}")
    return f"{value:#x} [{' '.join(names)}]"


def register(name: str, value: int) -> str:
    """The value of one register."""
    return flags(value) if name.rpartition(" ")[2].lower() == "rflags" else hexadecimal(value)


def heading(text: str) -> Text:
    """The title of a section, a line above it."""
    return Text(f"\n{text}", style=HEADING)


def marked(text: str, mark: str, style: str, on: bool) -> Text:
    """Text with a mark before it, or as much space."""
    return Text(f"{mark if on else ' ' * len(mark)} {text}", style=style if on else "")
