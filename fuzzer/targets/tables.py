"""Descriptors, gates and page tables as bytes: the machine's tables, made from values (SDM Vol. 3A, 3.4.5, 5.5, 7.14)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from fuzzer.targets import layout
from fuzzer.targets.layout import PAGE, Region

PRESENT, WRITABLE, USER, ACCESSED, DIRTY = 1 << 0, 1 << 1, 1 << 2, 1 << 5, 1 << 6
NO_EXECUTE = 1 << 63

_FIRST_FRAME: Final = 1


def _number_frames() -> dict[str, int]:
    frames, following = {}, _FIRST_FRAME
    for region in layout.MAPPED:
        frames[region.name] = following
        following += region.pages
    frames["page_tables"] = following
    return frames


FRAMES: Final[dict[str, int]] = _number_frames()
"""The first physical page number of each region; the page tables come last."""

CR3: Final = FRAMES["page_tables"] * PAGE
USER_CR3_BIT: Final = PAGE
USER_CR3: Final = CR3 | USER_CR3_BIT
"""Where a kernel isolates its page tables: the hierarchy of user mode. Its top page is the kernel's neighbour, one bit away."""
assert not CR3 & USER_CR3_BIT, "the number of pages before the page tables has to be odd: frames begin at 1"

_USER_HALF: Final = range(256)
"""Entries of the top page that both hierarchies share, with all the tables below them."""


