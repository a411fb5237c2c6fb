"""Linear addresses of an image at rest: for finding its tables and its code before a run, never for deciding what a run may do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from reference.image import PAGE, Image

ADDRESS: Final = 0x000F_FFFF_FFFF_F000
_PRESENT: Final = 1


class OutsideError(Exception):
    """An address of the image is not in its memory."""


def physical(pages: Mapping[int, bytes], cr3: int, linear: int) -> int | None:
    """The physical address behind a linear one; None where nothing is mapped."""
    place = entry_of(pages, cr3, linear)
    return None if place is None else _entry(pages[place // PAGE], place % PAGE) & ADDRESS | linear & (PAGE - 1)


def entry_of(pages: Mapping[int, bytes], cr3: int, linear: int) -> int | None:
    """The physical address of the last page-table entry on the way to a linear address; None where nothing is mapped."""
    table, place = cr3 & ADDRESS, 0
    for shift in (39, 30, 21, 12):
        page = pages.get(table // PAGE)
        if page is None:
            return None
        place = table + (linear >> shift & 511) * 8
        entry = _entry(page, place % PAGE)
        if not entry & _PRESENT:
            return None
        table = entry & ADDRESS
    return place


def _entry(page: bytes, offset: int) -> int:
    return int.from_bytes(page[offset : offset + 8], "little")


def read_linear(image: Image, linear: int, size: int) -> bytes:
    """Bytes at a linear address; OutsideError where they are not all in the image's memory."""
    data = b""
    while size > len(data):
        address = physical(image.pages, image.registers["cr3"], linear + len(data))
        page = None if address is None else image.pages.get(address // PAGE)
        if address is None or page is None:
            raise OutsideError
        offset = address % PAGE
        data += page[offset : offset + size - len(data)]
    return data
