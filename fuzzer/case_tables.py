"""Descriptors, gates, the TSS and page rights of a case file, as patches: what a field does not name stays as the scenario has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from fuzzer.build import patched
from fuzzer.case_fields import Field, parse_number, suggestion
from fuzzer.targets import layout, tables
from fuzzer.targets.layout import PAGE, Region
from fuzzer.targets.tables import FRAMES
from fuzzer.targets.target import Patch, Target

SEGMENT_BITS: Final = {"present": 47, "system": 44, "granularity": 55, "big": 54, "long": 53, "available": 52}
"""Flags of a descriptor by their bit; `system` is S turned round (SDM Vol. 3A, Figure 3-8)."""
SEGMENT_FIELDS: Final = ("base", "limit", "type", "dpl", *SEGMENT_BITS)
GATE_FIELDS: Final = ("offset", "symbol", "selector", "ist", "dpl", "type", "present")
PAGE_BITS: Final = {
    "present": tables.PRESENT,
    "writable": tables.WRITABLE,
    "user": tables.USER,
    "accessed": tables.ACCESSED,
    "dirty": tables.DIRTY,
    "no_execute": tables.NO_EXECUTE,
}
TSS_FIELDS: Final = {**{f"rsp{level}": 4 + 8 * level for level in range(3)}, **{f"ist{slot}": 28 + 8 * slot for slot in range(1, 8)}}
"""Fields of the TSS by offset (SDM Vol. 3A, Figure 8-11)."""
_SEGMENT_NUMBERS: Final = {
    "base": (64, ((0, 24, 16), (24, 8, 56))),
    "limit": (20, ((0, 16, 0), (16, 4, 48))),
    "type": (4, ((0, 4, 40),)),
    "dpl": (2, ((0, 2, 45),)),
}
"""Numbers of a descriptor: their width, and pieces (first bit, bits, place); a system descriptor's base goes on in 8 more bytes."""
KINDS: Final = ("gdt", "ldt", "gates", "tss", "pages")

_NEW_SEGMENT: Final = tables.segment(tables.DATA)
_S: Final = 1 << 44


