"""The machine of a case as the host can be it: Linux's descriptors and control registers around the case's user mode."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from fuzzer.build import build
from fuzzer.case import Case, canonical
from fuzzer.cores.silicon.exchange import ADDRESSES, CPU_SELECTOR, EXECUTE, PROTECTIONS, READ, REGIONS, USER_FRAMES, WRITE
from fuzzer.targets import layout, snippets, tables
from fuzzer.targets.target import Patch, default_registers, patch
from reference.bits import AC, ARITHMETIC, DF, FIXED, ID, IF, NT, RF, TF
from reference.image import GPRS, PAGE, Image
from reference.profiles import Cr4, Profile

_RW, _RO, _DOWN, _XO = 0x3, 0x1, 0x7, 0x9
_CONFORMING: Final = 0xF
GDT_OWN: Final[Mapping[int, int]] = {
    0x60: tables.segment(_RO, 3),
    0x68: tables.segment(_RW, 3, base=0x0012_3000, limit=0x0FFF, flags=0x4),
    0x70: tables.segment(_DOWN, 3, limit=0x00FFF, flags=0xC),
}
"""Descriptors that Linux lets a thread put into the GDT (set_thread_area): data at DPL 3, present, with B set."""
LDT_OWN: Final[Mapping[int, int]] = {
    0x00: tables.segment(_RW, 3),
    0x08: tables.segment(tables.CODE, 3),
    0x10: tables.segment(_RO, 3, limit=0x0_FFFF, flags=0x4),
    0x18: tables.segment(_XO, 3),
    0x20: tables.segment(_RW, 3, present=False),
    0x28: tables.segment(_RW, 3, limit=0xFFFF, flags=0),
    0x30: tables.segment(_CONFORMING, 3, present=False),
    0x38: tables.segment(tables.CODE, 3, limit=0x0FFF, flags=0x4),
}
"""Descriptors that Linux lets a process have (modify_ldt): DPL 3, no 64-bit code, conforming code only if it is not present."""

GDT_LIMIT: Final = 0x7F
_FIRST_OWN: Final = min(GDT_OWN)
_LINUX: Final = (0x08, 0x10, 0x18, 0x20, 0x28, 0x30, layout.TSS_SELECTOR, layout.LDT_SELECTOR)
"""Where the GDT of the targets is Linux's own; what follows 0x78 Linux has not."""

LIMIT: Final = 9000
"""Boundaries: a repeated instruction can go through all of a region byte by byte."""
INT_80: Final = 0x80
"""The one gate, besides those of #BP and #OF, that Linux leaves open to user mode."""

SELECTORS: Final = frozenset({0, 1, 2, 3, layout.USER_DS, layout.USER_CS, layout.USER32_CS, 0x63})
"""What ES, DS, FS and GS can hold at the start on both machines."""
_FLAGS: Final = ARITHMETIC | TF | DF | NT | RF | AC | ID
"""What user mode can choose of RFLAGS: IF is 1 and IOPL is 0 under Linux."""


_KEPT: Final = (*GPRS, "rip", "rflags", "es", "ds", "fs", "gs", "fs_base", "gs_base", "gdtr_limit")
_KEPT_REGIONS: Final = frozenset(region.name for region in REGIONS) | {"page_tables"}
_UNMAPPED: Final = tuple(
    region.start + number * PAGE for region in (layout.USER_EDGE, layout.ENTRY_TEXT_LOW) for number in range(region.pages)
)
"""Pages of the targets that Linux does not map, for itself or for anybody."""


def user_desc(entry: int, raw: int) -> bytes:
    """`struct user_desc` for a descriptor: what modify_ldt and set_thread_area take."""
    base = (raw >> 16 & 0xFF_FFFF) | (raw >> 56 & 0xFF) << 24
    limit = (raw & 0xFFFF) | (raw >> 32 & 0xF_0000)
    kind = raw >> 40 & 0xF
    flags = (raw >> 54 & 1) | (kind >> 2) << 1 | (~kind >> 1 & 1) << 3 | (raw >> 55 & 1) << 4 | (~raw >> 47 & 1) << 5
    return struct.pack("<IIII", entry, base, limit, flags | (raw >> 52 & 1) << 6)


GDT_DESCRIPTORS: Final = tuple(user_desc(selector >> 3, raw) for selector, raw in GDT_OWN.items())
LDT_DESCRIPTORS: Final = tuple(user_desc(selector >> 3, raw) for selector, raw in LDT_OWN.items())
TEMPLATE: Final = tuple(snippets.TARGET.pages[frame] for frame in USER_FRAMES)
"""The user pages that a case begins with unless it changes them."""


@dataclass(frozen=True, slots=True)
class HostImage:
    """An image that the host can run, and the rights of its user pages for mprotect."""

    image: Image
    protections: tuple[int, ...]


