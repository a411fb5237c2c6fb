"""Values worth trying, by what they are used for. Edges of the architecture's rules, not of any engine's."""

from __future__ import annotations

from random import Random
from typing import Final

from fuzzer.targets import layout, tables
from reference import msrs
from reference.bits import AC, ARITHMETIC, DF, FIXED, ID, IF, IOPL, NT, RF, TF, VIF, VIP, VM
from reference.profiles import Cr0, Cr4, Efer

HOLE_START: Final = 0x0000_8000_0000_0000
HOLE_END: Final = 0xFFFF_8000_0000_0000

USER_ADDRESSES: Final = (
    0,
    0x1000,
    layout.USER_DATA.start,
    layout.USER_DATA.start + 0x800,
    layout.USER_DATA.end - 8,
    layout.USER_STACK.start + 0x100,
)
KERNEL_ADDRESSES: Final = (layout.PERCPU.start, layout.KERNEL_DATA.start, layout.KERNEL_DATA.start + 0x800, layout.KERNEL_DATA.end - 8)
CANONICAL_EDGES: Final = (HOLE_START - 0x1000, HOLE_START - 8, HOLE_START - 1, HOLE_END, HOLE_END + 8, 0xFFFF_FFFF_FFFF_FFF8)
NON_CANONICAL: Final = (
    HOLE_START,
    HOLE_START + 8,
    HOLE_END - 1,
    HOLE_END - 8,
    0x8000_0000_0000_0000,
    0x7FFF_FFFF_FFFF_FFFF,
    0x0001_0000_0000_0000,
)
SMALL: Final = (0, 1, 2, 3, 4, 7, 8, 0x10, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF)

GDT_SELECTORS: Final = tuple(tables.GDT_ENTRIES)
LDT_SELECTORS: Final = tuple(offset | 4 for offset in tables.LDT_ENTRIES)

MSR_NUMBERS: Final = (
    msrs.FS_BASE,
    msrs.GS_BASE,
    msrs.KERNEL_GS_BASE,
    msrs.EFER,
    msrs.STAR,
    msrs.LSTAR,
    msrs.CSTAR,
    msrs.SFMASK,
    msrs.SYSENTER_CS,
    msrs.SYSENTER_ESP,
    msrs.SYSENTER_EIP,
    0x1234_5678,
    0xC001_2000,
)


def address(rng: Random) -> int:
    """Any linear address: user, kernel, at the edges of the canonical hole, in it, or random."""
    kind = rng.randrange(10)
    if kind < 3:
        return rng.choice(USER_ADDRESSES)
    if kind < 6:
        return rng.choice(KERNEL_ADDRESSES)
    if kind < 7:
        return rng.choice(CANONICAL_EDGES)
    return rng.choice(NON_CANONICAL) if kind < 9 else rng.getrandbits(64)


def mapped_data(rng: Random, cpl: int) -> int:
    """An address of mapped data that the level may use, with room for any operand; at times misaligned."""
    region = layout.USER_DATA if cpl == 3 else layout.KERNEL_DATA
    return region.start + 16 * rng.randrange(8, 0x1F0) + (rng.randrange(16) if rng.random() < 0.1 else 0)


def pointer(rng: Random, cpl: int) -> int:
    """Mostly usable data, at times a place that faults: other level's, read-only, at a page's end, unmapped, not canonical."""
    if rng.random() < 0.7:
        return mapped_data(rng, cpl)
    places = (layout.USER_DATA.start, layout.KERNEL_DATA.start, layout.USER_READONLY.start, layout.USER_DATA.end - 4, layout.USER_DATA.end)
    return rng.choice(places) if rng.random() < 0.6 else address(rng)


def stack_pointer(rng: Random, cpl: int) -> int:
    """Mostly room in both directions; at times misaligned, at a page's edge, in a guard page, or not canonical."""
    stack = layout.USER_STACK if cpl == 3 else layout.THREAD_STACK
    kind = rng.random()
    if kind < 0.75:
        return stack.end - 8 * rng.randrange(8, 0x80)
    if kind < 0.83:
        return stack.end - 0x100 - rng.randrange(1, 16)
    edges = (
        stack.start,
        stack.start + 8,
        stack.start + 0x18,
        stack.start + 0x1008,
        stack.end,
        stack.end - 8,
        stack.end - 16,
        layout.USER_EDGE.end,
    )
    return rng.choice(edges) if kind < 0.93 else rng.choice((*NON_CANONICAL, *CANONICAL_EDGES))


