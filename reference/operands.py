"""Where an instruction's operands are: registers, memory, immediates. Each can be read, and all but immediates written."""

from __future__ import annotations

from reference.bits import MASK8, MASK16, MASK32, MASK64
from reference.compatibility import linear_address
from reference.machine import FS, Machine
from reference.memory import load, store


class Operand:
    """A value of `size` bytes that an instruction names."""

    __slots__ = ("ones", "size")

    is_memory = False

    def __init__(self, size: int) -> None:
        self.size = size
        self.ones = (1 << 8 * size) - 1
        """The greatest value it can hold."""

    def read(self, m: Machine) -> int:
        """The operand's value, unsigned."""
        raise NotImplementedError

    def write(self, m: Machine, value: int) -> None:
        """Replace the operand's value by the low bits of `value`."""
        raise NotImplementedError


class Gpr64(Operand):
    """A 64-bit general register."""

    __slots__ = ("index",)

    def __init__(self, index: int, size: int = 8) -> None:
        super().__init__(size)
        self.index = index

    def read(self, m: Machine) -> int:
        """The register."""
        return m.gpr[self.index]

    def write(self, m: Machine, value: int) -> None:
        """Replace the register."""
        m.gpr[self.index] = value & MASK64


class Gpr32(Gpr64):
    """The low half of a register; a write clears the upper half (SDM Vol. 1, 3.4.1.1)."""

    __slots__ = ()

    def __init__(self, index: int) -> None:
        super().__init__(index, 4)

    def read(self, m: Machine) -> int:
        """Bits 31:0."""
        return m.gpr[self.index] & MASK32

    def write(self, m: Machine, value: int) -> None:
        """Replace bits 31:0 and clear the rest."""
        m.gpr[self.index] = value & MASK32


class Gpr16(Gpr64):
    """Bits 15:0 of a register; a write leaves the rest."""

    __slots__ = ()

    def __init__(self, index: int) -> None:
        super().__init__(index, 2)

    def read(self, m: Machine) -> int:
        """Bits 15:0."""
        return m.gpr[self.index] & MASK16

    def write(self, m: Machine, value: int) -> None:
        """Replace bits 15:0."""
        m.gpr[self.index] = m.gpr[self.index] & ~MASK16 | value & MASK16


class Gpr8(Gpr64):
    """A byte of a register, `shift` bits up: 8 for AH, CH, DH and BH."""

    __slots__ = ("shift",)

    def __init__(self, index: int, shift: int) -> None:
        super().__init__(index, 1)
        self.shift = shift

    def read(self, m: Machine) -> int:
        """The byte."""
        return m.gpr[self.index] >> self.shift & MASK8

    def write(self, m: Machine, value: int) -> None:
        """Replace the byte."""
        m.gpr[self.index] = m.gpr[self.index] & ~(MASK8 << self.shift) | (value & MASK8) << self.shift


class Immediate(Operand):
    """A constant in the instruction, extended to the operand's size."""

    __slots__ = ("value",)

    def __init__(self, size: int, value: int) -> None:
        super().__init__(size)
        self.value = value & self.ones

    def read(self, m: Machine) -> int:
        """The constant."""
        return self.value


class FarPointer(Operand):
    """A selector and an offset in the instruction: the target of far JMP and CALL outside 64-bit mode."""

    __slots__ = ("offset", "selector")

    def __init__(self, size: int, selector: int, offset: int) -> None:
        super().__init__(size)
        self.selector = selector
        self.offset = offset


class SegmentRegister(Operand):
    """The visible selector of a segment register; loading one is an instruction's business, so there is no write."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        super().__init__(2)
        self.index = index

    def read(self, m: Machine) -> int:
        """The selector."""
        return m.segments[self.index].selector


class SystemRegister(Operand):
    """A control or debug register by number; MOV's own rules read and write it."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        super().__init__(8)
        self.number = number


class Memory(Operand):
    """`size` bytes in memory: base + index * scale + displacement, cut to the address size, plus the base of FS or GS.

    The other segments have base 0 in 64-bit mode (SDM Vol. 1, 3.3.7); `stack` tells which fault a bad address raises.
    """

    __slots__ = ("base", "displacement", "index", "mask", "relative", "scale", "segment", "stack")

    is_memory = True

    def __init__(self, size: int, base: int, index: int, scale: int, displacement: int, mask: int, segment: int, stack: bool) -> None:
        super().__init__(size)
        self.base = base
        self.index = index
        self.scale = scale
        self.displacement = displacement
        self.mask = mask
        self.segment = segment
        self.stack = stack
        self.relative = False
        """The displacement counts from this instruction's first byte (RIP-relative)."""

    def offset(self, m: Machine) -> int:
        """The effective address: what LEA computes."""
        address = self.displacement
        if self.base >= 0:
            address += m.gpr[self.base]
        elif self.relative:
            address += m.rip
        if self.index >= 0:
            address += m.gpr[self.index] * self.scale
        return address & self.mask

    def address(self, m: Machine) -> int:
        """The linear address."""
        if self.segment >= FS:
            return (self.offset(m) + m.segments[self.segment].base) & MASK64
        return self.offset(m)

    def read(self, m: Machine) -> int:
        """Load the operand."""
        return load(m, self.address(m), self.size, self.stack)

    def write(self, m: Machine, value: int) -> None:
        """Store the operand."""
        store(m, self.address(m), self.size, value & self.ones, self.stack)


class BasedMemory(Memory):
    """Memory at a base register and a displacement, in 64 bits and without a segment base: most of what entry code uses."""

    __slots__ = ()

    def address(self, m: Machine) -> int:
        """The linear address."""
        return (m.gpr[self.base] + self.displacement) & MASK64

    def read(self, m: Machine) -> int:
        """Load the operand."""
        return load(m, (m.gpr[self.base] + self.displacement) & MASK64, self.size, self.stack)

    def write(self, m: Machine, value: int) -> None:
        """Store the operand."""
        store(m, (m.gpr[self.base] + self.displacement) & MASK64, self.size, value & self.ones, self.stack)


class SegmentedMemory(Memory):
    """Memory in compatibility mode: an offset into any of the six segments, whose type and limit are checked (SDM Vol. 3A, 6.3)."""

    __slots__ = ("rewritten",)

    def __init__(self, size: int, base: int, index: int, scale: int, displacement: int, mask: int, segment: int) -> None:
        super().__init__(size, base, index, scale, displacement, mask, segment, stack=False)
        self.rewritten = False
        """The instruction writes it after the read, and the segment's type must allow both before either."""

    def address(self, m: Machine) -> int:
        """The linear address of a read."""
        return linear_address(m, self.segment, self.offset(m), self.size, self.rewritten)

    def write(self, m: Machine, value: int) -> None:
        """Store the operand."""
        store(m, linear_address(m, self.segment, self.offset(m), self.size, write=True), self.size, value & self.ones)

    def part(self, m: Machine, start: int, size: int) -> int:
        """Load `size` bytes of the operand, `start` bytes into it: for pairs of words."""
        return load(m, linear_address(m, self.segment, self.offset(m) + start & self.mask, size, write=False), size)