class _Hierarchies:
    """4-level page tables under construction: what lies below the lower half of the top page serves both."""

    def __init__(self) -> None:
        tops = (CR3 // PAGE, USER_CR3 // PAGE)
        self.entries: dict[int, dict[int, int]] = {top: {} for top in tops}
        self._tables: dict[tuple[int, tuple[int, ...]], int] = {(top, ()): top for top in tops}

    def map(self, top: int, linear: int, leaf: int) -> None:
        """Make `leaf` the entry of the page of `linear`, with the tables on the way to it."""
        indices = [linear >> shift & 0x1FF for shift in (39, 30, 21, 12)]
        owner = CR3 // PAGE if indices[0] in _USER_HALF else top
        parent = top
        for depth in range(3):
            path = (owner, tuple(indices[: depth + 1]))
            if path not in self._tables:
                self._tables[path] = CR3 // PAGE + len(self.entries)
                self.entries[self._tables[path]] = {}
            self.entries[parent][indices[depth]] = self._tables[path] * PAGE | PRESENT | WRITABLE | USER | ACCESSED
            parent = self._tables[path]
        self.entries[parent][indices[3]] = leaf


def page_tables() -> dict[int, bytes]:
    """The pages of both hierarchies, accessed and dirty flags set, by physical page number: the kernel's maps every region."""
    hierarchies = _Hierarchies()
    views = ((CR3, {region: region.pages for region in layout.MAPPED}), (USER_CR3, layout.USER_VIEW))
    for cr3, view in views:
        for region, pages in view.items():
            for number in range(pages):
                hierarchies.map(cr3 // PAGE, region.start + number * PAGE, _leaf(region, FRAMES[region.name] + number))
    return {frame: b"".join(struct.pack("<Q", table.get(n, 0)) for n in range(512)) for frame, table in hierarchies.entries.items()}


def _leaf(region: Region, frame: int) -> int:
    rights = (USER if region.user else 0) | (WRITABLE if region.writable else 0) | (0 if region.executable else NO_EXECUTE)
    return frame * PAGE | PRESENT | ACCESSED | DIRTY | rights


_TABLES: Final = page_tables()
_ADDRESSABLE: Final = 16
"""Case bytes give an offset two bytes: both top pages and all that the kernel's hierarchy has must fit."""
PAGE_TABLES: Final = Region("page_tables", None, _ADDRESSABLE)
USER_PAGE_TABLES: Final = Region("user_page_tables", None, len(_TABLES) - _ADDRESSABLE)
"""What only the hierarchy of user mode has, but for its top page."""
FRAMES[USER_PAGE_TABLES.name] = FRAMES["page_tables"] + _ADDRESSABLE
_BEFORE_TABLES: Final = layout.MAPPED.index(layout.END_STACK) + 1
REGIONS: Final[Mapping[str, Region]] = {
    region.name: region for region in (*layout.MAPPED[:_BEFORE_TABLES], PAGE_TABLES, *layout.MAPPED[_BEFORE_TABLES:], USER_PAGE_TABLES)
}
"""By name, in the order that case bytes number them: append, never reorder."""


def entry_offset(linear: int) -> int:
    """Where the leaf entry of a mapped page stands inside the region `page_tables`, in bytes."""
    table = FRAMES["page_tables"]
    for shift in (39, 30, 21):
        entry = struct.unpack_from("<Q", _TABLES[table], (linear >> shift & 0x1FF) * 8)[0]
        table = (entry & 0x000F_FFFF_FFFF_F000) >> 12
    return (table - FRAMES["page_tables"]) * PAGE + (linear >> 12 & 0x1FF) * 8


def leaf_entry(linear: int) -> int:
    """The leaf entry that maps the page of `linear` for the kernel."""
    offset = entry_offset(linear)
    value: int = struct.unpack_from("<Q", _TABLES[FRAMES["page_tables"] + offset // PAGE], offset % PAGE)[0]
    return value


def user_half() -> dict[int, int]:
    """The entries of the kernel's top page that map user mode's half, by their offset in the region `page_tables`."""
    top = _TABLES[CR3 // PAGE]
    entries = ((index * 8, int.from_bytes(top[index * 8 : index * 8 + 8], "little")) for index in _USER_HALF)
    return {offset: entry for offset, entry in entries if entry}


def segment(
    type_: int, dpl: int = 0, *, base: int = 0, limit: int = 0xFFFFF, present: bool = True, system: bool = False, flags: int = 0xC
) -> int:
    """An 8-byte descriptor; `flags` are G, D/B, L and AVL as bits 3 to 0, `limit` its 20-bit field (SDM Vol. 3A, Figure 3-8)."""
    access = type_ | (0 if system else 0x10) | dpl << 5 | (0x80 if present else 0)
    low = (limit & 0xFFFF) | (base & 0xFF_FFFF) << 16
    high = access << 40 | (limit >> 16 & 0xF) << 48 | flags << 52 | (base >> 24 & 0xFF) << 56
    return low | high


def system_segment(type_: int, base: int, limit: int, present: bool = True) -> bytes:
    """A 16-byte LDT or TSS descriptor (SDM Vol. 3A, Figure 8-4)."""
    return struct.pack("<QQ", segment(type_, base=base, limit=limit, present=present, system=True, flags=0), base >> 32)


def gate(offset: int, selector: int = layout.KERNEL_CS, *, ist: int = 0, dpl: int = 0, type_: int = 0xE, present: bool = True) -> bytes:
    """A 16-byte IDT gate (SDM Vol. 3A, Figure 7-8)."""
    access = type_ | dpl << 5 | (0x80 if present else 0)
    low = (offset & 0xFFFF) | selector << 16 | ist << 32 | access << 40 | (offset >> 16 & 0xFFFF) << 48
    return struct.pack("<QQ", low, offset >> 32)


DATA, CODE = 0x3, 0xB
"""Writable data and readable code, accessed."""
_LONG, _FLAT = 0xA, 0xC

GDT_ENTRIES: Final[Mapping[int, bytes]] = {
    0x08: struct.pack("<Q", segment(CODE, 0, flags=_FLAT)),
    0x10: struct.pack("<Q", segment(CODE, 0, flags=_LONG)),
    0x18: struct.pack("<Q", segment(DATA, 0)),
    0x20: struct.pack("<Q", segment(CODE, 3, flags=_FLAT)),
    0x28: struct.pack("<Q", segment(DATA, 3)),
    0x30: struct.pack("<Q", segment(CODE, 3, flags=_LONG)),
    layout.TSS_SELECTOR: system_segment(0xB, layout.TSS_BASE, layout.TSS_LIMIT),
    layout.LDT_SELECTOR: system_segment(0x2, layout.LDT.start, layout.LDT_LIMIT),
    0x60: struct.pack("<Q", segment(0x1, 3)),  # read-only data
    0x68: struct.pack("<Q", segment(DATA, 3, present=False)),
    0x70: struct.pack("<Q", segment(CODE, 3, flags=_LONG, present=False)),
    0x78: struct.pack("<Q", segment(0xF, 0, flags=_LONG)),  # conforming 64-bit code
    0x80: struct.pack("<Q", segment(CODE, 3, flags=0xE)),  # L and D both set
    0x88: struct.pack("<Q", segment(0x9, 3, flags=_LONG)),  # execute-only code
    0x90: struct.pack("<Q", segment(DATA, 0, present=False)),
    0x98: struct.pack("<Q", segment(0x2, 3)),  # data not yet accessed
    0xA0: system_segment(0x9, layout.TSS_BASE, layout.TSS_LIMIT),  # an available TSS
    0xB0: struct.pack("<Q", segment(CODE, 0, flags=0xE)),
    0xB8: struct.pack("<Q", segment(DATA, 3, base=0x0012_3000, limit=0x0FFF, flags=0x4)),
    0xC0: struct.pack("<Q", segment(DATA, 1)),
    0xC8: struct.pack("<Q", segment(CODE, 1, flags=_LONG)),
    0xD0: system_segment(0x9, layout.TSS_BASE, layout.TSS_LIMIT, present=False),
    0xE0: system_segment(0x2, layout.LDT.start, layout.LDT_LIMIT, present=False),
    0xF0: struct.pack("<Q", segment(CODE, 0, flags=_LONG, present=False)),
}
"""By selector without RPL: first what Linux has, then descriptors with one property that a rule looks at."""

LDT_ENTRIES: Final[Mapping[int, bytes]] = {
    0x00: struct.pack("<Q", segment(DATA, 3)),
    0x08: struct.pack("<Q", segment(CODE, 3, flags=_LONG)),
    0x10: struct.pack("<Q", segment(DATA, 0)),
    0x18: struct.pack("<Q", segment(CODE, 0, flags=_LONG)),
    0x20: struct.pack("<Q", segment(DATA, 3, present=False)),
    0x28: struct.pack("<Q", segment(DATA, 3, limit=0xFFFF, flags=0)),  # a 16-bit stack
}


def table_page(entries: Mapping[int, bytes]) -> bytes:
    """A page with `entries` at their offsets."""
    page = bytearray(PAGE)
    for offset, data in entries.items():
        page[offset : offset + len(data)] = data
    return bytes(page)


def tss() -> bytes:
    """The 104 bytes of a 64-bit TSS: RSP0 and the interrupt stack table (SDM Vol. 3A, Figure 8-11)."""
    ist = {
        layout.IST_DOUBLE_FAULT: layout.DOUBLE_FAULT_STACK,
        layout.IST_NMI: layout.NMI_STACK,
        layout.IST_DEBUG: layout.DEBUG_STACKS,
        layout.IST_MACHINE_CHECK: layout.MACHINE_CHECK_STACK,
        layout.IST_END: layout.END_STACK,
    }
    data = bytearray(layout.TSS_LIMIT + 1)
    struct.pack_into("<Q", data, 4, layout.THREAD_STACK.end)
    for slot, stack in ist.items():
        struct.pack_into("<Q", data, 28 + 8 * slot, stack.end)
    struct.pack_into("<H", data, 0x66, layout.TSS_LIMIT + 1)
    return bytes(data)


def system_pages(percpu: bytes, idt: Mapping[int, bytes]) -> dict[int, bytes]:
    """The pages that every target has: page tables, GDT, LDT, IDT and the per-CPU page with its TSS."""
    page = percpu.ljust(PAGE, b"\0")
    start = layout.TSS_OFFSET
    tables = {vector * 16: data for vector, data in idt.items()}
    return {
        **_TABLES,
        FRAMES["gdt"]: table_page(GDT_ENTRIES),
        FRAMES["ldt"]: table_page(LDT_ENTRIES),
        FRAMES["idt"]: table_page(tables),
        FRAMES["percpu"]: page[:start] + tss() + page[start + layout.TSS_LIMIT + 1 :],
    }


def region_pages(region: Region, data: bytes = b"", fill: int = 0) -> dict[int, bytes]:
    """The pages of a region that begins with `data`."""
    whole = data.ljust(region.size, bytes([fill]))
    return {FRAMES[region.name] + n: whole[n * PAGE : (n + 1) * PAGE] for n in range(region.pages)}


def blank_pages() -> dict[int, bytes]:
    """Every mapped region, filled with zeros."""
    return {frame: page for region in layout.MAPPED for frame, page in region_pages(region).items()}
