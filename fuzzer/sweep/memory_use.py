"""Which words of memory a run reads and overwrites, and when: what decides whether a difference can still matter.

The specification itself tells: it runs once with its translation caches off and with pages that note every access.
"""

from __future__ import annotations

from bisect import bisect_left
from enum import Enum
from typing import Any, Final

from fuzzer.targets.tables import FRAMES
from reference.image import PAGE
from reference.machine import Machine, Translations

WORD: Final = 8
_PAGE_TABLES: Final = FRAMES["page_tables"]


class Fate(Enum):
    """What the rest of a run does first with a word."""

    READ = "read"
    """It matters; a write of a part of the word counts as well."""
    OVERWRITTEN = "overwritten"
    KEPT = "kept"


class MemoryUse:
    """Accesses by word, each with the boundary before which it happened. Page tables, which every access reads, are always in use."""

    def __init__(self) -> None:
        self.now = 0
        self._when: dict[int, list[int]] = {}
        self._what: dict[int, list[Fate]] = {}

    def note(self, start: int, end: int, fate: Fate) -> None:
        """The bytes from physical address `start` to `end` - 1 are read or written now."""
        for word in range(start & -WORD, end, WORD):
            whole = start <= word and word + WORD <= end
            what = fate if whole else Fate.READ
            known = self._what.setdefault(word, [])
            if not known or known[-1] is not what or self._when[word][-1] != self.now:
                known.append(what)
                self._when.setdefault(word, []).append(self.now)

    def fate(self, word: int, boundary: int) -> Fate:
        """What happens first to `word` from `boundary` on."""
        if word // PAGE >= _PAGE_TABLES:
            return Fate.READ
        when = self._when.get(word, [])
        first = bisect_left(when, boundary)
        return self._what[word][first] if first < len(when) else Fate.KEPT


class _Page(bytearray):
    """A page that tells when its bytes are read or written."""

    def __init__(self, data: bytes | bytearray, start: int, use: MemoryUse) -> None:
        super().__init__(data)
        self._start = start
        self._use = use

    def __getitem__(self, place: Any) -> Any:
        self._use.note(self._start + (place.start or 0), self._start + (PAGE if place.stop is None else min(place.stop, PAGE)), Fate.READ)
        return super().__getitem__(place)

    def __setitem__(self, place: Any, value: Any) -> None:
        self._use.note(self._start + (place.start or 0), self._start + place.stop, Fate.OVERWRITTEN)
        super().__setitem__(place, value)


class _Uncached(Translations):
    """Translations of which none is kept, so that every access comes to the page."""

    __slots__ = ()

    def reset(self, caching: bool) -> None:
        """Drop what is known and keep nothing new."""
        super().reset(caching=False)


def watch_memory(m: Machine) -> MemoryUse:
    """Make `m` note its accesses from now on; it runs as before, but slowly."""
    use = MemoryUse()
    m.pages = {frame: _Page(page, frame * PAGE, use) for frame, page in m.pages.items()}
    current = m.translations
    for name in Machine.__slots__:
        known = getattr(m, name)
        if isinstance(known, Translations) and name != "translations":
            uncached = _Uncached(known.user, known.implicit)
            uncached.reset(caching=False)
            setattr(m, name, uncached)
            if known is current:
                m.translations = uncached
    return use
