"""MOVS and STOS, alone and with REP (SDM Vol. 2B, MOVS, STOS and REP).

One call is one iteration: with REP, RIP stays on the instruction until the count is 0, so that an event can arrive between
two iterations, as the manual says it can.
"""

from __future__ import annotations

from collections.abc import Callable

from reference.bits import DF, TF
from reference.debug import ENABLES
from reference.decode import Instruction
from reference.machine import RAX, RCX, RDI, RSI, Machine
from reference.memory import load, physical, store
from reference.operands import Memory


def repeated(m: Machine, i: Instruction, end: int, iteration: Callable[[Machine, Instruction, int], None]) -> int:
    """Run one iteration, and the next ones too as long as no boundary between them matters; the count is RCX, or ECX with a 67 prefix."""
    operand = i.destination
    assert isinstance(operand, Memory)
    step = -operand.size if m.rflags & DF else operand.size
    if not i.repeat:
        iteration(m, i, step)
        return end
    mask = operand.mask
    gpr = m.gpr
    if not gpr[RCX] & mask:
        return end
    watched = m.rflags & TF or m.pending or m.dr7 & ENABLES
    last = m.retired if watched else min(m.next_arrival - 1, m.limit + 1)
    while True:
        iteration(m, i, step)
        gpr[RCX] = left = (gpr[RCX] - 1) & mask
        if not left:
            return end
        if m.retired >= last:
            return m.rip
        m.retired += 1


def _move_one(m: Machine, i: Instruction, step: int) -> None:
    source, destination = i.source, i.destination
    assert isinstance(source, Memory)
    assert isinstance(destination, Memory)
    come_from, go_to = source.address(m), destination.address(m)
    store(m, go_to, destination.size, load(m, come_from, source.size))
    if m.undefined_words:
        carry_undefined(m, come_from, go_to, source.size)
    gpr, mask = m.gpr, destination.mask
    gpr[RSI] = (gpr[RSI] + step) & mask
    gpr[RDI] = (gpr[RDI] + step) & mask


def carry_undefined(m: Machine, come_from: int, go_to: int, size: int) -> None:
    """A copied RFLAGS image is as undefined as the original."""
    user = m.cpl == 3
    mask = m.undefined_words.get(physical(m, come_from, user), 0) if size > 1 else 0
    if mask:
        m.undefined_words[physical(m, go_to, user)] = mask


def movs(m: Machine, i: Instruction, end: int) -> int:
    """Move from [RSI] to [RDI] (SDM Vol. 2B, MOVS)."""
    return repeated(m, i, end, _move_one)


def _store_one(m: Machine, i: Instruction, step: int) -> None:
    destination = i.destination
    assert isinstance(destination, Memory)
    destination.write(m, m.gpr[RAX])
    m.gpr[RDI] = (m.gpr[RDI] + step) & destination.mask


def stos(m: Machine, i: Instruction, end: int) -> int:
    """Store the accumulator at [RDI] (SDM Vol. 2B, STOS)."""
    return repeated(m, i, end, _store_one)
