"""The child as a program that Linux can start: its text with the smallest ELF header around it."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

from fuzzer.cores.silicon.exchange import TEXT
from reference.image import PAGE

TEXT_FILE: Final = Path(__file__).parent / "child.bin"

_HEADER: Final = struct.Struct("<4sBBBB8xHHIQQQIHHHHHH")
_SEGMENT: Final = struct.Struct("<IIQQQQQQ")
_LOAD, _STACK = 1, 0x6474_E551
_READ, _WRITE, _EXECUTE = 4, 2, 1


def program(text: bytes) -> bytes:
    """An executable file: one segment at TEXT, and a stack without execute permission."""
    head = _HEADER.pack(b"\x7fELF", 2, 1, 1, 0, 2, 62, 1, TEXT, _HEADER.size, 0, 0, _HEADER.size, _SEGMENT.size, 2, 64, 0, 0)
    load = _SEGMENT.pack(_LOAD, _READ | _EXECUTE, PAGE, TEXT, TEXT, len(text), len(text), PAGE)
    stack = _SEGMENT.pack(_STACK, _READ | _WRITE, 0, 0, 0, 0, 0, 16)
    return (head + load + stack).ljust(PAGE, b"\0") + text
