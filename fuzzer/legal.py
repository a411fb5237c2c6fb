"""Which values a machine can hold before its first instruction: no case starts from a state that no processor can be in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fuzzer.targets import layout
from fuzzer.targets.target import default_cr4
from reference.bits import BD, BS, DEFINED, DR6_FIXED, DR7_FIXED, DR7_WRITABLE, FIXED, MASK64, VIF, VIP, VM, sign_extend
from reference.image import GPRS, Event, EventKind
from reference.profiles import Cr0, Cr4, Efer, Profile

LAST_BOUNDARY: Final = 1023

Rule = Callable[[int, Profile, int], int]
"""From a wanted value, the profile and the CPL to the nearest value the register can hold."""


def _any(value: int, profile: Profile, cpl: int) -> int:
    return value & MASK64


def _canonical(value: int, profile: Profile, cpl: int) -> int:
    return sign_extend(value & 0xFFFF_FFFF_FFFF, 48)


def _rflags(value: int, profile: Profile, cpl: int) -> int:
    """Virtual-8086 mode does not exist in IA-32e mode; VIF and VIP belong to extensions outside the model."""
    return value & DEFINED & ~(VM | VIF | VIP) | FIXED


USER_SELECTORS: Final = (0, 1, 2, 3, layout.USER_DS, layout.USER_CS, 0x63, 0xBB)
KERNEL_SELECTORS: Final = (*USER_SELECTORS, layout.KERNEL_DS, layout.KERNEL_CS, 0x78)


def _data_selector(value: int, profile: Profile, cpl: int) -> int:
    """A selector that this CPL could have loaded."""
    choices = USER_SELECTORS if cpl == 3 else KERNEL_SELECTORS
    return value if value in choices else choices[value % len(choices)]


def _stack_selector(value: int, profile: Profile, cpl: int) -> int:
    """SS is null at CPL 0 after an interrupt from user mode, and a data segment of the CPL otherwise."""
    if cpl == 3:
        return layout.USER_DS
    return value if value in (0, layout.KERNEL_DS) else (0, layout.KERNEL_DS)[value & 1]


def _ldtr(value: int, profile: Profile, cpl: int) -> int:
    return value if value in (0, layout.LDT_SELECTOR) else (0, layout.LDT_SELECTOR)[value & 1]


def _cr0(value: int, profile: Profile, cpl: int) -> int:
    fixed = Cr0.PE | Cr0.MP | Cr0.ET | Cr0.NE | Cr0.PG
    return value & (Cr0.WP | Cr0.AM) | fixed


def _cr4(value: int, profile: Profile, cpl: int) -> int:
    free = Cr4.TSD | Cr4.DE | Cr4.PGE | Cr4.MCE | default_cr4(profile) & (Cr4.FSGSBASE | Cr4.SMEP | Cr4.SMAP)
    return value & free | Cr4.PAE | Cr4.OSFXSR


def _efer(value: int, profile: Profile, cpl: int) -> int:
    return value & Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE


def _dr6(value: int, profile: Profile, cpl: int) -> int:
    return value & (BD | BS) | DR6_FIXED


def _dr7(value: int, profile: Profile, cpl: int) -> int:
    return value & DR7_WRITABLE | DR7_FIXED


def _low(bits: int) -> Rule:
    return lambda value, profile, cpl: value & (1 << bits) - 1


def _limit_above(least: int) -> Rule:
    """A limit that still covers the descriptors a machine has loaded."""
    return lambda value, profile, cpl: max(value & 0xFFFF, least)


RULES: Final[dict[str, Rule]] = {
    **dict.fromkeys(GPRS, _any),
    "rip": _canonical,
    "rflags": _rflags,
    **dict.fromkeys(("es", "ds", "fs", "gs"), _data_selector),
    "ss": _stack_selector,
    "ldtr": _ldtr,
    **dict.fromkeys(("fs_base", "gs_base", "kernel_gs_base", "lstar", "cstar", "sysenter_esp", "sysenter_eip"), _canonical),
    "cr0": _cr0,
    "cr2": _any,
    "cr4": _cr4,
    "cr8": _low(4),
    "efer": _efer,
    **dict.fromkeys(("dr0", "dr1", "dr2", "dr3", "star"), _any),
    "dr6": _dr6,
    "dr7": _dr7,
    "sfmask": _low(32),
    "sysenter_cs": _low(16),
    "gdtr_limit": _limit_above(layout.LDT_SELECTOR + 15),
    "idtr_limit": _low(16),
}
"""The registers that a case may set, in the order that case bytes number them. CS, TR, CR3 and the tables' bases are the target's."""


def legal_register(name: str, value: int, profile: Profile, cpl: int) -> int:
    """What register `name` holds when `value` is asked for."""
    return RULES[name](value, profile, cpl)


def legal_event(event: Event) -> Event:
    """An event at a boundary that exists, with the vector of its kind; an interrupt never has an exception's vector."""
    boundary = event.boundary & LAST_BOUNDARY
    if event.kind is EventKind.INTERRUPT:
        vector = event.vector if 32 <= event.vector <= 255 else 32 + event.vector % 16
        return Event(boundary, event.kind, 32 if vector == layout.END_VECTOR else vector)
    return Event(boundary, event.kind, 2 if event.kind is EventKind.NMI else 18)
