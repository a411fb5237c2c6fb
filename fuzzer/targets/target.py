"""What a target is: entry code in memory, and named ways into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fuzzer.targets import layout, tables
from fuzzer.targets.layout import Region
from reference.bits import DR6_FIXED, DR7_FIXED, FIXED, IF
from reference.image import REGISTERS, Event
from reference.linux.entry_code import EntryCode
from reference.profiles import Cr0, Cr4, Efer, Profile


@dataclass(frozen=True, slots=True)
class Patch:
    """Bytes that replace part of a region: `offset` counts from its start."""

    region: str
    offset: int
    data: bytes


def patch(region: Region, offset: int, data: bytes) -> Patch:
    """A patch by region object."""
    return Patch(region.name, offset, data)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One named way into a target: where the run begins and what lies in memory.

    `events` are what a scenario that is named for an event is about (`nmi-from-user`: an NMI). They are a proposal to whoever
    makes cases, for the plain path: a case has the events that it lists and no others.
    """

    name: str
    summary: str
    cpl: int
    registers: Mapping[str, int]
    memory: tuple[Patch, ...] = ()
    events: tuple[Event, ...] = ()
    user_tables: bool = False
    """Begins at CPL 0 but on user mode's page tables, as the last instructions of a way out do."""


@dataclass(frozen=True, slots=True)
class Target:
    """Entry code under test: its memory before a scenario touches it, its symbols and its scenarios."""

    name: str
    summary: str
    pages: Mapping[int, bytes]
    scenarios: tuple[Scenario, ...]
    symbols: Mapping[str, int] = field(default_factory=dict)
    alternatives: Mapping[str, tuple[Patch, ...]] = field(default_factory=dict)
    """By profile: what the kernel writes over its own code at start-up, for the features it found."""
    edits: tuple[Patch, ...] = ()
    """Changes on top of everything else: a planted bug is the target with an edit."""
    isolates: bool = False
    """On profiles with `pti`, user mode runs on page tables of its own (`tables.USER_CR3`)."""
    code: EntryCode | None = None
    """What the contract has to know; None where there is no entry code to keep it."""
    kinds: tuple[str, ...] = ()
    """The events that the entry code has gates for, as a sweep names them (`interrupt:0x20`, `nmi`); empty: all kinds."""

    def scenario(self, name: str) -> Scenario:
        """The scenario of that name; KeyError if there is none."""
        for scenario in self.scenarios:
            if scenario.name == name:
                return scenario
        raise KeyError(name)


SCRATCH = frozenset({tables.FRAMES["end_stack"]})
"""Pages left out of the comparison: the frame of the ending interrupt is in the registers already."""

USER_GS_BASE = 0x41_0800
USER_FS_BASE = 0x41_0400
SYSCALL_STAR = layout.USER32_CS << 48 | layout.KERNEL_CS << 32
SYSCALL_MASK = 0x4_7700
"""What Linux puts in IA32_FMASK: TF, IF, DF, IOPL, NT and AC."""


def default_registers(profile: Profile, cpl: int) -> dict[str, int]:
    """A legal machine at `cpl`: kernel or user segments and GS base, stacks at their tops, interrupts enabled."""
    user = cpl == 3
    kernel_gs = layout.PERCPU.start
    registers = dict.fromkeys(REGISTERS, 0)
    registers |= {
        "rsp": layout.USER_STACK.end - 0x100 if user else layout.THREAD_STACK.end - 0x100,
        "rip": layout.USER_CODE.start if user else layout.KERNEL_CODE.start,
        "rflags": FIXED | IF,
        "cs": layout.USER_CS if user else layout.KERNEL_CS,
        "ss": layout.USER_DS if user else layout.KERNEL_DS,
        "ldtr": layout.LDT_SELECTOR,
        "tr": layout.TSS_SELECTOR,
        "fs_base": USER_FS_BASE,
        "gs_base": USER_GS_BASE if user else kernel_gs,
        "kernel_gs_base": kernel_gs if user else USER_GS_BASE,
        "cr0": Cr0.PE | Cr0.MP | Cr0.ET | Cr0.NE | Cr0.WP | Cr0.AM | Cr0.PG,
        "cr3": tables.CR3,
        "cr4": default_cr4(profile),
        "efer": Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE,
        "dr6": DR6_FIXED,
        "dr7": DR7_FIXED,
        "star": SYSCALL_STAR,
        "lstar": layout.KERNEL_TEXT.start,
        "cstar": layout.KERNEL_TEXT.start,
        "sfmask": SYSCALL_MASK,
        "sysenter_cs": layout.KERNEL_CS,
        "sysenter_esp": layout.THREAD_STACK.end,
        "sysenter_eip": layout.KERNEL_TEXT.start,
        "gdtr_base": layout.GDT.start,
        "gdtr_limit": layout.GDT_LIMIT,
        "idtr_base": layout.IDT.start,
        "idtr_limit": layout.IDT_LIMIT,
    }
    return registers


def default_cr4(profile: Profile) -> int:
    """CR4 with every feature of the profile on."""
    features = ((Cr4.FSGSBASE, profile.fsgsbase), (Cr4.SMEP, profile.smep), (Cr4.SMAP, profile.smap))
    return Cr4.PAE | Cr4.PGE | Cr4.MCE | Cr4.DE | Cr4.OSFXSR | sum(bit for bit, present in features if present)
