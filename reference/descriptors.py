"""Segment descriptors, IDT gates and the hidden part of a segment register, from their bytes."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Final

from reference.bits import MASK64

TYPE_ACCESSED: Final = 0x1
TYPE_WRITABLE: Final = 0x2
TYPE_READABLE: Final = 0x2
TYPE_EXPAND_DOWN: Final = 0x4
TYPE_CONFORMING: Final = 0x4
TYPE_CODE: Final = 0x8

SYSTEM_LDT: Final = 0x2
SYSTEM_TSS_AVAILABLE: Final = 0x9
SYSTEM_TSS_BUSY: Final = 0xB
SYSTEM_CALL_GATE: Final = 0xC
SYSTEM_INTERRUPT_GATE: Final = 0xE
SYSTEM_TRAP_GATE: Final = 0xF


class Descriptor:
    """The 8 bytes of a segment descriptor in the GDT or LDT (SDM Vol. 3A, 3.4.5), `raw` little-endian."""

    def __init__(self, raw: int) -> None:
        self.raw = raw

    @cached_property
    def base(self) -> int:
        """Bits 31:0 of the base; a system descriptor has its upper half in the next 8 bytes."""
        return (self.raw >> 16 & 0xFF_FFFF) | (self.raw >> 56 & 0xFF) << 24

    @cached_property
    def limit(self) -> int:
        """The limit in bytes, the granularity bit applied."""
        limit = (self.raw & 0xFFFF) | (self.raw >> 32 & 0xF_0000)
        return limit << 12 | 0xFFF if self.raw >> 55 & 1 else limit

    @cached_property
    def type(self) -> int:
        """The four type bits (SDM Vol. 3A, Tables 3-1 and 3-2)."""
        return self.raw >> 40 & 0xF

    @cached_property
    def is_segment(self) -> bool:
        """The S flag: a code or data segment, not a system descriptor."""
        return bool(self.raw >> 44 & 1)

    @cached_property
    def dpl(self) -> int:
        """The descriptor privilege level."""
        return self.raw >> 45 & 3

    @cached_property
    def present(self) -> bool:
        """The P flag."""
        return bool(self.raw >> 47 & 1)

    @cached_property
    def long(self) -> bool:
        """The L flag: 64-bit code."""
        return bool(self.raw >> 53 & 1)

    @cached_property
    def default_big(self) -> bool:
        """The D/B flag."""
        return bool(self.raw >> 54 & 1)

    @cached_property
    def is_code(self) -> bool:
        """A code segment."""
        return self.is_segment and bool(self.type & TYPE_CODE)

    @cached_property
    def is_data(self) -> bool:
        """A data segment."""
        return self.is_segment and not self.type & TYPE_CODE

    @cached_property
    def is_conforming(self) -> bool:
        """A conforming code segment."""
        return self.is_code and bool(self.type & TYPE_CONFORMING)

    @cached_property
    def is_writable_data(self) -> bool:
        """A data segment that may be written."""
        return self.is_data and bool(self.type & TYPE_WRITABLE)

    @cached_property
    def is_readable(self) -> bool:
        """A data segment, or a code segment that may be read."""
        return self.is_data or (self.is_code and bool(self.type & TYPE_READABLE))

    @cached_property
    def access_rights(self) -> int:
        """Bits 23:8 of the second doubleword as LAR returns them (SDM Vol. 2A, LAR)."""
        return self.raw >> 32 & 0x00F0_FF00


descriptor_of = lru_cache(maxsize=4096)(Descriptor)
"""The descriptor with these bytes: most are met again and again, and what they mean is worked out once."""


class Segment:
    """A segment register: the visible selector and the hidden part that stays until the next load (SDM Vol. 3A, 3.4.3)."""

    __slots__ = ("base", "descriptor", "limit", "selector", "usable")

    def __init__(self, selector: int, base: int, limit: int, descriptor: Descriptor, usable: bool = True) -> None:
        self.selector = selector
        self.base = base
        self.limit = limit
        self.descriptor = descriptor
        self.usable = usable

    @classmethod
    def from_descriptor(cls, selector: int, descriptor: Descriptor) -> Segment:
        """What a load of `selector` leaves in the register."""
        return cls(selector, descriptor.base, descriptor.limit, descriptor)

    @classmethod
    def null(cls, selector: int, base: int = 0) -> Segment:
        """A register that holds a null selector: not usable for data access outside 64-bit mode."""
        return cls(selector, base, 0, descriptor_of(0), usable=False)


def flat_code(selector: int, dpl: int, long: bool) -> Segment:
    """The fixed CS that SYSCALL, SYSRET, SYSENTER and SYSEXIT load without reading a descriptor (SDM Vol. 2B, SYSCALL)."""
    size = 1 << 53 if long else 1 << 54
    return Segment.from_descriptor(selector, descriptor_of(0x008F_9B00_0000_FFFF | dpl << 45 | size))


def flat_stack(selector: int, dpl: int) -> Segment:
    """The fixed SS that SYSCALL, SYSRET, SYSENTER and SYSEXIT load (SDM Vol. 2B, SYSCALL)."""
    return Segment.from_descriptor(selector, descriptor_of(0x00CF_9300_0000_FFFF | dpl << 45))


class Gate:
    """The 16 bytes of a 64-bit IDT gate (SDM Vol. 3A, Figure 7-8), as two little-endian halves."""

    def __init__(self, low: int, high: int) -> None:
        self.low = low
        self.high = high

    @cached_property
    def offset(self) -> int:
        """The 64-bit entry point."""
        return ((self.low & 0xFFFF) | (self.low >> 32 & 0xFFFF_0000) | (self.high & 0xFFFF_FFFF) << 32) & MASK64

    @cached_property
    def selector(self) -> int:
        """The handler's code-segment selector."""
        return self.low >> 16 & 0xFFFF

    @cached_property
    def ist(self) -> int:
        """The interrupt-stack-table slot, 0 for none."""
        return self.low >> 32 & 7

    @cached_property
    def is_interrupt_or_trap(self) -> bool:
        """A type that 64-bit mode accepts in the IDT."""
        return not self.low >> 44 & 1 and self.type in (SYSTEM_INTERRUPT_GATE, SYSTEM_TRAP_GATE)

    @cached_property
    def type(self) -> int:
        """The four type bits."""
        return self.low >> 40 & 0xF

    @cached_property
    def dpl(self) -> int:
        """The gate's privilege level, checked for software interrupts only."""
        return self.low >> 45 & 3

    @cached_property
    def present(self) -> bool:
        """The P flag."""
        return bool(self.low >> 47 & 1)


gate_of = lru_cache(maxsize=4096)(Gate)
"""The gate with these two halves, likewise."""
