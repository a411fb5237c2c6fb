"""Descriptors, gates and page tables as bytes: the machine's tables, made from values (SDM Vol. 3A, 3.4.5, 4.5, 7.14)."""

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


FRAMES: Final[Mapping[str, int]] = _number_frames()
"""The first physical page number of each region; the page tables come last."""

CR3: Final = FRAMES["page_tables"] * PAGE


def page_tables() -> dict[int, bytes]:
    """The pages of a 4-level hierarchy that maps every region, accessed and dirty flags set, by physical page number."""
    tables: dict[tuple[int, ...], int] = {(): FRAMES["page_tables"]}
    entries: dict[int, dict[int, int]] = {FRAMES["page_tables"]: {}}
    for region in layout.MAPPED:
        for number in range(region.pages):
            _map_page(tables, entries, region.start + number * PAGE, FRAMES[region.name] + number, region)
    return {frame: b"".join(struct.pack("<Q", table.get(index, 0)) for index in range(512)) for frame, table in entries.items()}


def _map_page(tables: dict[tuple[int, ...], int], entries: dict[int, dict[int, int]], linear: int, frame: int, region: Region) -> None:
    indices = [linear >> shift & 0x1FF for shift in (39, 30, 21, 12)]
    rights = PRESENT | ACCESSED | DIRTY | (USER if region.user else 0)
    for depth in range(3):
        parent = tables[tuple(indices[:depth])]
        path = tuple(indices[: depth + 1])
        if path not in tables:
            tables[path] = FRAMES["page_tables"] + len(tables)
            entries[tables[path]] = {}
            entries[parent][indices[depth]] = tables[path] * PAGE | PRESENT | WRITABLE | USER | ACCESSED
    leaf = frame * PAGE | rights | (WRITABLE if region.writable else 0) | (0 if region.executable else NO_EXECUTE)
    entries[tables[tuple(indices[:3])]][indices[3]] = leaf


_TABLES: Final = page_tables()
PAGE_TABLES: Final = Region("page_tables", None, len(_TABLES))
REGIONS: Final[Mapping[str, Region]] = {region.name: region for region in (*layout.MAPPED, PAGE_TABLES)}


def entry_offset(linear: int) -> int:
    """Where the leaf entry of a mapped page stands inside the region `page_tables`, in bytes."""
    table = FRAMES["page_tables"]
    for shift in (39, 30, 21):
        entry = struct.unpack_from("<Q", _TABLES[table], (linear >> shift & 0x1FF) * 8)[0]
        table = (entry & 0x000F_FFFF_FFFF_F000) >> 12
    return (table - FRAMES["page_tables"]) * PAGE + (linear >> 12 & 0x1FF) * 8


def leaf_entry(linear: int) -> int:
    """The leaf entry that maps the page of `linear`."""
    offset = entry_offset(linear)
    value: int = struct.unpack_from("<Q", _TABLES[FRAMES["page_tables"] + offset // PAGE], offset % PAGE)[0]
    return value


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
