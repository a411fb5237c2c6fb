"""Where Unicorn keeps the parts of the CPU that its interface does not show: found at start-up, or refused.

`uc_context_save` copies the engine's CPU state as it is in memory. Privilege level, descriptor caches, error code and the
interrupt shadow can be read and written only there. The offsets below are those of the wheel for 2.1.4; `find` proves each of
them on the running library with values that it writes through the official interface first.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

RIP: Final = 128
EFLAGS: Final = 136
HFLAGS: Final = 176
SEGMENTS: Final = 184
SEGMENT_SIZE: Final = 24
LDTR: Final = SEGMENTS + 6 * SEGMENT_SIZE
TR: Final = LDTR + SEGMENT_SIZE
GDTR: Final = TR + SEGMENT_SIZE
ERROR_CODE: Final = 5384  # then, in the next 4 bytes, whether INT n or INT3 raised it
DEBUG: Final = 5400
DEBUG_FORMAT: Final = "<32s24x40s"
"""DR0 to DR3; DR7 and the engine's pointers to the four breakpoints."""
OLD_EXCEPTION: Final = 5496

HFLAG_CPL: Final = 3
HFLAG_SHADOW: Final = 1 << 3

SENTINELS: Final = {
    "rax": 0x1122_3344_5566_7788,
    "rip": 0x0000_1357_9BDF_0246,
    "fs_base": 0x0000_7EDC_BA98_7000,
    "gdtr": 0x0000_6ACE_0246_8000,
    "dr0": 0x0000_5BDF_1357_9000,
}
"""Values that occur nowhere else in a fresh CPU state."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The place of the CPU state inside the context, and the context's size, in bytes."""

    env: int
    size: int


def find(context: bytes) -> Layout | None:
    """The layout of a context that was saved with SENTINELS in place, or None where they are not where they should be."""
    env = context.find(struct.pack("<Q", SENTINELS["rax"]))
    if env < 0:
        return None
    expected = (
        (RIP, SENTINELS["rip"]),
        (SEGMENTS + 4 * SEGMENT_SIZE + 8, SENTINELS["fs_base"]),
        (GDTR + 8, SENTINELS["gdtr"]),
        (DEBUG, SENTINELS["dr0"]),
    )
    if len(context) < env + OLD_EXCEPTION + 4:
        return None
    matches = all(struct.unpack_from("<Q", context, env + offset)[0] == value for offset, value in expected)
    return Layout(env, len(context)) if matches else None


def segment_cache(selector: int, descriptor: int, base: int | None = None) -> bytes:
    """A descriptor cache as the engine keeps it: selector, base, limit in bytes, and the descriptor's upper half as flags."""
    low, high = descriptor & 0xFFFF_FFFF, descriptor >> 32
    if base is None:
        base = low >> 16 | (high & 0xFF) << 16 | high & 0xFF00_0000
    limit = low & 0xFFFF | high & 0xF_0000
    if high >> 23 & 1:
        limit = limit << 12 | 0xFFF
    return struct.pack("<IIQII", selector, 0, base, limit, high)
