"""MOVS and STOS, alone and with REP (SDM Vol. 2B, MOVS, STOS and REP).

With REP, RIP stays on the instruction until the count is 0, so that an event can arrive between two iterations, as the manual
says it can. Iterations between which nothing can happen are run together.
"""

from __future__ import annotations

from collections.abc import Callable

from reference.bits import DF, MASK64, TF
from reference.debug import ENABLES
from reference.decode import Instruction
from reference.machine import RAX, RCX, RDI, RSI, Machine
from reference.memory import copy_in_pages, load, physical, store
from reference.operands import Memory


def repeated(
    m: Machine,
    i: Instruction,
    end: int,
    iteration: Callable[[Machine, Instruction, int], None],
    several: Callable[[Machine, Instruction, int, int], int] | None = None,
) -> int:
    """Run one iteration, and the next ones too as long as no boundary between them matters; the count is RCX, or ECX with a 67 prefix.

    `several` may run some of those at once, up to a number that it is told, and says how many it did.
    """
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
        if several is not None:
            done = several(m, i, step, min(left, last - m.retired + 1) - 1)
            gpr[RCX] = left - done
            m.retired += done


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


def _move_several(m: Machine, i: Instruction, step: int, most: int) -> int:
    """Up to `most` iterations at once, none where an address could wrap at 32 bits."""
    source, destination = i.source, i.destination
    assert isinstance(source, Memory)
    assert isinstance(destination, Memory)
    if destination.mask != MASK64:
        return 0
    done = copy_in_pages(m, source.address(m), destination.address(m), step, most)
    m.gpr[RSI] = (m.gpr[RSI] + step * done) & MASK64
    m.gpr[RDI] = (m.gpr[RDI] + step * done) & MASK64
    return done


def carry_undefined(m: Machine, come_from: int, go_to: int, size: int) -> None:
    """A copied RFLAGS image is as undefined as the original."""
    user = m.cpl == 3
    mask = m.undefined_words.get(physical(m, come_from, user), 0) if size > 1 else 0
    if mask:
        m.undefined_words[physical(m, go_to, user)] = mask


def movs(m: Machine, i: Instruction, end: int) -> int:
    """Move from [RSI] to [RDI] (SDM Vol. 2B, MOVS)."""
    return repeated(m, i, end, _move_one, _move_several)


def _store_one(m: Machine, i: Instruction, step: int) -> None:
    destination = i.destination
    assert isinstance(destination, Memory)
    destination.write(m, m.gpr[RAX])
    m.gpr[RDI] = (m.gpr[RDI] + step) & destination.mask


def stos(m: Machine, i: Instruction, end: int) -> int:
    """Store the accumulator at [RDI] (SDM Vol. 2B, STOS)."""
    return repeated(m, i, end, _store_one)
