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
CS_BASE: Final = SEGMENTS + SEGMENT_SIZE + 8
LDTR: Final = SEGMENTS + 6 * SEGMENT_SIZE
TR: Final = LDTR + SEGMENT_SIZE
GDTR: Final = TR + SEGMENT_SIZE
CR2: Final = GDTR + 2 * SEGMENT_SIZE + 16
CR4: Final = CR2 + 16
ERROR_CODE: Final = 5384  # then, in the next 4 bytes, whether INT n or INT3 raised it
DEBUG: Final = 5400
DEBUG_FORMAT: Final = "<32s24x40s"
"""DR0 to DR3; DR7 and the engine's pointers to the four breakpoints."""
DR6: Final = DEBUG + 48
DR7: Final = DEBUG + 56
OLD_EXCEPTION: Final = 5496

HFLAG_CPL: Final = 3
HFLAG_SHADOW: Final = 1 << 3
HFLAG_CS32: Final = 1 << 4
HFLAG_SS32: Final = 1 << 5
HFLAG_ADDSEG: Final = 1 << 6
HFLAG_CS64: Final = 1 << 15
HFLAG_MODE: Final = HFLAG_CS32 | HFLAG_SS32 | HFLAG_ADDSEG | HFLAG_CS64
"""What the engine translates by: operand sizes, and whether the bases of ES, SS and DS count."""
HFLAG_MODE_64: Final = HFLAG_CS32 | HFLAG_SS32 | HFLAG_CS64
"""The last three mean nothing beside CS64; always the same, they let translated code be shared."""

DESCRIPTOR_L: Final = 1 << 53
DESCRIPTOR_D: Final = 1 << 54

SENTINELS: Final = {
    "rax": 0x1122_3344_5566_7788,
    "rip": 0x0000_1357_9BDF_0246,
    "fs_base": 0x0000_7EDC_BA98_7000,
    "gdtr": 0x0000_6ACE_0246_8000,
    "cr2": 0x0000_3CE0_2468_A000,
    "dr0": 0x0000_5BDF_1357_9000,
    "dr6": 0xFFFF_0FF5,
}
"""Values that are nowhere else in a fresh CPU state, or not where they are looked for."""


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
        (CR2, SENTINELS["cr2"]),
        (DEBUG, SENTINELS["dr0"]),
        (DR6, SENTINELS["dr6"]),
    )
    if len(context) < env + OLD_EXCEPTION + 4:
        return None
    matches = all(struct.unpack_from("<Q", context, env + offset)[0] == value for offset, value in expected)
    return Layout(env, len(context)) if matches else None


def mode_hflags(code: int, stack: int, based: bool) -> int:
    """HFLAG_MODE for a code and a stack descriptor; `based`: ES, SS or DS has a base."""
    if code & DESCRIPTOR_L:
        return HFLAG_MODE_64
    code_32 = HFLAG_CS32 if code & DESCRIPTOR_D else 0
    stack_32 = HFLAG_SS32 if stack & DESCRIPTOR_D else 0
    return code_32 | stack_32 | (HFLAG_ADDSEG if based or not code_32 else 0)


def handler_hflags(hflags: int, cpl: int) -> int:
    """`hflags` of the same engine at the first instruction of 64-bit code that was entered at a privilege level."""
    return hflags & ~(HFLAG_CPL | HFLAG_SHADOW | HFLAG_MODE) | HFLAG_MODE_64 | cpl


def code_bits(hflags: int) -> int:
    """64, 32 or 16: how the engine reads instructions."""
    if hflags & HFLAG_CS64:
        return 64
    return 32 if hflags & HFLAG_CS32 else 16


def segment_cache(selector: int, descriptor: int, base: int | None = None) -> bytes:
    """A descriptor cache as the engine keeps it: selector, base, limit in bytes, and the descriptor's upper half as flags."""
    low, high = descriptor & 0xFFFF_FFFF, descriptor >> 32
    if base is None:
        base = segment_base(descriptor)
    limit = low & 0xFFFF | high & 0xF_0000
    if high >> 23 & 1:
        limit = limit << 12 | 0xFFF
    return struct.pack("<IIQII", selector, 0, base, limit, high)


def segment_base(descriptor: int) -> int:
    """The base of a code or data segment."""
    return descriptor >> 16 & 0xFF_FFFF | descriptor >> 32 & 0xFF00_0000
