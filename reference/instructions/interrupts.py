"""Software interrupts, undefined opcodes, HLT and instructions that do nothing here (SDM Vol. 2A and 2B)."""

from __future__ import annotations

from reference.bits import OF, RF, sign_extend
from reference.decode import Instruction
from reference.delivery import Entry, Source, deliver
from reference.faults import Vector, require, undefined_opcode
from reference.instructions.flags import read_flags
from reference.machine import Machine
from reference.operands import SegmentedMemory


def int_n(m: Machine, i: Instruction, end: int) -> int:
    """Software interrupt: the gate's DPL is checked, the frame returns behind the instruction (SDM Vol. 2A, INT n)."""
    return _interrupt(m, Entry(i.destination.read(m), Source.SOFTWARE, end))


def int3(m: Machine, i: Instruction, end: int) -> int:
    """Breakpoint: as INT 3, with its own opcode (SDM Vol. 2A, INT n/INTO/INT3/INT1)."""
    return _interrupt(m, Entry(Vector.BP, Source.SOFTWARE, end))


def int1(m: Machine, i: Instruction, end: int) -> int:
    """#DB by opcode F1: no DPL check and EXT is 1; DR6 does not change (SDM Vol. 2A, INT n/INTO/INT3/INT1).

    RF is cleared at its start as at that of any software-generated interrupt (SDM Vol. 3B, 18.3.1.1).
    """
    m.rflags &= ~RF
    return _interrupt(m, Entry(Vector.DB, Source.TRAP, end))


def into(m: Machine, i: Instruction, end: int) -> int:
    """#OF if OF is set, as INT 4; 64-bit mode has no such instruction (SDM Vol. 2A, INT n/INTO/INT3/INT1)."""
    read_flags(m, OF)
    return _interrupt(m, Entry(Vector.OF, Source.SOFTWARE, end)) if m.rflags & OF else end


def bound(m: Machine, i: Instruction, end: int) -> int:
    """#BR unless a signed index lies within the two bounds in memory; not in 64-bit mode (SDM Vol. 2A, BOUND)."""
    bounds, size = i.source, i.destination.size
    assert isinstance(bounds, SegmentedMemory)
    index, lowest, highest = (
        sign_extend(value, i.bits) ^ 1 << 63 for value in (i.destination.read(m), bounds.part(m, 0, size), bounds.part(m, size, size))
    )
    require(lowest <= index <= highest, Vector.BR, None, "SDM Vol. 2A, BOUND: the index is not within the bounds")
    return end


def _interrupt(m: Machine, entry: Entry) -> int:
    """A fault met on the way is the instruction's own: a software interrupt is benign, so it never becomes a double fault."""
    deliver(m, entry)
    return m.rip


def ud(m: Machine, i: Instruction, end: int) -> int:
    """Always #UD (SDM Vol. 2B, UD)."""
    undefined_opcode("SDM Vol. 2B, UD: the instruction is defined to be undefined")


def hlt(m: Machine, i: Instruction, end: int) -> int:
    """Stop until an event arrives; CPL 0 only (SDM Vol. 2A, HLT)."""
    require(m.cpl == 0, Vector.GP, 0, "SDM Vol. 2A, HLT: CPL is not 0")

    m.halted = True

    return end


def nop(m: Machine, i: Instruction, end: int) -> int:
    """No architectural effect: NOP, PAUSE, ENDBR64 without CET, the fences (SDM Vol. 2A and 2B)."""
    return end
