"""CPU profiles: what differs between vendors and feature sets, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


class Cr0:
    """Bits of CR0 (SDM Vol. 3A, 2.5)."""

    PE: Final = 1 << 0
    MP: Final = 1 << 1
    EM: Final = 1 << 2
    TS: Final = 1 << 3
    ET: Final = 1 << 4
    NE: Final = 1 << 5
    WP: Final = 1 << 16
    AM: Final = 1 << 18
    NW: Final = 1 << 29
    CD: Final = 1 << 30
    PG: Final = 1 << 31
    DEFINED: Final = PE | MP | EM | TS | ET | NE | WP | AM | NW | CD | PG


class Cr4:
    """Bits of CR4 (SDM Vol. 3A, 2.5)."""

    VME: Final = 1 << 0
    PVI: Final = 1 << 1
    TSD: Final = 1 << 2
    DE: Final = 1 << 3
    PSE: Final = 1 << 4
    PAE: Final = 1 << 5
    MCE: Final = 1 << 6
    PGE: Final = 1 << 7
    PCE: Final = 1 << 8
    OSFXSR: Final = 1 << 9
    OSXMMEXCPT: Final = 1 << 10
    UMIP: Final = 1 << 11
    LA57: Final = 1 << 12
    FSGSBASE: Final = 1 << 16
    PCIDE: Final = 1 << 17
    SMEP: Final = 1 << 20
    SMAP: Final = 1 << 21
    BASIC: Final = VME | PVI | TSD | DE | PSE | PAE | MCE | PGE | PCE | OSFXSR | OSXMMEXCPT
    RESERVED: Final = 0xFFFF_FFFF_0000_0000 | 1 << 15 | 1 << 19
    """Bits that no processor of these profiles defines; the others belong to features outside the model."""


class Efer:
    """Bits of IA32_EFER (SDM Vol. 3A, 2.2.1)."""

    SCE: Final = 1 << 0
    LME: Final = 1 << 8
    LMA: Final = 1 << 10
    NXE: Final = 1 << 11
    DEFINED: Final = SCE | LME | LMA | NXE


@dataclass(frozen=True, slots=True)
class Profile:
    """A processor that engines are asked to be.

    The three booleans at the end are the differences between vendors that kernel entry can see; their sources:
    `sysret_checks_rcx` SDM Vol. 2B SYSRET against APM Vol. 3 SYSRET; `sysret_forces_ss_rpl` the same pages;
    `null_load_clears_base` SDM Vol. 3A 3.4.4 against APM Vol. 2 4.5.1 and 4.5.3 (which leave the base open);
    `sysenter_in_long_mode` SDM Vol. 2B SYSENTER against APM Vol. 3 SYSENTER (#UD in long mode).

    `pti` is no feature of the processor but what software chose for it: a kernel that can be built both ways runs user mode on
    page tables of its own, in which the rest of the kernel is missing.
    """

    name: str
    vendor: str
    fsgsbase: bool
    smap: bool
    smep: bool
    invpcid: bool
    physical_address_bits: int
    cpuid_vendor: bytes
    cpuid_max_leaf: int
    sysret_checks_rcx: bool
    sysret_forces_ss_rpl: bool
    null_load_clears_base: bool
    sysenter_in_long_mode: bool
    near_branch_ignores_66: bool
    pti: bool = False

    @property
    def cr4_allowed(self) -> int:
        """The bits of CR4 that software may set on this processor, as far as they are modelled."""
        features = ((Cr4.FSGSBASE, self.fsgsbase), (Cr4.SMEP, self.smep), (Cr4.SMAP, self.smap))
        return Cr4.BASIC | sum(bit for bit, present in features if present)


def _intel(name: str, fsgsbase: bool, smap: bool, smep: bool, pti: bool = False, cpuid_max_leaf: int = 0xD) -> Profile:
    return Profile(
        name,
        "intel",
        fsgsbase,
        smap,
        smep,
        invpcid=False,
        physical_address_bits=40,
        cpuid_vendor=b"GenuineIntel",
        cpuid_max_leaf=cpuid_max_leaf,
        sysret_checks_rcx=True,
        sysret_forces_ss_rpl=True,
        null_load_clears_base=True,
        sysenter_in_long_mode=True,
        near_branch_ignores_66=True,
        pti=pti,
    )


PROFILES: Final = {
    profile.name: profile
    for profile in (
        _intel("intel", fsgsbase=True, smap=True, smep=True),
        Profile(
            "amd",
            "amd",
            fsgsbase=True,
            smap=True,
            smep=True,
            invpcid=False,
            physical_address_bits=40,
            cpuid_vendor=b"AuthenticAMD",
            cpuid_max_leaf=0xD,
            sysret_checks_rcx=False,
            sysret_forces_ss_rpl=False,
            null_load_clears_base=False,
            sysenter_in_long_mode=False,
            near_branch_ignores_66=False,
        ),
        _intel("intel-2012", fsgsbase=True, smap=False, smep=True),
        _intel("intel-2010", fsgsbase=False, smap=False, smep=False, cpuid_max_leaf=0xB),
        _intel("intel-pti", fsgsbase=True, smap=True, smep=True, pti=True),
    )
}
"""By name. `intel` is a Skylake client part, `amd` a first EPYC, `intel-2012` an Ivy Bridge without SMAP, `intel-2010` a Westmere,
where user mode cannot write a base; `intel-pti` is `intel` under a kernel that isolates its page tables.
Case bytes number them: append, never reorder."""
