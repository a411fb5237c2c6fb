"""Near branches (SDM Vol. 2A, CALL, Jcc, JMP; Vol. 2B, RET).

With a 66 prefix Intel processors ignore the prefix; AMD's cut RIP to 16 bits (APM Vol. 3, 1.2.7), and iced decodes it so.
"""

from __future__ import annotations

from reference.bits import MASK64, canonical
from reference.decode import Instruction
from reference.faults import Vector, require
from reference.instructions.flags import condition
from reference.instructions.stack import push_value
from reference.machine import RCX, RSP, Machine
from reference.memory import load, refuse_undefined

_RULE = "SDM Vol. 2A, CALL, JMP and Jcc, Vol. 2B, RET: the target of a near branch is not canonical"


def _relative_target(m: Machine, i: Instruction) -> int:
    target = (m.rip + i.target) & MASK64
    return _require_canonical(target & 0xFFFF if i.destination.size == 2 else target)


def _require_canonical(target: int) -> int:
    require(canonical(target), Vector.GP, 0, _RULE)
    return target


def jmp(m: Machine, i: Instruction, end: int) -> int:
    """Jump relative (SDM Vol. 2A, JMP)."""
    return _relative_target(m, i)


def jmp_indirect(m: Machine, i: Instruction, end: int) -> int:
    """Jump to the address in a register or memory (SDM Vol. 2A, JMP)."""
    return _require_canonical(i.destination.read(m))


def jcc(m: Machine, i: Instruction, end: int) -> int:
    """Jump if the condition holds (SDM Vol. 2A, Jcc)."""
    return _relative_target(m, i) if condition(m, i.condition) else end


def jrcxz(m: Machine, i: Instruction, end: int) -> int:
    """Jump if RCX, or ECX with a 67 prefix, is 0 (SDM Vol. 2A, Jcc)."""
    count = m.gpr[RCX] if i.name == "jrcxz" else m.gpr[RCX] & 0xFFFF_FFFF
    return end if count else _relative_target(m, i)


def call(m: Machine, i: Instruction, end: int) -> int:
    """Push the return address and jump relative (SDM Vol. 2A, CALL)."""
    target = _relative_target(m, i)
    push_value(m, end, i.slot)
    return target


def call_indirect(m: Machine, i: Instruction, end: int) -> int:
    """Push the return address and jump to the address in a register or memory (SDM Vol. 2A, CALL)."""
    target = _require_canonical(i.destination.read(m))
    push_value(m, end, i.slot)
    return target


def ret(m: Machine, i: Instruction, end: int) -> int:
    """Pop RIP, and release `imm16` bytes more (SDM Vol. 2B, RET)."""
    size = 2 if i.name == "retw" else 8
    target = load(m, m.gpr[RSP], size, stack=True)
    if m.undefined_words:
        refuse_undefined(m, m.gpr[RSP], size)
    _require_canonical(target)
    release = i.destination.read(m) if i.operands else 0

    m.gpr[RSP] = (m.gpr[RSP] + size + release) & MASK64

    return target
