"""Which frames a run has written: the processor says so itself, in dirty flags of leaf entries that were cleared for it.

Page tables that no page maps are changed by the processor alone, in accessed and dirty flags (SDM Vol. 3A, 5.8), so a look at their
entries after a run tells all that it wrote. The harness proves that nothing was missed by a look at everything when its turn ends.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from fuzzer.cores.guest.mailbox import WATCH_CLEARED, WATCH_MOST
from fuzzer.cores.guest.paging import ADDRESS, physical
from fuzzer.targets.tables import CR3, REGIONS, USER_CR3_BIT
from reference.image import PAGE, Image

_PRESENT, _DIRTY, _LARGE = 1 << 0, 1 << 6, 1 << 7
_ENTRIES: Final = struct.Struct("<512Q")
_TOP: Final = 4
_REMEMBERED: Final = 512
_USUAL: Final = range(CR3 // PAGE, CR3 // PAGE + sum(REGIONS[name].pages for name in ("page_tables", "user_page_tables")))
"""The frames that page tables are in, unless a case says otherwise."""


@dataclass(frozen=True, slots=True, eq=False)
class Watch:
    """What the guest looks at after a run; with no entries it looks at every frame, whatever that takes.

    `tables` are the page tables as they are in the run. `page` is a list for the harness, see mailbox.JOB_WATCH. `roots` are the values
    of CR3 with which it tells all. `dirty` has the flags that were cleared, as one number for each table.
    """

    tables: Mapping[int, bytes]
    page: bytes
    entries: int
    roots: tuple[int, int]
    dirty: Mapping[int, int]

    def with_flags(self, frame: int, page: bytes) -> bytes:
        """A page that the guest has shown, with the flags that were cleared in it set again."""
        flags = self.dirty.get(frame)
        return page if flags is None else (int.from_bytes(page, "little") | flags).to_bytes(PAGE, "little")

    def physical(self, pages: Mapping[int, bytes], cr3: int, linear: int) -> int | None:
        """The physical address behind a linear one, in a run or at its end; None where nothing is mapped."""
        if cr3 & ADDRESS not in self.roots or not self.entries:
            return physical(pages, cr3, linear)
        page = _translated(self, cr3 & ADDRESS, linear & -PAGE)
        return None if page is None else page | linear & (PAGE - 1)


@lru_cache(maxsize=1 << 16)
def _translated(watch: Watch, root: int, page: int) -> int | None:
    """The same for a page, which no run can map elsewhere."""
    return physical(watch.tables, root, page)


EVERYTHING: Final = Watch({}, b"", 0, (0, 0), {})


class Watches:
    """The watches of the page tables that images have: most have the same."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[object, ...], tuple[Mapping[int, bytes], Watch]] = OrderedDict()
        """By CR3 and what the usual frames hold; with the tables of a case that are elsewhere."""

    def of(self, image: Image) -> Watch:
        """The watch of an image."""
        top, pages = image.registers["cr3"] & ADDRESS, image.pages
        key = (top, *map(pages.get, _USUAL))
        known = self._known.pop(key, None)
        if known is None or any(pages.get(frame) != page for frame, page in known[0].items()):
            levels, watch = _watch(pages, top)
            known = {frame: pages[frame] for frame in levels if frame not in _USUAL}, watch
        self._known[key] = known
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return known[1]


def _watch(pages: Mapping[int, bytes], top: int) -> tuple[dict[int, int], Watch]:
    """The level of each table below both roots, and their watch; EVERYTHING where a table is mapped, or is not what it seems."""
    levels: dict[int, int] = {}
    sound = _walk(pages, top // PAGE, _TOP, levels)
    other: dict[int, int] = dict(levels)
    roots = (top, top)
    if _walk(pages, (top ^ USER_CR3_BIT) // PAGE, _TOP, other):
        levels, roots = other, (top, top ^ USER_CR3_BIT)
    watched, dirty = [], dict.fromkeys(levels, 0)
    for frame, level in levels.items():
        for number, entry in _present(pages[frame]):
            target = (entry & ADDRESS) // PAGE
            is_leaf = level == 1 and target in pages
            sound &= target not in levels if level == 1 else True
            cleared = is_leaf and bool(entry & _DIRTY)
            dirty[frame] |= _DIRTY << 64 * number if cleared else 0
            watched.append((frame * PAGE + 8 * number, (target if is_leaf else frame) | (WATCH_CLEARED if cleared else 0)))
    if not sound or len(watched) > WATCH_MOST:
        return levels, EVERYTHING
    page = b"".join(struct.pack("<II", *each) for each in watched).ljust(PAGE, b"\0")
    tables = {frame: _without(pages[frame], flags) for frame, flags in dirty.items()}
    return levels, Watch(tables, page, len(watched), roots, dirty)


def _walk(pages: Mapping[int, bytes], frame: int, level: int, levels: dict[int, int]) -> bool:
    """Note a table and those below it; False where one is not in memory, is a table of two levels, or maps a large page."""
    if frame not in pages or levels.setdefault(frame, level) != level:
        return False
    if level == 1:
        return True
    entries = [entry for _, entry in _present(pages[frame])]
    return not any(entry & _LARGE for entry in entries) and all(
        _walk(pages, (entry & ADDRESS) // PAGE, level - 1, levels) for entry in entries
    )


@lru_cache(maxsize=4096)
def _present(page: bytes) -> tuple[tuple[int, int], ...]:
    return tuple((number, entry) for number, entry in enumerate(_ENTRIES.unpack(page)) if entry & _PRESENT)


@lru_cache(maxsize=4096)
def _without(page: bytes, flags: int) -> bytes:
    """A table with flags cleared: one object for equal tables, so that the guest keeps it."""
    return (int.from_bytes(page, "little") & ~flags).to_bytes(PAGE, "little")
