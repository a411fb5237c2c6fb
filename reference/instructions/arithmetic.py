"""Integer arithmetic and logic (SDM Vol. 2A and 2B, under each instruction's name).

Where the destination is in memory it is loaded before it is stored, in the order of the manual's operation sections; so a
page that is not present is reported as a read.
"""

from __future__ import annotations

from reference.bits import AF, ARITHMETIC, CF, MASK64, OF, PF, SF, ZF, sign_extend
from reference.decode import Instruction
from reference.faults import Vector, require
from reference.instructions.flags import carry, set_difference, set_logical, set_sum
from reference.machine import RAX, RDX, Machine


def add(m: Machine, i: Instruction, end: int) -> int:
    """Add (SDM Vol. 2A, ADD)."""
    a, b = i.destination.read(m), i.source.read(m)
    i.destination.write(m, a + b)
    set_sum(m, a, b, a + b, i.bits)
    return end


def adc(m: Machine, i: Instruction, end: int) -> int:
    """Add with carry (SDM Vol. 2A, ADC)."""
    a, b = i.destination.read(m), i.source.read(m)
    full = a + b + carry(m)
    i.destination.write(m, full)
    set_sum(m, a, b, full, i.bits)
    return end


def sub(m: Machine, i: Instruction, end: int) -> int:
    """Subtract (SDM Vol. 2B, SUB)."""
    a, b = i.destination.read(m), i.source.read(m)
    i.destination.write(m, a - b)
    set_difference(m, a, b, a - b, i.bits)
    return end


def sbb(m: Machine, i: Instruction, end: int) -> int:
    """Subtract with borrow (SDM Vol. 2B, SBB)."""
    a, b = i.destination.read(m), i.source.read(m)
    full = a - b - carry(m)
    i.destination.write(m, full)
    set_difference(m, a, b, full, i.bits)
    return end


def cmp(m: Machine, i: Instruction, end: int) -> int:
    """Compare: the flags of a subtraction (SDM Vol. 2A, CMP)."""
    a, b = i.destination.read(m), i.source.read(m)
    set_difference(m, a, b, a - b, i.bits)
    return end


def and_(m: Machine, i: Instruction, end: int) -> int:
    """Bitwise and (SDM Vol. 2A, AND)."""
    result = i.destination.read(m) & i.source.read(m)
    i.destination.write(m, result)
    set_logical(m, result, i.bits)
    return end


def or_(m: Machine, i: Instruction, end: int) -> int:
    """Bitwise or (SDM Vol. 2B, OR)."""
    result = i.destination.read(m) | i.source.read(m)
    i.destination.write(m, result)
    set_logical(m, result, i.bits)
    return end


def xor(m: Machine, i: Instruction, end: int) -> int:
    """Bitwise exclusive or (SDM Vol. 2D, XOR)."""
    result = i.destination.read(m) ^ i.source.read(m)
    i.destination.write(m, result)
    set_logical(m, result, i.bits)
    return end


def test(m: Machine, i: Instruction, end: int) -> int:
    """The flags of a bitwise and (SDM Vol. 2B, TEST)."""
    set_logical(m, i.destination.read(m) & i.source.read(m), i.bits)
    return end


def inc(m: Machine, i: Instruction, end: int) -> int:
    """Add 1, CF unchanged (SDM Vol. 2A, INC)."""
    a = i.destination.read(m)
    i.destination.write(m, a + 1)
    saved, unknown = m.rflags & CF, m.undefined & CF
    set_sum(m, a, 1, a + 1, i.bits)
    m.rflags, m.undefined = m.rflags & ~CF | saved, unknown
    return end


def dec(m: Machine, i: Instruction, end: int) -> int:
    """Subtract 1, CF unchanged (SDM Vol. 2A, DEC)."""
    a = i.destination.read(m)
    i.destination.write(m, a - 1)
    saved, unknown = m.rflags & CF, m.undefined & CF
    set_difference(m, a, 1, a - 1, i.bits)
    m.rflags, m.undefined = m.rflags & ~CF | saved, unknown
    return end


def neg(m: Machine, i: Instruction, end: int) -> int:
    """Two's complement negation (SDM Vol. 2B, NEG)."""
    a = i.destination.read(m)
    i.destination.write(m, -a)
    set_difference(m, 0, a, -a, i.bits)
    return end


def not_(m: Machine, i: Instruction, end: int) -> int:
    """One's complement, no flags (SDM Vol. 2B, NOT)."""
    i.destination.write(m, ~i.destination.read(m))
    return end


_UNDEFINED_BY_MULTIPLY = SF | ZF | AF | PF


def _set_multiply_flags(m: Machine, overflow: bool) -> None:
    """CF and OF say whether the upper half matters; the others are undefined (SDM Vol. 2B, MUL)."""
    m.rflags = m.rflags & ~(CF | OF) | (CF | OF if overflow else 0)
    m.undefined = _UNDEFINED_BY_MULTIPLY


