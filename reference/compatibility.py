"""Compatibility mode: 32-bit user code under a 64-bit kernel, where segments have bases, limits and types again.

What counts as compatibility mode here is 32-bit code at CPL 3 on a 32-bit stack; the other forms leave the model.
"""

from __future__ import annotations

from typing import Final

from reference.bits import MASK16, MASK32, canonical
from reference.descriptors import TYPE_EXPAND_DOWN, Descriptor, Segment
from reference.faults import NotModelled, Vector, require
from reference.machine import SS, Machine
from reference.memory import load, store

_LEGACY_REGISTERS: Final = range(8)
"""RAX to RDI; R8 to R15 are kept through compatibility mode (SDM Vol. 1, 3.4.1.1)."""


def check_mode(m: Machine) -> None:
    """Behind every load of CS: leave the model unless the next instruction is 64-bit code or 32-bit code at CPL 3.

    On the way to compatibility mode bits 63:32 of RAX to RDI become undefined (SDM Vol. 1, 3.4.1.1); where all are 0 they stay.
    """
    code = m.cs.descriptor
    if code.long:
        return
    if not code.default_big:
        raise NotModelled("16-bit code segment")
    if m.cpl != 3:
        raise NotModelled("compatibility mode below CPL 3")
    check_stack_width(m.ss)
    if any(m.gpr[number] > MASK32 for number in _LEGACY_REGISTERS):
        raise NotModelled("bits 63:32 of a general register in compatibility mode")
    if not is_flat(m.cs):
        m.user32.fetches.clear()


def check_stack_width(stack: Segment) -> None:
    """Leave the model where SS.B is clear: pushes and pops would use SP (SDM Vol. 3A, 3.4.5)."""
    if not stack.usable:
        raise NotModelled("an unusable stack segment in compatibility mode")
    if not stack.descriptor.default_big:
        raise NotModelled("16-bit stack segment")


def is_flat(segment: Segment) -> bool:
    """Offsets are linear addresses, and none is past the limit."""
    return segment.base == 0 and segment.limit == MASK32


def far_target(descriptor: Descriptor, rip: int, source: str) -> int:
    """The RIP of a far transfer to a code segment: canonical in 64-bit mode, within the limit otherwise (`source` is the manual's page)."""
    if descriptor.long:
        require(canonical(rip), Vector.GP, 0, f"{source}: the new RIP is not canonical")
        return rip
    if rip > MASK32:
        # IRET compares EIP with the limit, far RET and the APM the whole instruction pointer.
        raise NotModelled("bits 63:32 of RIP on the way to compatibility mode")
    require(rip <= descriptor.limit, Vector.GP, 0, f"{source}: the new EIP is past the limit of the code segment")
    return rip


def linear_address(m: Machine, index: int, offset: int, size: int, write: bool) -> int:
    """Where `size` bytes at `offset` of a segment are, once its type and limit allow the access (SDM Vol. 3A, 6.3 to 6.5).

    A base of FS or GS counts with its low 32 bits only (SDM Vol. 3A, 3.4.4).
    """
    segment = m.segments[index]
    vector = Vector.SS if index == SS else Vector.GP
    descriptor = segment.descriptor
    require(segment.usable, vector, 0, "SDM Vol. 3A, 6.4.1: a segment register that holds a null selector is used")
    allowed = descriptor.is_writable_data if write else descriptor.is_readable
    require(allowed, vector, 0, f"SDM Vol. 3A, 6.5: the segment's type allows no {'write' if write else 'read'}")
    lowest, highest = _bounds(segment)
    last = offset + size - 1
    linear = segment.base + offset & MASK32
    if linear + size - 1 > MASK32 or last > MASK32 == highest:
        # With an effective limit of 4 GBytes it may fault or wrap (SDM Vol. 3A, 6.3).
        raise NotModelled("an access across the end of 4 GBytes")
    require(lowest <= offset and last <= highest, vector, 0, "SDM Vol. 3A, 6.3: an access past the limit of its segment")
    return linear


def _bounds(segment: Segment) -> tuple[int, int]:
    """The lowest and the highest offset that the limit allows; an expand-down segment ends where others begin (SDM Vol. 3A, 6.3)."""
    descriptor = segment.descriptor
    if descriptor.is_data and descriptor.type & TYPE_EXPAND_DOWN:
        return segment.limit + 1, MASK32 if descriptor.default_big else MASK16
    return 0, segment.limit


def load_stack(m: Machine, offset: int, size: int) -> int:
    """Read the stack at `offset` of SS."""
    return load(m, linear_address(m, SS, offset & MASK32, size, write=False), size)


def store_stack(m: Machine, offset: int, size: int, value: int) -> int:
    """Write the low bytes of `value` to the stack; the linear address."""
    linear = linear_address(m, SS, offset & MASK32, size, write=True)
    store(m, linear, size, value & (1 << 8 * size) - 1)
    return linear
