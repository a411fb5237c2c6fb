"""x87 and SSE instructions, as far as CR0 lets no such instruction run: the model has no registers for them (SDM Vol. 3A, 2.5)."""

from __future__ import annotations

from reference.decode import Instruction
from reference.faults import NotModelled, Vector, require
from reference.machine import Machine
from reference.profiles import Cr0, Cr4


def x87(m: Machine, i: Instruction, end: int) -> int:
    """#NM where CR0.EM or CR0.TS is set (SDM Vol. 3A, 2.5, Table 2-2)."""
    require(not m.cr0 & (Cr0.EM | Cr0.TS), Vector.NM, None, "SDM Vol. 3A, 2.5: an x87 instruction with CR0.EM or CR0.TS set")
    raise NotModelled(i.name)


def wait(m: Machine, i: Instruction, end: int) -> int:
    """#NM where CR0.MP and CR0.TS are both set (SDM Vol. 3A, 2.5, Table 2-2)."""
    rule = "SDM Vol. 3A, 2.5: WAIT with CR0.MP and CR0.TS set"
    require(not (m.cr0 & Cr0.MP and m.cr0 & Cr0.TS), Vector.NM, None, rule)
    raise NotModelled(i.name)


def sse(m: Machine, i: Instruction, end: int) -> int:
    """#UD where CR0.EM is set or CR4.OSFXSR clear, then #NM where CR0.TS is set (SDM Vol. 3A, 2.5; Vol. 2A, Table 2-21)."""
    enabled = not m.cr0 & Cr0.EM and bool(m.cr4 & Cr4.OSFXSR)
    require(enabled, Vector.UD, None, "SDM Vol. 3A, 2.5: an SSE instruction with CR0.EM set or CR4.OSFXSR clear")
    require(not m.cr0 & Cr0.TS, Vector.NM, None, "SDM Vol. 3A, 2.5: an SSE instruction with CR0.TS set")
    raise NotModelled(i.name)
