"""At which tick of an engine's clock a boundary is: the same number, unless an engine counts more than retired instructions.

An engine may count an instruction that faulted, or the look at RCX that ends a repeated one. A run that meets neither before its event
needs no more than its boundary; for others the way to the event is walked tick by tick, without the event, and remembered.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final

from fuzzer.cores.guest.job import Job, Patch
from fuzzer.cores.guest.memory import Result
from fuzzer.cores.guest.observe import see
from fuzzer.cores.guest.paging import entry_of
from fuzzer.cores.guest.recognise import Recogniser
from fuzzer.targets.tables import USER_CR3_BIT
from reference.image import PAGE, End

_ACCESSED: Final = 1 << 5
_REPEATED: Final = re.compile(rb"[\xf2\xf3][\x40-\x4f]?[\xa4-\xa7\xaa-\xaf]")
_STRIDE: Final = 32
"""Ticks that are looked at in one batch."""
_REMEMBERED: Final = 64

Stops = Callable[[Job, Iterable[int]], Iterator[Result | End]]
"""Runs a job from its start and stops it at each of these ticks."""


def screened(job: Job) -> Job:
    """The job without events and with an IDT that nobody has looked at: what is delivered on its way leaves a trace."""
    patches = dict(job.way.patches)
    for frame, offset in _looked_at(job):
        old = job.watch.tables.get(frame, job.image.pages[frame])[offset]
        patches[frame] = (*patches.get(frame, ()), Patch(frame, offset, bytes([old]), bytes([old & ~_ACCESSED])))
    return replace(job, events=(), way=replace(job.way, patches=patches))


def _looked_at(job: Job) -> set[tuple[int, int]]:
    """The entries that map the IDT: frame and offset."""
    image = job.image
    tops = (image.registers["cr3"], image.registers["cr3"] ^ USER_CR3_BIT)
    places = (entry_of(image.pages, top, image.registers["idtr_base"]) for top in tops)
    return {divmod(place, PAGE) for place in places if place is not None}


def is_plain(screen: Job, result: Result) -> bool:
    """Whether nothing was delivered in the run of a screened job, and nothing can have been repeated: its ticks are boundaries."""
    if any(frame in result.pages and result.pages[frame][offset] & _ACCESSED for frame, offset in _looked_at(screen)):
        return False
    return not any(_may_repeat(page) for page in screen.image.pages.values())


@lru_cache(maxsize=4096)
def _may_repeat(page: bytes) -> bool:
    return _REPEATED.search(page) is not None


class Arrivals:
    """Finds the ticks of events, and remembers the ways that it has walked."""

    def __init__(self, stops: Stops) -> None:
        self._stops = stops
        self._walked: OrderedDict[tuple[object, ...], _Walk] = OrderedDict()

    def placed(self, job: Job) -> Job:
        """The job with its events at ticks; without those whose boundary is never reached."""
        events: Sequence[tuple[int, int]] = ()
        for message, boundary in job.events:
            tick = self._walk(replace(job, events=tuple(events))).tick(boundary)
            if tick is None:
                break
            events = (*events, (message, tick))
        return replace(job, events=tuple(events))

    def _walk(self, job: Job) -> _Walk:
        image = job.image
        key = (image.profile.name, job.save, job.loaded, job.events, tuple(map(id, image.pages.values())))
        walk = self._walked.pop(key, None) or _Walk(job, self._stops)
        self._walked[key] = walk
        if len(self._walked) > _REMEMBERED:
            self._walked.popitem(last=False)
        return walk


class _Walk:
    """A run, as far as it has been looked at: the tick of each boundary."""

    def __init__(self, job: Job, stops: Stops) -> None:
        self._job = job  # keeps the pages that it is known by
        self._ticks: list[int] = []
        self._ended = False
        self._steps = self._look(stops)

    def _look(self, stops: Stops) -> Iterator[None]:
        recogniser = Recogniser(self._job)
        for first in range(0, 4 * self._job.image.limit, _STRIDE):
            ticks = range(first, first + _STRIDE)
            for tick, result in zip(ticks, list(stops(self._job, ticks)), strict=True):
                step = recogniser.step(result if isinstance(result, End) else see(self._job, result))
                if step is not None and step.end is not None:
                    return
                if recogniser.retired == len(self._ticks):
                    self._ticks.append(tick)
                    yield

    def tick(self, boundary: int) -> int | None:
        """The tick of a boundary; None where the run ends before it."""
        while len(self._ticks) <= boundary and not self._ended:
            self._ended = next(self._steps, self) is self
        return self._ticks[boundary] if boundary < len(self._ticks) else None
