"""Which physical pages of an image hold paging structures, and which may hold instructions: judged without knowing every CR3.

A kernel with page-table isolation has two hierarchies, and a case begins in one of them. So every page that looks like a paging
structure counts as one. A page taken for one by mistake costs time; one that was missed would leave stale translated code.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from reference.image import PAGE

_PRESENT, _NX = 1, 1 << 63
_FRAME: Final = 0x000F_FFFF_FFFF_F000
_WORDS: Final = struct.Struct("<512Q")
_LEVELS: Final = 4


@dataclass(frozen=True, slots=True)
class CodePages:
    """Physical page numbers: of paging structures, and of all pages whose change makes translated code stale, those included."""

    tables: frozenset[int]
    stale: frozenset[int]
    roots: tuple[int, ...]
    """Values of CR3 to try for an address that the present one does not map, the likely ones first."""


def code_pages(pages: Mapping[int, bytes], cr3: int) -> CodePages:
    """Judge an image that begins with `cr3`."""
    count = max(pages) + 1
    links = {frame: found for frame, page in pages.items() if (found := _links(page, count))}
    links |= _reachable(pages, cr3 >> 12, count)
    named = frozenset().union(*(every for every, _ in links.values()))
    executable = frozenset().union(*(runs for _, runs in links.values()))
    tables = frozenset(links)
    likely_first = sorted(tables, key=lambda frame: (frame != cr3 >> 12, frame in named, frame))
    return CodePages(tables, tables | executable, tuple(frame * PAGE for frame in likely_first))


_Links = tuple[frozenset[int], frozenset[int]]
"""Pages that a page's entries name, and those of them that may be executed from as far as the entry says."""


@lru_cache(maxsize=1024)
def _links(page: bytes, count: int) -> _Links | None:
    """None for a page that does not look like a paging structure: less than half of its entries name a page of the image."""
    words = [word for word in _WORDS.unpack(page) if word]
    entries = [word for word in words if word & _PRESENT and 0 < (word & _FRAME) >> 12 < count]
    return _named(entries) if entries and 2 * len(entries) >= len(words) else None


@lru_cache(maxsize=1024)
def _any_links(page: bytes, count: int) -> _Links:
    return _named([word for word in _WORDS.unpack(page) if word & _PRESENT and (word & _FRAME) >> 12 < count])


def _named(entries: list[int]) -> _Links:
    every = frozenset((word & _FRAME) >> 12 for word in entries)
    return every, frozenset((word & _FRAME) >> 12 for word in entries if not word & _NX)


def _reachable(pages: Mapping[int, bytes], root: int, count: int) -> dict[int, _Links]:
    """The pages that a walk from `root` uses, whatever they look like."""
    found: dict[int, _Links] = {}
    level = {root}
    for _ in range(_LEVELS):
        new = {frame: _any_links(pages[frame], count) for frame in level if frame in pages}
        found |= new
        level = set().union(*(runs for _, runs in new.values()))
    return found