def mul(m: Machine, i: Instruction, end: int) -> int:
    """Unsigned multiply of the accumulator (SDM Vol. 2B, MUL)."""
    mask = (1 << i.bits) - 1
    product = (m.gpr[RAX] & mask) * i.destination.read(m)
    _write_double(m, product, i.bits)
    _set_multiply_flags(m, product > mask)
    return end


def imul(m: Machine, i: Instruction, end: int) -> int:
    """Signed multiply, in its three forms (SDM Vol. 2A, IMUL)."""
    bits = i.bits
    mask = (1 << bits) - 1
    if len(i.operands) == 1:
        product = _signed(m.gpr[RAX] & mask, bits) * _signed(i.destination.read(m), bits)
        _write_double(m, product, bits)
    else:
        factor = i.operands[2] if len(i.operands) == 3 else i.destination
        product = _signed(i.source.read(m), bits) * _signed(factor.read(m), bits)
        i.destination.write(m, product)
    _set_multiply_flags(m, product != _signed(product & mask, bits))
    return end


def div(m: Machine, i: Instruction, end: int) -> int:
    """Unsigned divide of the double accumulator (SDM Vol. 2A, DIV)."""
    divisor = i.destination.read(m)
    require(divisor != 0, Vector.DE, None, "SDM Vol. 2A, DIV: the divisor is 0")
    quotient, remainder = divmod(_read_double(m, i.bits), divisor)
    require(quotient >> i.bits == 0, Vector.DE, None, "SDM Vol. 2A, DIV: the quotient is too large")

    _write_halves(m, quotient, remainder, i.bits)
    m.undefined = ARITHMETIC

    return end


def idiv(m: Machine, i: Instruction, end: int) -> int:
    """Signed divide, rounding towards 0 (SDM Vol. 2A, IDIV)."""
    divisor = _signed(i.destination.read(m), i.bits)
    require(divisor != 0, Vector.DE, None, "SDM Vol. 2A, IDIV: the divisor is 0")
    dividend = _signed(_read_double(m, i.bits), 2 * i.bits)
    quotient = abs(dividend) // abs(divisor)
    quotient = -quotient if (dividend < 0) != (divisor < 0) else quotient
    fits = -(1 << i.bits - 1) <= quotient < 1 << i.bits - 1
    require(fits, Vector.DE, None, "SDM Vol. 2A, IDIV: the quotient is too large")

    _write_halves(m, quotient, dividend - quotient * divisor, i.bits)
    m.undefined = ARITHMETIC

    return end


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> bits - 1 & 1 else value


def _read_double(m: Machine, bits: int) -> int:
    """AX, DX:AX, EDX:EAX or RDX:RAX."""
    mask = (1 << bits) - 1
    return m.gpr[RAX] & 0xFFFF if bits == 8 else (m.gpr[RDX] & mask) << bits | m.gpr[RAX] & mask


def _write_double(m: Machine, value: int, bits: int) -> None:
    mask = (1 << bits) - 1
    _write_halves(m, value & mask, value >> bits & mask, bits)


def _write_halves(m: Machine, low: int, high: int, bits: int) -> None:
    """Put two results into AL and AH, or into the accumulator and RDX at `bits`."""
    if bits == 8:
        m.gpr[RAX] = m.gpr[RAX] & ~0xFFFF | (high & 0xFF) << 8 | low & 0xFF
        return
    mask = (1 << bits) - 1
    kept = MASK64 & ~0xFFFF if bits == 16 else 0
    m.gpr[RAX] = m.gpr[RAX] & kept | low & mask
    m.gpr[RDX] = m.gpr[RDX] & kept | high & mask


def extend_accumulator(m: Machine, i: Instruction, end: int) -> int:
    """Sign-extend AL to AX, AX to EAX or EAX to RAX (SDM Vol. 2A, CBW/CWDE/CDQE)."""
    bits = {"cbw": 8, "cwde": 16, "cdqe": 32}[i.name]
    value = sign_extend(m.gpr[RAX] & (1 << bits) - 1, bits) & (1 << 2 * bits) - 1
    m.gpr[RAX] = m.gpr[RAX] & ~0xFFFF | value if bits == 8 else value
    return end


def extend_into_rdx(m: Machine, i: Instruction, end: int) -> int:
    """Fill DX, EDX or RDX with the sign of the accumulator (SDM Vol. 2A, CWD/CDQ/CQO)."""
    bits = {"cwd": 16, "cdq": 32, "cqo": 64}[i.name]
    value = (1 << bits) - 1 if m.gpr[RAX] >> bits - 1 & 1 else 0
    m.gpr[RDX] = m.gpr[RDX] & ~0xFFFF | value if bits == 16 else value
    return end