class Host:
    """Makes images that this host can run, from any."""

    def __init__(self, profile: Profile, umip: bool, cpu_limit: int, cpu_rights: int) -> None:
        self.profile = profile
        usual = default_registers(profile, 3)
        self._registers = {**usual, "gdtr_limit": GDT_LIMIT, "cr4": usual["cr4"] | (Cr4.UMIP if umip else 0)}
        self._pages = _kernel_pages(cpu_limit, cpu_rights)

    def fit(self, image: Image) -> HostImage | str:
        """`image` with everything that user mode does not choose as Linux has it; or why there is no such machine.

        Whether what was replaced matters to the case, the image does not say: who asks compares what the specification
        says of both.
        """
        if image.registers["cs"] not in (layout.USER_CS, layout.USER32_CS):
            return "it does not begin in user mode"
        if image.registers["ss"] != layout.USER_DS:
            return "its stack segment is not Linux's"
        pages = {**self._pages, **{frame: image.pages[frame] for frame in USER_FRAMES}}
        protections = _adopt_rights(image, pages)
        return HostImage(
            replace(image, profile=self.profile, registers=self._user_registers(image), pages=pages, events=(), limit=LIMIT), protections
        )

    def whole(self, case: Case) -> Case:
        """`case` as the host runs it, whole: a case file that means the same to who knows nothing of this host."""
        fitted = self.fit(build(case))
        assert isinstance(fitted, HostImage)
        kept = tuple((name, fitted.image.registers[name]) for name in _KEPT)
        memory = tuple(piece for piece in case.memory if piece.region in _KEPT_REGIONS)
        return canonical(replace(case, registers=kept, memory=(*memory, *self._patches()), events=()))

    def _patches(self) -> Iterator[Patch]:
        """What differs from the targets' own tables."""
        gdt, ldt = (self._pages[tables.FRAMES[name]] for name in ("gdt", "ldt"))
        yield patch(layout.GDT, _FIRST_OWN, gdt[_FIRST_OWN : layout.GDT_LIMIT + 1])
        yield patch(layout.LDT, 0, ldt[: layout.LDT_LIMIT + 1])
        for linear in _UNMAPPED:
            yield Patch("page_tables", tables.entry_offset(linear), bytes(8))

    def _user_registers(self, image: Image) -> dict[str, int]:
        given = image.registers
        taken = {name: given[name] for name in (*GPRS, "rip", "cs", "ss", "fs_base", "gs_base")}
        selectors = {name: given[name] if given[name] in SELECTORS else layout.USER_DS for name in ("es", "ds", "fs", "gs")}
        return {**self._registers, **taken, **selectors, "rflags": given["rflags"] & _FLAGS | FIXED | IF}


def _kernel_pages(cpu_limit: int, cpu_rights: int) -> dict[int, bytes]:
    """Linux's tables, and page tables without what Linux cannot map; handlers only as far as entering them goes."""
    pages = dict(snippets.TARGET.pages)
    cpu = (cpu_limit & 0xFFFF) | (cpu_limit & 0xF_0000) << 32 | (cpu_rights & 0xF0_FF00) << 32
    own = {**GDT_OWN, CPU_SELECTOR & ~7: cpu}
    gdt = {**{slot: tables.GDT_ENTRIES[slot] for slot in _LINUX}, **{slot: struct.pack("<Q", raw) for slot, raw in own.items()}}
    pages[tables.FRAMES["gdt"]] = tables.table_page(gdt)
    pages[tables.FRAMES["ldt"]] = tables.table_page({slot: struct.pack("<Q", raw) for slot, raw in LDT_OWN.items()})
    gate = {INT_80 * 16: tables.gate(snippets.handler_address(INT_80), dpl=3)}
    idt = pages[tables.FRAMES["idt"]]
    pages[tables.FRAMES["idt"]] = idt[: INT_80 * 16] + gate[INT_80 * 16] + idt[INT_80 * 16 + 16 :]
    for linear in _UNMAPPED:
        _set_leaf(pages, linear, 0)
    return pages


_TABLES: Final = tables.FRAMES["page_tables"]
_PLACES: Final = tuple((_TABLES + at // PAGE, at % PAGE) for at in map(tables.entry_offset, ADDRESSES))
"""(physical page, offset in it) of the leaf entry of each user page."""
_LEAVES: Final = tuple(map(tables.leaf_entry, ADDRESSES))
_RIGHTS: Final = tables.PRESENT | tables.WRITABLE | tables.NO_EXECUTE
_FREE: Final = _RIGHTS | tables.ACCESSED | tables.DIRTY


def _set_leaf(pages: dict[int, bytes], linear: int, entry: int) -> None:
    at = tables.entry_offset(linear)
    frame, offset = _TABLES + at // PAGE, at % PAGE
    pages[frame] = pages[frame][:offset] + struct.pack("<Q", entry) + pages[frame][offset + 8 :]


def _adopt_rights(image: Image, pages: dict[int, bytes]) -> tuple[int, ...]:
    """Give user pages in `pages` the rights that they have in `image`, as far as mprotect can; the rights of all of them."""
    if all(image.pages[frame] is snippets.TARGET.pages[frame] for frame in _LEAF_FRAMES):
        return PROTECTIONS
    result = []
    for address, (frame, offset), usual, protection in zip(ADDRESSES, _PLACES, _LEAVES, PROTECTIONS, strict=True):
        entry = int.from_bytes(image.pages[frame][offset : offset + 8], "little")
        if (entry ^ usual) & ~_FREE == 0 and (entry ^ usual) & _RIGHTS:
            _set_leaf(pages, address, usual & ~_RIGHTS | entry & _RIGHTS)
            protection = _protection(entry)
        result.append(protection)
    return tuple(result)


_LEAF_FRAMES: Final = tuple(sorted({frame for frame, _ in _PLACES}))


def _protection(entry: int) -> int:
    if not entry & tables.PRESENT:
        return 0
    return READ | (WRITE if entry & tables.WRITABLE else 0) | (0 if entry & tables.NO_EXECUTE else EXECUTE)