def selector(rng: Random) -> int:
    """Null, any descriptor of the tables with any RPL, or past the limits."""
    kind = rng.randrange(10)
    if kind == 0:
        return rng.randrange(4)
    if kind == 1:
        return rng.choice((0x100, 0x108, 0x40 | 4, 0xFFF8, 0xF8)) | rng.randrange(4)
    base = rng.choice(LDT_SELECTORS) if kind < 4 else rng.choice(GDT_SELECTORS)
    return base | (rng.randrange(4) if rng.random() < 0.6 else 3)


def code_selector(rng: Random) -> int:
    """Mostly a code segment that a return can use, at times any selector."""
    usable = (layout.KERNEL_CS, layout.USER_CS, 0x08 | 7, 0xC8 | 1)
    return rng.choice(usable) if rng.random() < 0.7 else selector(rng)


def data_selector(rng: Random) -> int:
    """Mostly a stack or data segment that fits one of the code segments, at times any selector."""
    usable = (layout.KERNEL_DS, layout.USER_DS, 0, 3, 0x00 | 7, 0xC0 | 1)
    return rng.choice(usable) if rng.random() < 0.7 else selector(rng)


def rflags(rng: Random) -> int:
    """An image of RFLAGS: quiet with a few flags, or any bits."""
    if rng.random() < 0.2:
        return rng.getrandbits(22) | FIXED
    flags = FIXED | (IF if rng.random() < 0.7 else 0) | rng.getrandbits(12) & ARITHMETIC
    for bit in (TF, NT, RF, AC, DF, ID, VM, VIF, VIP):
        if rng.random() < 0.06:
            flags |= bit
    return flags | (rng.getrandbits(2) << 12 & IOPL if rng.random() < 0.2 else 0)


def quiet_rflags(rng: Random) -> int:
    """RFLAGS to begin with: legal, and mostly without what stops at the first instruction."""
    flags = FIXED | (IF if rng.random() < 0.8 else 0) | rng.getrandbits(12) & ARITHMETIC
    for bit, chance in ((TF, 0.05), (NT, 0.06), (RF, 0.05), (AC, 0.08), (DF, 0.06), (ID, 0.03)):
        if rng.random() < chance:
            flags |= bit
    return flags | (rng.getrandbits(2) << 12 & IOPL if rng.random() < 0.15 else 0)


def general(rng: Random, cpl: int) -> int:
    """What a general register may hold."""
    kind = rng.randrange(8)
    if kind < 3:
        return pointer(rng, cpl)
    if kind < 5:
        return rng.choice(SMALL)
    return (address(rng), selector(rng), rng.getrandbits(64))[kind - 5]


def cr0(rng: Random) -> int:
    """A value for MOV CR0: the usual one with a bit or two changed."""
    value = Cr0.PE | Cr0.MP | Cr0.ET | Cr0.NE | Cr0.WP | Cr0.AM | Cr0.PG
    for bit in rng.sample((Cr0.PE, Cr0.TS, Cr0.WP, Cr0.AM, Cr0.NW, Cr0.CD, Cr0.PG, 1 << 32, 1 << 63, 1 << 6), rng.randrange(3)):
        value ^= bit
    return value


def cr4(rng: Random, usual: int) -> int:
    """A value for MOV CR4: the usual one with a bit or two changed."""
    bits = (Cr4.PAE, Cr4.LA57, Cr4.FSGSBASE, Cr4.SMEP, Cr4.SMAP, Cr4.TSD, Cr4.DE, Cr4.PGE, Cr4.MCE, 1 << 15, 1 << 19, 1 << 40)
    for bit in rng.sample(bits, rng.randrange(3)):
        usual ^= bit
    return usual


def efer(rng: Random) -> int:
    """A value for IA32_EFER: the usual one with a bit or two changed."""
    value = Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE
    for bit in rng.sample((Efer.SCE, Efer.LME, Efer.LMA, Efer.NXE, 1 << 1, 1 << 9, 1 << 33), rng.randrange(3)):
        value ^= bit
    return value


def dr7(rng: Random) -> int:
    """Breakpoint enables, one or two of them, on instructions or data."""
    value = 1 << 10
    for n in rng.sample(range(4), rng.randrange(1, 3)):
        kind = rng.choice((0, 1, 3))
        value |= 1 << 2 * n | kind << 16 + 4 * n | (rng.randrange(4) if kind else 0) << 18 + 4 * n
    return value | (1 << 13 if rng.random() < 0.1 else 0)
