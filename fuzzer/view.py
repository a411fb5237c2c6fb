"""Looking into a machine from outside, for reports: bytes by linear address, through its page tables, changing nothing."""

from __future__ import annotations

from collections.abc import Mapping

from reference.image import PAGE, Image

_ADDRESS = 0x000F_FFFF_FFFF_F000


def physical_of(image: Image, memory: Mapping[int, bytes], cr3: int, linear: int) -> int | None:
    """The physical address behind `linear`, or None where nothing is mapped; `memory` are the pages changed so far."""
    table = cr3 & _ADDRESS
    for shift in (39, 30, 21, 12):
        page = memory.get(table >> 12) or image.pages.get(table >> 12)
        if page is None:
            return None
        place = (linear >> shift & 0x1FF) * 8
        entry = int.from_bytes(page[place : place + 8], "little")
        if not entry & 1:
            return None
        table = entry & _ADDRESS
    return table | linear & 0xFFF if table >> 12 in image.pages else None


def linear_bytes(image: Image, memory: Mapping[int, bytes], cr3: int, linear: int, size: int) -> bytes:
    """Up to `size` bytes from `linear`, fewer where the mapping ends."""
    data = b""
    while len(data) < size:
        physical = physical_of(image, memory, cr3, linear + len(data) & 0xFFFF_FFFF_FFFF_FFFF)
        if physical is None:
            break
        page = memory.get(physical >> 12) or image.pages[physical >> 12]
        offset = physical & 0xFFF
        data += page[offset : min(PAGE, offset + size - len(data))]
    return data
