"""Whether the boundaries of a run are the ticks of the engine's clock: only where it counts nothing but retired instructions.

An engine may count an instruction that faulted, or the look at RCX that ends a repeated one. A run that meets neither before its event
needs no more than its boundary; for others the way to the event is walked (`walk`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Final

from fuzzer.cores.guest.job import Job, Patch
from fuzzer.cores.guest.memory import Result
from fuzzer.cores.guest.paging import entry_of
from fuzzer.cores.guest.watch import Watch
from fuzzer.targets.tables import USER_CR3_BIT
from reference.image import PAGE

_ACCESSED: Final = 1 << 5
_REPEATED: Final = re.compile(rb"[\xf2\xf3][\x40-\x4f]?[\xa4-\xa7\xaa-\xaf]")


def screened(job: Job) -> Job:
    """The job without events and with an IDT that nobody has looked at: what is delivered on its way leaves a trace."""
    patches = dict(job.way.patches)
    for frame, offset in _looked_at(job):
        old = job.watch.tables.get(frame, job.image.pages[frame])[offset]
        patches[frame] = (*patches.get(frame, ()), Patch(frame, offset, bytes([old]), bytes([old & ~_ACCESSED])))
    return replace(job, events=(), way=replace(job.way, patches=patches))


def _looked_at(job: Job) -> frozenset[tuple[int, int]]:
    """The entries that map the IDT: frame and offset."""
    registers = job.image.registers
    cr3, base = registers["cr3"], registers["idtr_base"]
    return _of_watch(job.watch, cr3, base) if job.watch.entries else _entries(job.image.pages, cr3, base)


@lru_cache(maxsize=1024)
def _of_watch(watch: Watch, cr3: int, base: int) -> frozenset[tuple[int, int]]:
    return _entries(watch.tables, cr3, base)


def _entries(pages: Mapping[int, bytes], cr3: int, base: int) -> frozenset[tuple[int, int]]:
    places = (entry_of(pages, top, base) for top in (cr3, cr3 ^ USER_CR3_BIT))
    return frozenset(divmod(place, PAGE) for place in places if place is not None)


def is_plain(screen: Job, result: Result) -> bool:
    """Whether nothing was delivered in the run of a screened job, and nothing can have been repeated: its ticks are boundaries."""
    if any(frame in result.pages and result.pages[frame][offset] & _ACCESSED for frame, offset in _looked_at(screen)):
        return False
    return not any(_may_repeat(page) for page in screen.image.pages.values())


@lru_cache(maxsize=4096)
def _may_repeat(page: bytes) -> bool:
    return _REPEATED.search(page) is not None
