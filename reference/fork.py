"""An independent copy of a machine in the middle of its run, so that what led there need not be run twice."""

from __future__ import annotations

from typing import Final

from reference.descriptors import Segment
from reference.machine import Machine, Translations

_OWN: Final = ("arrivals", "code_frames", "copied", "deliveries", "dr", "gpr", "paging_structures", "pending", "undefined_words")
"""Lists, sets and dictionaries of values that never change themselves."""
_BUILT: Final = ("ldtr", "pages", "segments", "supervisor", "system", "tr", "translations", "user", "user32")
_SHARED: Final = tuple(name for name in Machine.__slots__ if name not in _OWN and name not in _BUILT)


def fork(m: Machine) -> Machine:
    """A machine in the state of `m`; from now on neither sees what the other does."""
    copy = Machine.__new__(Machine)
    for name in _SHARED:
        setattr(copy, name, getattr(m, name))
    for name in _OWN:
        setattr(copy, name, getattr(m, name).copy())
    copy.segments = [_segment(segment) for segment in m.segments]
    copy.ldtr, copy.tr = _segment(m.ldtr), _segment(m.tr)
    copy.pages = m.pages.copy()
    for frame in m.copied:
        copy.pages[frame] = bytearray(m.pages[frame])
    copy.user, copy.user32 = _translations(copy, m.user), _translations(copy, m.user32)
    copy.supervisor, copy.system = _translations(copy, m.supervisor), _translations(copy, m.system)
    copy.translations = copy.user if m.translations is m.user else copy.user32 if m.compatibility else copy.supervisor
    return copy


def _segment(segment: Segment) -> Segment:
    """Loads replace a segment register; SWAPGS and the like change its base in place."""
    return Segment(segment.selector, segment.base, segment.limit, segment.descriptor, segment.usable)


def _translations(copy: Machine, known: Translations) -> Translations:
    """The same translations; pages that may be written lead to the copy's own, what may be written may be read."""
    result = Translations(known.user, known.implicit)
    result.caching = known.caching
    result.reads = known.reads.copy()
    result.fetches = known.fetches.copy()
    for linear in known.writes:
        page = copy.pages[known.reads[linear]]
        assert isinstance(page, bytearray)
        result.writes[linear] = page
    return result
