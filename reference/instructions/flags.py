"""The status flags: how results set them, how conditions read them, and which are undefined (SDM Vol. 1, appendix A and B)."""

from __future__ import annotations

from typing import Final

from reference.bits import AC, AF, ARITHMETIC, CF, DF, OF, PARITY, PF, SF, ZF
from reference.decode import Instruction
from reference.faults import NotModelled, Vector, require
from reference.machine import Machine, set_rflags
from reference.profiles import Cr4

_OTHERS: Final = ~ARITHMETIC


def set_sum(m: Machine, a: int, b: int, full: int, bits: int) -> None:
    """All six flags of `a + b (+ carry) = full`; `full` is not yet cut to `bits`."""
    r = full & ((1 << bits) - 1)
    m.rflags = (
        m.rflags & _OTHERS
        | full >> bits & 1
        | PARITY[r & 0xFF]
        | (a ^ b ^ r) & AF
        | (0 if r else ZF)
        | (r >> bits - 1) << 7
        | (((a ^ r) & (b ^ r)) >> bits - 1 & 1) << 11
    )
    m.undefined = 0


def set_difference(m: Machine, a: int, b: int, full: int, bits: int) -> None:
    """All six flags of `a - b (- borrow) = full`; `full` may be negative."""
    r = full & ((1 << bits) - 1)
    m.rflags = (
        m.rflags & _OTHERS
        | (full < 0)
        | PARITY[r & 0xFF]
        | (a ^ b ^ r) & AF
        | (0 if r else ZF)
        | (r >> bits - 1) << 7
        | (((a ^ b) & (a ^ r)) >> bits - 1 & 1) << 11
    )
    m.undefined = 0


def set_logical(m: Machine, r: int, bits: int) -> None:
    """SF, ZF and PF of a result; CF and OF are 0 and AF is undefined (SDM Vol. 2A, AND)."""
    m.rflags = m.rflags & _OTHERS | PARITY[r & 0xFF] | (0 if r else ZF) | (r >> bits - 1) << 7
    m.undefined = AF


def set_result(m: Machine, r: int, bits: int, changed: int, values: int, undefined: int) -> None:
    """SF, ZF and PF of a result, `values` for the other flags in `changed`; `undefined` of them mean nothing."""
    m.rflags = m.rflags & ~(SF | ZF | PF | changed) | PARITY[r & 0xFF] | (0 if r else ZF) | (r >> bits - 1) << 7 | values
    m.undefined = m.undefined & ~(SF | ZF | PF | changed) | undefined


def carry(m: Machine) -> int:
    """CF, where an instruction adds it in."""
    read_flags(m, CF)
    return m.rflags & CF


def read_flags(m: Machine, needed: int) -> None:
    """Leave the model where an instruction depends on a flag that the manual leaves undefined."""
    if m.undefined & needed:
        raise NotModelled("reads an undefined flag")


NEEDS: Final = (OF, CF, ZF, CF | ZF, SF, PF, SF | OF, ZF | SF | OF)
"""The flags behind each pair of condition codes (SDM Vol. 1, Table B-1)."""


def condition(m: Machine, code: int) -> bool:
    """Whether condition code `code` (0 = O, 1 = NO, ... 15 = G) holds (SDM Vol. 1, Table B-1)."""
    needed = NEEDS[code >> 1]
    if m.undefined & needed:
        read_flags(m, needed)
    flags = m.rflags
    if code < 12:
        holds = bool(flags & needed)
    else:
        differ = bool(flags & SF) != bool(flags & OF)
        holds = differ or (code >= 14 and bool(flags & ZF))
    return holds != bool(code & 1)


def clc(m: Machine, i: Instruction, end: int) -> int:
    """Clear CF (SDM Vol. 2A, CLC)."""
    m.rflags &= ~CF
    m.undefined &= ~CF
    return end


def stc(m: Machine, i: Instruction, end: int) -> int:
    """Set CF (SDM Vol. 2B, STC)."""
    m.rflags |= CF
    m.undefined &= ~CF
    return end


def cmc(m: Machine, i: Instruction, end: int) -> int:
    """Complement CF (SDM Vol. 2A, CMC)."""
    read_flags(m, CF)

    m.rflags ^= CF

    return end


def cld(m: Machine, i: Instruction, end: int) -> int:
    """Clear DF (SDM Vol. 2A, CLD)."""
    m.rflags &= ~DF
    return end


def std(m: Machine, i: Instruction, end: int) -> int:
    """Set DF (SDM Vol. 2B, STD)."""
    m.rflags |= DF
    return end


def cli(m: Machine, i: Instruction, end: int) -> int:
    """Clear IF (SDM Vol. 2A, CLI)."""
    _require_iopl(m, "SDM Vol. 2A, CLI: CPL is greater than IOPL")

    m.rflags &= ~(1 << 9)

    return end


def sti(m: Machine, i: Instruction, end: int) -> int:
    """Set IF; if it was clear, interrupts wait for one more instruction (SDM Vol. 2B, STI)."""
    _require_iopl(m, "SDM Vol. 2B, STI: CPL is greater than IOPL")

    m.shadow = not m.interrupts_enabled
    m.rflags |= 1 << 9

    return end


def _require_iopl(m: Machine, rule: str) -> None:
    if m.cpl == 3 and m.cr4 & Cr4.PVI:
        raise NotModelled("protected-mode virtual interrupts")
    require(m.cpl <= m.iopl, Vector.GP, 0, rule)


def clac(m: Machine, i: Instruction, end: int) -> int:
    """Clear AC (SDM Vol. 2A, CLAC)."""
    require(m.profile.smap and m.cpl == 0, Vector.UD, None, "SDM Vol. 2A, CLAC: CPL is not 0, or the processor has no SMAP")

    set_rflags(m, m.rflags & ~AC)

    return end


def stac(m: Machine, i: Instruction, end: int) -> int:
    """Set AC (SDM Vol. 2B, STAC)."""
    require(m.profile.smap and m.cpl == 0, Vector.UD, None, "SDM Vol. 2B, STAC: CPL is not 0, or the processor has no SMAP")

    set_rflags(m, m.rflags | AC)

    return end
