"""Memory patches in words: instructions, gates, descriptors, stack pointers and page rights as what they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from entryfuzz.disassembly import Symbols
from fuzzer.build import build
from fuzzer.case import Case
from fuzzer.case_tables import PAGE_BITS, SEGMENT_BITS, TSS_FIELDS, Memory
from fuzzer.targets import layout, tables
from fuzzer.targets.layout import PAGE, Region
from fuzzer.targets.target import Patch

_LONGEST_SHOWN: Final = 32
_WORD: Final = 8
_PAGES: Final[Mapping[int, tuple[Region, int]]] = {
    tables.entry_offset(region.start + number * PAGE): (region, number) for region in layout.MAPPED for number in range(region.pages)
}
"""Every mapped page by the place of its leaf entry in the region `page_tables`."""


def described(case: Case, symbols: Symbols) -> Iterator[str]:
    """A line or more for each patch of the case: the place, the bytes, and what stands there once all are applied."""
    memory = Memory(build(case).pages)
    for piece in case.memory:
        data = piece.data[:_LONGEST_SHOWN].hex(" ") + (f" … ({len(piece.data)} bytes)" if len(piece.data) > _LONGEST_SHOWN else "")
        meanings = list(_meanings(piece, memory, symbols))
        yield f"{piece.region}+{piece.offset:#x}: {data}" + (f"  {meanings[0]}" if len(meanings) == 1 else "")
        if len(meanings) > 1:
            yield from (f"    {meaning}" for meaning in meanings)


def _meanings(piece: Patch, memory: Memory, symbols: Symbols) -> Iterator[str]:
    region = tables.REGIONS[piece.region]
    if region.executable:
        for line in symbols.lines(piece.data, region.start + piece.offset):
            yield f"{symbols.name(line.address)}: {line.text}"
    elif region is layout.IDT:
        yield from (_gate(slot, memory, symbols) for slot in _slots(piece, 16))
    elif region in (layout.GDT, layout.LDT):
        yield from (_segment(slot, region, memory) for slot in _slots(piece, 8))
    elif region is layout.PERCPU:
        yield from _stack_pointers(piece, memory)
    elif region is tables.PAGE_TABLES:
        yield from (_page(slot, memory) for slot in _slots(piece, 8) if slot in _PAGES)
    elif len(piece.data) >= _WORD:
        yield f"words {' '.join(_words(piece.data))}"


def _words(data: bytes) -> Iterator[str]:
    """The first words of data such as a frame for IRET, as they are read from memory."""
    whole = len(data) // _WORD * _WORD
    for start in range(0, min(whole, _LONGEST_SHOWN * 2), _WORD):
        yield f"{int.from_bytes(data[start : start + _WORD], 'little'):#x}"


def _slots(piece: Patch, size: int) -> range:
    return range(piece.offset // size * size, piece.offset + len(piece.data), size)


def _gate(slot: int, memory: Memory, symbols: Symbols) -> str:
    low, high = memory.word("idt", slot), memory.word("idt", slot + 8)
    offset = low & 0xFFFF | low >> 32 & 0xFFFF_0000 | (high & 0xFFFF_FFFF) << 32
    present = "" if low >> 47 & 1 else ", not present"
    fields = f"selector {low >> 16 & 0xFFFF:#x}, IST {low >> 32 & 7}, type {low >> 40 & 0xF:#x}, DPL {low >> 45 & 3}"
    return f"gate {slot // 16:#04x}: {symbols.name(offset)}, {fields}{present}"


def _segment(slot: int, region: Region, memory: Memory) -> str:
    word = memory.word(region.name, slot)
    base = word >> 16 & 0xFF_FFFF | word >> 56 << 24
    limit = word & 0xFFFF | word >> 32 & 0xF_0000
    bits = [name for name, bit in SEGMENT_BITS.items() if bool(word >> bit & 1) is not (name == "system")]
    kind = f"type {word >> 40 & 0xF:#x}, DPL {word >> 45 & 3}"
    return f"{region.name.upper()} entry {slot:#x}: base {base:#x}, limit {limit:#x}, {kind}, {' '.join(bits) or 'not present'}"


def _stack_pointers(piece: Patch, memory: Memory) -> Iterator[str]:
    for name, offset in TSS_FIELDS.items():
        start = layout.TSS_OFFSET + offset
        if start < piece.offset + len(piece.data) and piece.offset < start + 8:
            yield f"TSS.{name} = {memory.word('percpu', start):#x}"


def _page(slot: int, memory: Memory) -> str:
    region, number = _PAGES[slot]
    entry = memory.word(tables.PAGE_TABLES.name, slot)
    rights = [name for name, bit in PAGE_BITS.items() if entry & bit]
    return f"page {region.start + number * PAGE:#x} ({region.name}): {' '.join(rights) or 'no rights'}"
