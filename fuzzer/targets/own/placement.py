"""Where somebody's own entry code may lie in the machine, and its bytes as pages there.

Code and constants lie in KERNEL_TEXT. Data that is written lies 1.5 MiB above, so that code reaches it relative to RIP: the pages of
KERNEL_DATA, mapped there too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from fuzzer.case_fields import CaseError
from fuzzer.targets import layout, tables
from fuzzer.targets.layout import PAGE
from fuzzer.targets.own.program import Program, Segment
from fuzzer.targets.target import Patch, patch

TEXT_START: Final = layout.KERNEL_TEXT.start
DATA_START: Final = TEXT_START + 0x18_0000


@dataclass(frozen=True, slots=True)
class Window:
    """Addresses that own code may occupy, and the first page behind them."""

    name: str
    start: int
    end: int
    frame: int


CODE: Final = Window("code", TEXT_START, layout.KERNEL_TEXT.end, tables.FRAMES["kernel_text"])
DATA: Final = Window("data", DATA_START, DATA_START + layout.KERNEL_DATA.size, tables.FRAMES["kernel_data"])
PERCPU: Final = Window("per-CPU page", layout.PERCPU.start, layout.PERCPU.end, tables.FRAMES["percpu"])
LINKED: Final = (CODE, DATA)
"""Where segments of an ELF file may lie."""


def window_at(address: int, size: int = 1) -> Window | None:
    """The window that holds all of `size` bytes at `address`."""
    return next((window for window in (*LINKED, PERCPU) if window.start <= address and address + size <= window.end), None)


def segment_pages(program: Program) -> dict[int, bytes]:
    """The pages of code and data with the program's segments in them; CaseError for a segment that lies elsewhere."""
    _check_overlap(program)
    pages = tables.region_pages(layout.KERNEL_TEXT, fill=0xCC) | tables.region_pages(layout.KERNEL_DATA)
    for segment in program.segments:
        window = window_at(segment.address, segment.size)
        if window not in LINKED:
            raise CaseError(f"{program.origin}: {_span(segment)} lies outside of {' and of '.join(map(_window, LINKED))}; {_ADVICE}")
        data = segment.data.ljust(segment.size, b"\0")
        pages |= write(pages, window.frame * PAGE + segment.address - window.start, data)
    return pages


_ADVICE: Final = "link it there: ld -Ttext and -Tdata, or give the .S or .o file"


def write(pages: Mapping[int, bytes], physical: int, data: bytes) -> dict[int, bytes]:
    """The pages that change when `data` is written at a physical address."""
    changed: dict[int, bytes] = {}
    while data:
        frame, offset = divmod(physical, PAGE)
        part = data[: PAGE - offset]
        changed[frame] = pages[frame][:offset] + part + pages[frame][offset + len(part) :]
        physical, data = physical + len(part), data[len(part) :]
    return changed


def patch_at(address: int, data: bytes) -> Patch:
    """A patch by linear address, which has to be one of the code's own data or of the machine's regions."""
    if DATA.start <= address < DATA.end:
        return patch(layout.KERNEL_DATA, address - DATA.start, data)
    region = next(region for region in layout.MAPPED if region.start <= address < region.end)
    return patch(region, address - region.start, data)


def data_mapping() -> dict[int, bytes]:
    """The page of the page tables in which the data's second place is mapped, writable and not executable."""
    offset = tables.entry_offset(TEXT_START) + (DATA_START - TEXT_START) // PAGE * 8
    entries = (tables.leaf_entry(layout.KERNEL_DATA.start + number * PAGE) for number in range(layout.KERNEL_DATA.pages))
    physical = tables.FRAMES["page_tables"] * PAGE + offset
    return write(tables.page_tables(), physical, b"".join(struct.pack("<Q", entry) for entry in entries))


def text_ranges(program: Program, recorders: tuple[int, int], interrupted: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Where entry code and handlers stand: the program's code without the functions that are only there to be interrupted."""
    code = [(segment.address, segment.end) for segment in program.segments if window_at(segment.address) is CODE]
    for hole in interrupted:
        code = [part for whole in code for part in _without(whole, hole)]
    return (*code, recorders)


def _without(whole: tuple[int, int], hole: tuple[int, int]) -> Iterator[tuple[int, int]]:
    parts = (whole[0], min(whole[1], hole[0])), (max(whole[0], hole[1]), whole[1])
    return (part for part in parts if part[0] < part[1])


def _check_overlap(program: Program) -> None:
    for first, second in pairwise(sorted(program.segments, key=lambda each: each.address)):
        if second.address < first.end:
            raise CaseError(f"{program.origin}: {_span(first)} and {_span(second)} overlap; link them to different addresses")


def _span(segment: Segment) -> str:
    return f"the segment {segment.address:#x}-{segment.end - 1:#x}"


def _window(window: Window) -> str:
    return f"{window.name} ({window.start:#x}-{window.end - 1:#x})"
