"""MOVS and STOS, alone and with REP (SDM Vol. 2B, MOVS, STOS and REP).

One call is one iteration: with REP, RIP stays on the instruction until the count is 0, so that an event can arrive between
two iterations, as the manual says it can.
"""

from __future__ import annotations

from collections.abc import Callable

from reference.bits import DF, MASK32
from reference.decode import Instruction
from reference.machine import RAX, RCX, RDI, RSI, Machine
from reference.memory import load, physical, store
from reference.operands import Memory


def _repeated(m: Machine, i: Instruction, end: int, iteration: Callable[[Machine, Instruction, int], None]) -> int:
    """Run one iteration; the count is RCX, or ECX with a 67 prefix."""
    operand = i.destination
    assert isinstance(operand, Memory)
    mask = operand.mask
    if i.repeat and m.gpr[RCX] & mask == 0:
        return end
    step = -operand.size if m.rflags & DF else operand.size
    iteration(m, i, step)
    if not i.repeat:
        return end
    m.gpr[RCX] = (m.gpr[RCX] - 1) & mask if mask == MASK32 else m.gpr[RCX] - 1
    return m.rip if m.gpr[RCX] & mask else end


def _advance(m: Machine, register: int, step: int, mask: int) -> None:
    m.gpr[register] = (m.gpr[register] + step) & mask


def _move_one(m: Machine, i: Instruction, step: int) -> None:
    source, destination = i.source, i.destination
    assert isinstance(source, Memory)
    assert isinstance(destination, Memory)
    come_from, go_to = source.address(m), destination.address(m)
    store(m, go_to, destination.size, load(m, come_from, source.size))
    if m.undefined_words:
        _carry_undefined(m, come_from, go_to, source.size)
    _advance(m, RSI, step, source.mask)
    _advance(m, RDI, step, destination.mask)


def _carry_undefined(m: Machine, come_from: int, go_to: int, size: int) -> None:
    """A copied RFLAGS image is as undefined as the original."""
    user = m.cpl == 3
    mask = m.undefined_words.get(physical(m, come_from, user), 0) if size == 8 else 0
    if mask:
        m.undefined_words[physical(m, go_to, user)] = mask


def movs(m: Machine, i: Instruction, end: int) -> int:
    """Move from [RSI] to [RDI] (SDM Vol. 2B, MOVS)."""
    return _repeated(m, i, end, _move_one)


def _store_one(m: Machine, i: Instruction, step: int) -> None:
    destination = i.destination
    assert isinstance(destination, Memory)
    destination.write(m, m.gpr[RAX])
    _advance(m, RDI, step, destination.mask)


def stos(m: Machine, i: Instruction, end: int) -> int:
    """Store the accumulator at [RDI] (SDM Vol. 2B, STOS)."""
    return _repeated(m, i, end, _store_one)
