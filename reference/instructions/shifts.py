"""Shifts, rotates and bit tests (SDM Vol. 2B, SAL/SAR/SHL/SHR and RCL/RCR/ROL/ROR; Vol. 2A, BT and its kin)."""

from __future__ import annotations

from reference.bits import AF, CF, MASK64, OF, PF, SF, ZF, sign_extend
from reference.decode import Instruction
from reference.instructions.flags import set_result
from reference.machine import Machine
from reference.memory import load, store
from reference.operands import Immediate, Memory, Operand


def _count(m: Machine, i: Instruction) -> int:
    """The count, masked to 5 bits, or 6 with a 64-bit operand."""
    return i.source.read(m) & (0x3F if i.bits == 64 else 0x1F)


def _finish_shift(m: Machine, i: Instruction, result: int, count: int, carry: int, overflow: int, carry_lost: bool) -> None:
    """Flags of a shift by `count` > 0: OF means something for a count of 1 only, AF never, CF of SHL and SHR below the width only."""
    undefined = AF | (0 if count == 1 else OF) | (CF if carry_lost else 0)
    values = (CF if carry else 0) | (OF if overflow else 0)
    set_result(m, result, i.bits, CF | OF | AF, values, undefined)


def shl(m: Machine, i: Instruction, end: int) -> int:
    """Shift left (SDM Vol. 2B, SHL); SAL is the same instruction."""
    count, value = _count(m, i), i.destination.read(m)
    result = value << count & (1 << i.bits) - 1
    i.destination.write(m, result)
    if count:
        carry = value << count >> i.bits & 1
        _finish_shift(m, i, result, count, carry, result >> i.bits - 1 ^ carry, count >= i.bits)
    return end


def shr(m: Machine, i: Instruction, end: int) -> int:
    """Shift right, filling with 0 (SDM Vol. 2B, SHR)."""
    count, value = _count(m, i), i.destination.read(m)
    result = value >> count
    i.destination.write(m, result)
    if count:
        _finish_shift(m, i, result, count, value >> count - 1 & 1, value >> i.bits - 1, count >= i.bits)
    return end


def sar(m: Machine, i: Instruction, end: int) -> int:
    """Shift right, filling with the sign (SDM Vol. 2B, SAR)."""
    count, value = _count(m, i), i.destination.read(m)
    extended = sign_extend(value, i.bits) | (MASK64 << 64 if value >> i.bits - 1 else 0)
    result = extended >> count & (1 << i.bits) - 1
    i.destination.write(m, result)
    if count:
        _finish_shift(m, i, result, count, extended >> count - 1 & 1, 0, carry_lost=False)
    return end


def rol(m: Machine, i: Instruction, end: int) -> int:
    """Rotate left; CF is the bit that came round, OF means something for a count of 1 (SDM Vol. 2B, ROL)."""
    count, value = _count(m, i), i.destination.read(m)
    turn = count % i.bits
    result = (value << turn | value >> i.bits - turn) & (1 << i.bits) - 1
    i.destination.write(m, result)
    if count:
        carry = result & 1
        _finish_rotate(m, count, carry, result >> i.bits - 1 ^ carry)
    return end


def ror(m: Machine, i: Instruction, end: int) -> int:
    """Rotate right (SDM Vol. 2B, ROR)."""
    count, value = _count(m, i), i.destination.read(m)
    turn = count % i.bits
    result = (value >> turn | value << i.bits - turn) & (1 << i.bits) - 1
    i.destination.write(m, result)
    if count:
        top = result >> i.bits - 1
        _finish_rotate(m, count, top, top ^ result >> i.bits - 2 & 1)
    return end


def _finish_rotate(m: Machine, count: int, carry: int, overflow: int) -> None:
    m.rflags = m.rflags & ~(CF | OF) | (CF if carry else 0) | (OF if overflow else 0)
    m.undefined = m.undefined & ~(CF | OF) | (0 if count == 1 else OF)


def _selected_bit(m: Machine, i: Instruction) -> tuple[Operand | None, int, int, int]:
    """(register or None, address, value, bit): a register offset reaches past a memory operand (SDM Vol. 2A, BT)."""
    number = i.source.read(m)
    if not isinstance(i.destination, Memory):
        return i.destination, 0, i.destination.read(m), number % i.bits
    address = i.destination.address(m)
    if not isinstance(i.source, Immediate):
        signed = number - (1 << i.bits) if number >> i.bits - 1 else number
        address = (address + (signed >> i.bits.bit_length() - 1) * i.destination.size) & MASK64
    return None, address, load(m, address, i.destination.size, i.destination.stack), number % i.bits


def _bit_test(m: Machine, i: Instruction, change: int) -> None:
    """Copy a bit to CF; `change` is -1 to leave it, 0 and 1 to write it, 2 to invert it.

    OF, SF, AF and PF are undefined (SDM Vol. 2A, BT); ZF too on AMD (APM Vol. 3, BT).
    """
    register, address, value, bit = _selected_bit(m, i)
    if change >= 0:
        wanted = change if change < 2 else ~value >> bit & 1
        changed = value & ~(1 << bit) | wanted << bit
        if register is not None:
            register.write(m, changed)
        else:
            store(m, address, i.destination.size, changed, isinstance(i.destination, Memory) and i.destination.stack)
    m.rflags = m.rflags & ~CF | value >> bit & 1
    m.undefined = m.undefined & ~CF | OF | SF | AF | PF | (0 if m.profile.vendor == "intel" else ZF)


def bt(m: Machine, i: Instruction, end: int) -> int:
    """Bit test (SDM Vol. 2A, BT)."""
    _bit_test(m, i, -1)
    return end


def btr(m: Machine, i: Instruction, end: int) -> int:
    """Bit test and reset (SDM Vol. 2A, BTR)."""
    _bit_test(m, i, 0)
    return end


def bts(m: Machine, i: Instruction, end: int) -> int:
    """Bit test and set (SDM Vol. 2A, BTS)."""
    _bit_test(m, i, 1)
    return end


def btc(m: Machine, i: Instruction, end: int) -> int:
    """Bit test and complement (SDM Vol. 2A, BTC)."""
    _bit_test(m, i, 2)
    return end
