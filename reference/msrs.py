"""The model-specific registers of kernel entry (SDM Vol. 4, Table 2-2; APM Vol. 2, appendix A)."""

from __future__ import annotations

from typing import Final

from reference.bits import MASK16, MASK32, canonical
from reference.faults import NotModelled, Vector, require
from reference.machine import FS, GS, Machine, access_rules_changed
from reference.profiles import Cr0, Efer

SYSENTER_CS: Final = 0x174
SYSENTER_ESP: Final = 0x175
SYSENTER_EIP: Final = 0x176
EFER: Final = 0xC000_0080
STAR: Final = 0xC000_0081
LSTAR: Final = 0xC000_0082
CSTAR: Final = 0xC000_0083
SFMASK: Final = 0xC000_0084
FS_BASE: Final = 0xC000_0100
GS_BASE: Final = 0xC000_0101
KERNEL_GS_BASE: Final = 0xC000_0102

ATTRIBUTES: Final = {
    SYSENTER_CS: "sysenter_cs",
    SYSENTER_ESP: "sysenter_esp",
    SYSENTER_EIP: "sysenter_eip",
    EFER: "efer",
    STAR: "star",
    LSTAR: "lstar",
    CSTAR: "cstar",
    SFMASK: "sfmask",
    KERNEL_GS_BASE: "kernel_gs_base",
}
"""Registers that are plain state; FS_BASE and GS_BASE are the hidden parts of FS and GS."""

ADDRESSES: Final = frozenset({LSTAR, CSTAR, FS_BASE, GS_BASE, KERNEL_GS_BASE})
"""Registers that hold a linear address: WRMSR demands a canonical one (SDM Vol. 2D, WRMSR; APM Vol. 2, 4.5.3 and 6.1.1)."""

_SYSENTER_ADDRESSES: Final = frozenset({SYSENTER_ESP, SYSENTER_EIP})
"""Addresses too on Intel; 32 bits wide on AMD, where no SYSENTER runs in long mode (APM Vol. 2, 6.1.2)."""

_UNUSED_ABOVE: Final = {SFMASK: MASK32, SYSENTER_CS: MASK16}
"""Registers with bits that SDM Vol. 4 calls unused: whether they keep what is written it does not say."""

_DOCUMENTED: Final = ((0, 0x1FFF), (0x4000_0000, 0x4000_0FFF), (0xC000_0000, 0xC001_1FFF))
"""Ranges in which some processor has registers; outside them none has (SDM Vol. 4; APM Vol. 2, appendix A)."""


def read_msr(m: Machine, number: int) -> int:
    """The value of a register, or #GP(0) where none is (SDM Vol. 2B, RDMSR)."""
    if number in (FS_BASE, GS_BASE):
        return m.segments[FS if number == FS_BASE else GS].base
    if number not in ATTRIBUTES:
        _refuse(number, "SDM Vol. 2B, RDMSR: the register in ECX does not exist")
    value: int = getattr(m, ATTRIBUTES[number])
    return value


def write_msr(m: Machine, number: int, value: int) -> None:
    """Write a register, or #GP(0): unknown, reserved bits, or a non-canonical address (SDM Vol. 2D, WRMSR)."""
    if number in _SYSENTER_ADDRESSES and m.profile.vendor == "amd" and value > MASK32:
        raise NotModelled("the upper half of a SYSENTER address on AMD")
    if number in ADDRESSES | _SYSENTER_ADDRESSES:
        require(canonical(value), Vector.GP, 0, "SDM Vol. 2D, WRMSR: a non-canonical address for a register that holds one")
    if number in (FS_BASE, GS_BASE):
        m.segments[FS if number == FS_BASE else GS].base = value
    elif number == EFER:
        _write_efer(m, value)
    elif number in ATTRIBUTES:
        if value > _UNUSED_ABOVE.get(number, value):
            raise NotModelled(f"unused bits of {ATTRIBUTES[number]}")
        setattr(m, ATTRIBUTES[number], value)
    else:
        _refuse(number, "SDM Vol. 2D, WRMSR: the register in ECX does not exist")


def _write_efer(m: Machine, value: int) -> None:
    """IA32_EFER: reserved bits fault, LME is locked while paging is on, LMA is read-only (SDM Vol. 3A, 2.2.1 and 10.8.5)."""
    unknown = value & ~Efer.DEFINED
    if m.profile.vendor == "amd" and unknown & 0x3F_F000:
        raise NotModelled("EFER bits of AMD features")
    require(not unknown, Vector.GP, 0, "SDM Vol. 3A, 2.2.1: a reserved bit of IA32_EFER is set")
    changes_mode = bool((value ^ m.efer) & Efer.LME) and bool(m.cr0 & Cr0.PG)
    require(not changes_mode, Vector.GP, 0, "SDM Vol. 3A, 10.8.5: IA32_EFER.LME changes while paging is enabled")
    if (value ^ m.efer) & Efer.LMA and m.profile.vendor == "amd":
        raise NotModelled("EFER.LMA written with another value on AMD")
    if m.efer & Efer.NXE and not value & Efer.NXE:
        # WRMSR is not among what invalidates cached translations (SDM Vol. 3A, 5.10.4.1).
        raise NotModelled("EFER.NXE cleared")

    m.efer = value & ~Efer.LMA | m.efer & Efer.LMA
    access_rules_changed(m)


def _refuse(number: int, rule: str) -> None:
    if any(low <= number <= high for low, high in _DOCUMENTED):
        raise NotModelled(f"msr {number:#x}")
    require(False, Vector.GP, 0, rule)
