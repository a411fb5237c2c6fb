"""The machine around the code: control registers, segments, breakpoints, descriptors, gates, stacks and pages."""

from __future__ import annotations

import struct
from random import Random

from fuzzer.generate import values
from fuzzer.legal import KERNEL_SELECTORS, USER_SELECTORS
from fuzzer.targets import layout, tables
from fuzzer.targets.target import Patch, default_cr4, patch
from reference.image import Event, EventKind
from reference.profiles import Profile


def arrange_machine(rng: Random, profile: Profile, cpl: int) -> tuple[dict[str, int], tuple[Patch, ...]]:
    """Registers and memory that differ from the target's: often flags, at times one or two other things."""
    registers: dict[str, int] = {}
    patches: list[Patch] = []
    if rng.random() < 0.5:
        registers["rflags"] = values.quiet_rflags(rng)
    for chance, change in _CHANGES:
        if rng.random() < chance:
            change(rng, profile, cpl, registers, patches)
    return registers, tuple(patches)


def random_event(rng: Random, boundaries: int) -> Event:
    """An event at any boundary of a path that is `boundaries` long, or just behind it."""
    kind = rng.choices((EventKind.INTERRUPT, EventKind.NMI), weights=(1, 1))[0]
    vector = rng.randrange(0x20, 0x30) if rng.random() < 0.8 else rng.randrange(32, 256)
    return Event(rng.randrange(boundaries + 1), kind, vector)


def _control(rng: Random, profile: Profile, cpl: int, registers: dict[str, int], patches: list[Patch]) -> None:
    registers["cr4"] = values.cr4(rng, default_cr4(profile))
    if rng.random() < 0.3:
        registers["cr0"] = values.cr0(rng)


def _efer(rng: Random, profile: Profile, cpl: int, registers: dict[str, int], patches: list[Patch]) -> None:
    registers["efer"] = values.efer(rng)


def _bases(rng: Random, profile: Profile, cpl: int, registers: dict[str, int], patches: list[Patch]) -> None:
    for name in rng.sample(("gs_base", "kernel_gs_base", "fs_base"), rng.randrange(1, 3)):
        registers[name] = values.address(rng)


def _segments(rng: Random, profile: Profile, cpl: int, registers: dict[str, int], patches: list[Patch]) -> None:
    for name in rng.sample(("ds", "es", "fs", "gs"), rng.randrange(1, 4)):
        registers[name] = rng.choice(USER_SELECTORS if cpl == 3 else KERNEL_SELECTORS)
    registers["ss"] = rng.choice((0, layout.KERNEL_DS))


def _breakpoints(rng: Random, profile: Profile, cpl: int, registers: dict[str, int], patches: list[Patch]) -> None:
    registers["dr7"] = values.dr7(rng)
    code = layout.USER_CODE if cpl == 3 else layout.KERNEL_CODE
    data = layout.USER_DATA if cpl == 3 else layout.KERNEL_DATA
    for n in range(4):
        registers[f"dr{n}"] = rng.choice(
            (code.start + rng.randrange(12), data.start + 8 * rng.randrange(16, 0x100), layout.KERNEL_TEXT.start)
        )


def _fast_calls(rng: Random, profile: Profile, cpl: int, registers: dict[str, int], patches: list[Patch]) -> None:
    registers["star"] = values.selector(rng) << 48 | values.selector(rng) << 32
    registers["sfmask"] = rng.getrandbits(22)
    registers["sysenter_cs"] = values.selector(rng)


def _stacks(rng: Random, profile: Profile, cpl: int, registers: dict[str, int], patches: list[Patch]) -> None:
    """RSP0 or an interrupt stack table slot somewhere else."""
    slot = rng.choice((4, *(28 + 8 * ist for ist in (layout.IST_DOUBLE_FAULT, layout.IST_NMI, layout.IST_DEBUG))))
    stack = values.stack_pointer(rng, 0)
    patches.append(patch(layout.PERCPU, layout.TSS_OFFSET + slot, struct.pack("<Q", stack)))


def _gate(rng: Random, profile: Profile, cpl: int, registers: dict[str, int], patches: list[Patch]) -> None:
    vector = rng.choice((1, 2, 3, 6, 8, 10, 11, 12, 13, 13, 14, 14, 0x21))
    data = tables.gate(
        layout.KERNEL_TEXT.start + 16 * vector if rng.random() < 0.8 else values.address(rng),
        values.code_selector(rng),
        ist=rng.choice((0, 0, 1, 2, 3, 5)),
        dpl=rng.choice((0, 3)),
        type_=rng.choice((0xE, 0xE, 0xF, 0xC, 0x5)),
        present=rng.random() < 0.8,
    )
    patches.append(patch(layout.IDT, vector * 16, data))


def _idt_limit(rng: Random, profile: Profile, cpl: int, registers: dict[str, int], patches: list[Patch]) -> None:
    registers["idtr_limit"] = rng.choice((13 * 16 + 14, 14 * 16 + 15, 0xF1 * 16 + 15, 15, 0))


def _descriptor(rng: Random, profile: Profile, cpl: int, registers: dict[str, int], patches: list[Patch]) -> None:
    """One spare descriptor with properties of its own."""
    raw = tables.segment(
        rng.randrange(16),
        rng.choice((0, 0, 3, 3, 1, 2)),
        base=rng.choice((0, values.mapped_data(rng, 3))),
        present=rng.random() < 0.8,
        system=rng.random() < 0.2,
        flags=rng.choice((0xA, 0xA, 0xC, 0xE, 0x4, 0)),
    )
    slot = rng.choice((0x60, 0x68, 0x70, 0x80, 0x88, 0xB0, 0xB8))
    patches.append(patch(layout.GDT, slot, struct.pack("<Q", raw)))


def _page(rng: Random, profile: Profile, cpl: int, registers: dict[str, int], patches: list[Patch]) -> None:
    """One page with a right more or less, or a reserved bit."""
    region = rng.choice((layout.USER_DATA, layout.USER_STACK, layout.KERNEL_DATA, layout.THREAD_STACK, layout.NMI_STACK, layout.USER_CODE))
    entry = tables.leaf_entry(region.start) ^ rng.choice((1, 2, 4, 0x20, 0x40, 1 << 63, 1 << 45))
    patches.append(Patch("page_tables", tables.entry_offset(region.start), struct.pack("<Q", entry)))


_CHANGES = (
    (0.12, _control),
    (0.03, _efer),
    (0.15, _bases),
    (0.1, _segments),
    (0.06, _breakpoints),
    (0.08, _fast_calls),
    (0.07, _stacks),
    (0.07, _gate),
    (0.02, _idt_limit),
    (0.06, _descriptor),
    (0.06, _page),
)
"""(chance, change): each draws from the architecture's own distinctions."""
