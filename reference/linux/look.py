"""Memory as the kernel sees it, read without the traces that an access leaves: no fault, no accessed flag, no breakpoint."""

from __future__ import annotations

import struct
from typing import Final

from reference.image import PAGE
from reference.machine import Machine
from reference.paging import ADDRESS, PAGE_SIZE, PRESENT

_QWORD: Final = struct.Struct("<Q")


class Look:
    """Reads through the page tables at `cr3`, whatever CR3 the machine has at the moment. Translations are kept: nothing unmaps."""

    __slots__ = ("_cr3", "_frames")

    def __init__(self, cr3: int) -> None:
        self._cr3 = cr3 & ADDRESS
        self._frames: dict[int, int] = {}

    def read(self, m: Machine, linear: int, size: int) -> bytes | None:
        """The bytes from `linear` on, or None if one of them is not mapped."""
        parts = []
        while size:
            frame = self._frame(m, linear >> 12)
            if frame is None:
                return None
            offset = linear & 0xFFF
            end = min(offset + size, PAGE)
            parts.append(bytes(m.pages[frame][offset:end]))
            size -= end - offset
            linear += end - offset
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def words(self, m: Machine, linear: int, count: int) -> tuple[int, ...] | None:
        """`count` words of eight bytes, or None if one of them is not mapped."""
        data = self.read(m, linear, 8 * count)
        return None if data is None else struct.unpack(f"<{count}Q", data)

    def _frame(self, m: Machine, page: int) -> int | None:
        frame = self._frames.get(page)
        if frame is None:
            frame = _walk(m, self._cr3, page)
            if frame is not None:
                self._frames[page] = frame
        return frame


def _walk(m: Machine, table: int, page: int) -> int | None:
    """The physical page number of a linear page (SDM Vol. 3A, 5.5), None where there is none or the model has no such entry."""
    if page >> 35 not in (0, (1 << 17) - 1):
        return None
    for shift in (27, 18, 9, 0):
        entries = m.pages.get(table >> 12)
        entry = _QWORD.unpack_from(entries, (page >> shift & 0x1FF) * 8)[0] if entries else 0
        if not entry & PRESENT or (shift and entry & PAGE_SIZE):
            return None
        table = entry & ADDRESS
    return table >> 12 if table >> 12 in m.pages else None