class Memory:
    """A scenario's memory and the patches written over it so far."""

    def __init__(self, pages: Mapping[int, bytes]) -> None:
        self._pages = pages
        self.patches: list[Patch] = []

    def add(self, piece: Patch) -> None:
        """Write a patch."""
        self._pages = patched(self._pages, (piece,))
        self.patches.append(piece)

    def word(self, region: str, offset: int) -> int:
        """The 8 bytes at an offset of a region as they now are."""
        page = self._pages[FRAMES[region] + offset // PAGE]
        return int.from_bytes(page[offset % PAGE : offset % PAGE + 8], "little")

    def set_word(self, region: str, offset: int, value: int) -> None:
        """Write 8 bytes."""
        self.add(Patch(region, offset, value.to_bytes(8, "little")))


def read_descriptors(field: Field, memory: Memory, target: Target) -> None:
    """Write what the file says under `descriptors` into `memory`."""
    for kind, part in field.members(KINDS):
        if kind in ("gdt", "ldt"):
            _read_segments(part, memory, layout.GDT if kind == "gdt" else layout.LDT)
        elif kind == "gates":
            _read_gates(part, memory, target)
        elif kind == "tss":
            for name, entry in part.members(TSS_FIELDS):
                memory.set_word(layout.PERCPU.name, layout.TSS_OFFSET + TSS_FIELDS[name], entry.number())
        else:
            _read_pages(part, memory)


def _read_segments(part: Field, memory: Memory, table: Region) -> None:
    local = table is layout.LDT
    for key, entry in part.members():
        selector = parse_number(key)
        if selector is None or not 0 <= selector < PAGE:
            entry.refuse(f'"{key}" is not a selector below {PAGE:#x}; write "0x2b"')
        if bool(selector & 4) is not local:
            other = selector ^ 4
            entry.refuse(
                f"selector {selector:#x} names the {'GDT' if local else 'LDT'} (bit 2); in the {table.name.upper()} it is {other:#x}"
            )
        _read_segment(entry, memory, table, selector & 0xFFF8)


def _read_segment(entry: Field, memory: Memory, table: Region, offset: int) -> None:
    fields = dict(entry.members(SEGMENT_FIELDS))
    word = _segment_flags(fields, memory.word(table.name, offset) or _NEW_SEGMENT)
    wide = not word & _S
    base = fields["base"].number(64 if wide else 32) if "base" in fields else None
    for name, (width, pieces) in _SEGMENT_NUMBERS.items():
        if name in fields:
            value = fields[name].number(width) if name != "base" else base or 0
            for source, count, target in pieces:
                mask = (1 << count) - 1
                word = word & ~(mask << target) | (value >> source & mask) << target
    memory.set_word(table.name, offset, word)
    if wide and base is not None:
        _refuse_past_table(entry, offset)
        memory.set_word(table.name, offset + 8, base >> 32)


def _segment_flags(fields: Mapping[str, Field], word: int) -> int:
    for name, bit in SEGMENT_BITS.items():
        if name in fields:
            on = fields[name].flag() is not (name == "system")
            word = word | 1 << bit if on else word & ~(1 << bit)
    return word


def _refuse_past_table(entry: Field, offset: int) -> None:
    if offset + 16 > PAGE:
        entry.refuse("a system descriptor takes 16 bytes and would end past the table; use a lower selector")


def _read_gates(part: Field, memory: Memory, target: Target) -> None:
    for key, entry in part.members():
        vector = parse_number(key)
        if vector is None or not 0 <= vector < 256:
            entry.refuse(f'"{key}" is not a vector; write "14" or "0xe"')
        _read_gate(entry, memory, vector * 16, target)


def _read_gate(entry: Field, memory: Memory, place: int, target: Target) -> None:
    low, high = memory.word(layout.IDT.name, place), memory.word(layout.IDT.name, place + 8)
    fields = dict(entry.members(GATE_FIELDS))
    if "offset" in fields and "symbol" in fields:
        fields["symbol"].refuse("the gate has an offset already; write one of the two")
    offset = low & 0xFFFF | low >> 32 & 0xFFFF_0000 | (high & 0xFFFF_FFFF) << 32
    if "offset" in fields:
        offset = fields["offset"].number()
    if "symbol" in fields:
        offset = _symbol(fields["symbol"], target)
    if not low and not offset:
        entry.refuse("there is no such gate yet; give it an offset or a symbol")
    attributes = _gate_attributes(fields, low or int.from_bytes(tables.gate(0)[:8], "little"))
    memory.set_word(layout.IDT.name, place, attributes | offset & 0xFFFF | (offset >> 16 & 0xFFFF) << 48)
    if offset >> 32 != high:
        memory.set_word(layout.IDT.name, place + 8, offset >> 32)


_GATE_BITS: Final = {"selector": (16, 16), "ist": (32, 3), "dpl": (45, 2), "type": (40, 4)}
"""Place and width of a gate's fields (SDM Vol. 3A, Figure 7-8)."""


def _gate_attributes(fields: Mapping[str, Field], low: int) -> int:
    """The low word of a gate without its offset."""
    word = low & 0x0000_FFFF_FFFF_0000
    for name, (shift, width) in _GATE_BITS.items():
        if name in fields:
            word = word & ~((1 << width) - 1 << shift) | fields[name].number(width) << shift
    if "present" in fields:
        word = word & ~(1 << 47) | fields["present"].flag() << 47
    return word


def _symbol(field: Field, target: Target) -> int:
    name = field.text()
    if name not in target.symbols:
        near = suggestion(name, target.symbols)
        way_out = near if near.startswith("did") else f"see entryfuzz targets show {target.name}"
        field.refuse(f'{target.name} has no symbol "{name}"; {way_out}')
    return target.symbols[name]


def _read_pages(part: Field, memory: Memory) -> None:
    for key, entry in part.members():
        linear = parse_number(key)
        if linear is None or region_at(linear) is None:
            entry.refuse(f'"{key}" is not an address that the machine maps; write a linear address, as "{layout.USER_DATA.start:#x}"')
        offset = tables.entry_offset(linear)
        value = memory.word(tables.PAGE_TABLES.name, offset)
        for name, field in entry.members(PAGE_BITS):
            value = value | PAGE_BITS[name] if field.flag() else value & ~PAGE_BITS[name]
        memory.set_word(tables.PAGE_TABLES.name, offset, value)


def region_at(linear: int) -> Region | None:
    """The mapped region around a linear address."""
    for region in layout.MAPPED:
        if region.start <= linear < region.end:
            return region
    return None


def cut(region: Region, offset: int, data: bytes, longest: int) -> Iterator[Patch]:
    """`data` as patches that a case can hold."""
    for start in range(0, len(data), longest):
        yield Patch(region.name, offset + start, data[start : start + longest])
