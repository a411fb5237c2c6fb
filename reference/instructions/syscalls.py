"""The fast system calls: SYSCALL, SYSRET, SYSENTER, SYSEXIT (SDM Vol. 2B; APM Vol. 3)."""

from __future__ import annotations

from typing import Final

from reference.bits import FIXED, IF, MASK32, MASK64, RF, VM, canonical
from reference.compatibility import check_mode
from reference.decode import Instruction
from reference.descriptors import Segment, flat_code, flat_stack
from reference.faults import NotModelled, Vector, require
from reference.machine import CS, R11, RCX, RDX, RSP, SS, Machine, set_cpl, set_rflags
from reference.profiles import Efer

SYSRET_FLAGS: Final = 0x3C_7FD7
"""Bits of R11 that SYSRET moves to RFLAGS (SDM Vol. 2B, SYSRET); RF, VM and reserved bits become 0."""


def syscall(m: Machine, i: Instruction, end: int) -> int:
    """Enter the kernel at LSTAR; RSP stays the user's (SDM Vol. 2B, SYSCALL; APM Vol. 3 clears RF in R11).

    The RPL of CS is forced to 0; both manuals take SS from STAR as it stands, plus 8.
    """
    return _enter(m, end, m.lstar)


def syscall_compatibility(m: Machine, i: Instruction, end: int) -> int:
    """From compatibility mode AMD enters at CSTAR (APM Vol. 3, SYSCALL), Intel has no SYSCALL there (SDM Vol. 2B, SYSCALL)."""
    require(m.profile.vendor == "amd", Vector.UD, None, "SDM Vol. 2B, SYSCALL: not in 64-bit mode")
    return _enter(m, end, m.cstar)


def _enter(m: Machine, end: int, target: int) -> int:
    require(bool(m.efer & Efer.SCE), Vector.UD, None, "SDM Vol. 2B, SYSCALL: IA32_EFER.SCE is 0")
    if m.undefined:
        raise NotModelled("syscall copies an undefined flag")
    if m.rflags & RF and m.profile.vendor == "intel":
        raise NotModelled("syscall with RF set: whether R11 gets it the SDM does not say")

    m.gpr[RCX] = end
    m.gpr[R11] = m.rflags & ~RF
    set_rflags(m, m.rflags & ~m.sfmask & ~RF | FIXED)
    selector = m.star >> 32 & 0xFFFF
    _load(m, flat_code(selector & 0xFFFC, 0, long=True), flat_stack(selector + 8 & 0xFFFF, 0), 0)

    return target


def sysret(m: Machine, i: Instruction, end: int) -> int:
    """Return to user mode at RCX (SDM Vol. 2B, SYSRET; APM Vol. 3, SYSRET).

    Intel faults at CPL 0 where RCX is not canonical; AMD returns, and the fetch faults at CPL 3.
    """
    require(bool(m.efer & Efer.SCE), Vector.UD, None, "SDM Vol. 2B, SYSRET: IA32_EFER.SCE is 0")
    require(m.cpl == 0, Vector.GP, 0, "SDM Vol. 2B, SYSRET: CPL is not 0")
    wide = i.name == "sysretq"
    rcx = m.gpr[RCX]
    if wide and m.profile.sysret_checks_rcx:
        require(canonical(rcx), Vector.GP, 0, "SDM Vol. 2B, SYSRET: RCX is not canonical")

    set_rflags(m, m.gpr[R11] & SYSRET_FLAGS | FIXED)
    m.undefined = 0
    base = m.star >> 48
    stack_selector = base + 8 & 0xFFFF
    if m.profile.sysret_forces_ss_rpl:
        stack_selector |= 3
    stack = _with_selector(m.ss, stack_selector) if m.profile.vendor == "amd" else flat_stack(stack_selector, 3)
    _load(m, flat_code((base + 16 if wide else base) & 0xFFFF | 3, 3, long=wide), stack, 3)

    return rcx if wide else rcx & MASK32


def sysret_compatibility(m: Machine, i: Instruction, end: int) -> int:
    """In compatibility mode Intel has no SYSRET (SDM Vol. 2B, SYSRET); AMD's faults at CPL 3 as in any mode (APM Vol. 3, SYSRET)."""
    require(m.profile.vendor == "amd", Vector.UD, None, "SDM Vol. 2B, SYSRET: not in 64-bit mode")
    return sysret(m, i, end)


def _with_selector(segment: Segment, selector: int) -> Segment:
    """The same hidden part: AMD's SYSRET changes no more of SS than the selector (APM Vol. 3, SYSRET)."""
    return Segment(selector, segment.base, segment.limit, segment.descriptor, segment.usable)


def sysenter(m: Machine, i: Instruction, end: int) -> int:
    """Enter the kernel at SYSENTER_EIP on SYSENTER_ESP; invalid in AMD's long mode (SDM Vol. 2B, SYSENTER; APM Vol. 3)."""
    require(m.profile.sysenter_in_long_mode, Vector.UD, None, "APM Vol. 3, SYSENTER: invalid in long mode")
    require(not _null_sysenter_cs(m), Vector.GP, 0, "SDM Vol. 2B, SYSENTER: IA32_SYSENTER_CS[15:2] is 0")

    set_rflags(m, m.rflags & ~(VM | IF))
    selector = m.sysenter_cs & 0xFFFC
    _load(m, flat_code(selector, 0, long=True), flat_stack(selector + 8 & 0xFFFF, 0), 0)
    m.gpr[RSP] = m.sysenter_esp

    return m.sysenter_eip


def sysexit(m: Machine, i: Instruction, end: int) -> int:
    """Return to user mode at RDX on RCX (SDM Vol. 2B, SYSEXIT; APM Vol. 3: invalid in long mode)."""
    require(m.profile.sysenter_in_long_mode, Vector.UD, None, "APM Vol. 3, SYSEXIT: invalid in long mode")
    require(not _null_sysenter_cs(m), Vector.GP, 0, "SDM Vol. 2B, SYSEXIT: IA32_SYSENTER_CS[15:2] is 0")
    require(m.cpl == 0, Vector.GP, 0, "SDM Vol. 2B, SYSEXIT: CPL is not 0")
    wide = i.name == "sysexitq"
    rule = "SDM Vol. 2B, SYSEXIT: RCX or RDX is not canonical"
    require(not wide or (canonical(m.gpr[RCX]) and canonical(m.gpr[RDX])), Vector.GP, 0, rule)

    selector = (m.sysenter_cs + (32 if wide else 16)) & 0xFFFF | 3
    mask = MASK64 if wide else MASK32
    m.gpr[RSP] = m.gpr[RCX] & mask
    _load(m, flat_code(selector, 3, long=wide), flat_stack(selector + 8 & 0xFFFF, 3), 3)

    return m.gpr[RDX] & mask


def _null_sysenter_cs(m: Machine) -> bool:
    return m.sysenter_cs & 0xFFFC == 0


def _load(m: Machine, code: Segment, stack: Segment, cpl: int) -> None:
    m.segments[CS] = code
    m.segments[SS] = stack
    set_cpl(m, cpl)
    check_mode(m)
