"""Moving values between registers and memory (SDM Vol. 2A and 2B)."""

from __future__ import annotations

from reference.bits import MASK64, sign_extend
from reference.decode import Instruction
from reference.instructions.flags import condition
from reference.machine import SS, Machine
from reference.memory import load
from reference.operands import Memory, SegmentRegister
from reference.segmentation import load_data_segment, load_stack_segment


def mov(m: Machine, i: Instruction, end: int) -> int:
    """Move (SDM Vol. 2B, MOV)."""
    i.destination.write(m, i.source.read(m))
    return end


def movzx(m: Machine, i: Instruction, end: int) -> int:
    """Move with zero extension (SDM Vol. 2B, MOVZX)."""
    i.destination.write(m, i.source.read(m))
    return end


def movsx(m: Machine, i: Instruction, end: int) -> int:
    """Move with sign extension (SDM Vol. 2B, MOVSX/MOVSXD)."""
    i.destination.write(m, sign_extend(i.source.read(m), i.source.size * 8))
    return end


def lea(m: Machine, i: Instruction, end: int) -> int:
    """Load the effective address, without a segment base and without an access (SDM Vol. 2A, LEA)."""
    assert isinstance(i.source, Memory)
    i.destination.write(m, i.source.offset(m))
    return end


def xchg(m: Machine, i: Instruction, end: int) -> int:
    """Exchange (SDM Vol. 2D, XCHG)."""
    a, b = i.destination.read(m), i.source.read(m)
    i.destination.write(m, b)
    i.source.write(m, a)
    return end


def cmovcc(m: Machine, i: Instruction, end: int) -> int:
    """Move if the condition holds; the source is read, and a 32-bit destination zero-extended, in any case (SDM Vol. 2A, CMOVcc)."""
    value = i.source.read(m)
    i.destination.write(m, value if condition(m, i.condition) else i.destination.read(m))
    return end


def setcc(m: Machine, i: Instruction, end: int) -> int:
    """Set a byte to 1 if the condition holds, else to 0 (SDM Vol. 2B, SETcc)."""
    i.destination.write(m, int(condition(m, i.condition)))
    return end


def mov_from_segment(m: Machine, i: Instruction, end: int) -> int:
    """Store a selector: 16 bits to memory, zero-extended to a register (SDM Vol. 2B, MOV)."""
    i.destination.write(m, i.source.read(m))
    return end


def mov_to_segment(m: Machine, i: Instruction, end: int) -> int:
    """Load DS, ES, FS, GS or SS; a load of SS opens a shadow that holds interrupts and debug traps (SDM Vol. 2B, MOV)."""
    assert isinstance(i.destination, SegmentRegister)
    selector = i.source.read(m) & 0xFFFF
    if i.destination.index == SS:
        load_stack_segment(m, selector)
        open_stack_shadow(m)
    else:
        load_data_segment(m, i.destination.index, selector)
    return end


def open_stack_shadow(m: Machine) -> None:
    """Hold interrupts, NMIs and debug traps for one boundary after a load of SS (SDM Vol. 3A, 7.8.3)."""
    m.shadow = True
    m.blocking_shadow = True


def load_far_pointer(m: Machine, i: Instruction, end: int) -> int:
    """Load a segment register and a general register from memory: LSS, LFS, LGS (SDM Vol. 2A, LDS/LES/LFS/LGS/LSS).

    AMD has no 64-bit pointer: with REX.W the offset has 32 bits (APM Vol. 3, LDS/LES/LFS/LGS/LSS).
    """
    assert isinstance(i.source, Memory)
    address = i.source.address(m)
    size = min(i.destination.size, 4) if m.profile.vendor == "amd" else i.destination.size
    offset = load(m, address, size, i.source.stack)
    selector = load(m, (address + size) & MASK64, 2, i.source.stack)
    if i.name == "lss":
        load_stack_segment(m, selector)
    else:
        load_data_segment(m, {"lfs": 4, "lgs": 5}[i.name], selector)
    i.destination.write(m, offset)
    return end
