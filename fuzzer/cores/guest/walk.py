"""The ways of runs to their events: at which tick of an engine's clock each boundary is.

A walk is one run with a stop at each tick, where the harness notes how far it is. Where its notes leave a doubt whether more happened than
one instruction, runs with a single stop show the whole machine; and where those stood elsewhere than the walk, its stops have changed the
run, and every tick is looked at in that way.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Final

from fuzzer.cores.guest.job import Job
from fuzzer.cores.guest.mailbox import MOST_WALK
from fuzzer.cores.guest.memory import Result
from fuzzer.cores.guest.observe import Seen, see
from fuzzer.cores.guest.recognise import Recogniser, entries
from reference.image import End

_AHEAD: Final = 32
"""Ticks that a walk goes beyond the boundary that is asked for: an engine counts a few that are no boundaries."""
_SETTLED: Final = 2
"""Ticks after that of an event in which the engine takes it, if it can."""
TICKS_A_BOUNDARY: Final = 4
"""More than any engine takes on the average."""
_REMEMBERED: Final = 256
_NOTE: Final = struct.Struct("<4Q")
_NOTED: Final = itemgetter("rip", "rcx", "rsp", "rflags")
_Notes = Sequence[tuple[int, ...]]
_Details = Mapping[int, Seen | End]

Wanted = tuple[Job, int, int]
"""A run that is stopped at a tick, and from there taken on by so many more, one at a time, with a note of each."""
Runs = Callable[[Sequence[Wanted]], Iterator[Result | End]]


class Arrivals:
    """Finds the ticks of events, and remembers the ways to them."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._known: OrderedDict[tuple[object, ...], _Way] = OrderedDict()

    def placed(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs with their events at ticks; without those whose boundary is never reached."""
        placed = [replace(job, events=()) for job in jobs]
        begun: list[list[int]] = [[] for _ in jobs]
        for turn in range(max((len(job.events) for job in jobs), default=0)):
            waiting = [number for number, job in enumerate(jobs) if len(placed[number].events) == turn < len(job.events)]
            ways = {number: self._way(placed[number], begun[number]) for number in waiting}
            self._look([(way, jobs[number].events[turn][1]) for number, way in ways.items()])
            for number, way in ways.items():
                message, boundary = jobs[number].events[turn]
                if boundary < len(way.ticks):
                    placed[number] = replace(placed[number], events=(*placed[number].events, (message, way.ticks[boundary])))
                    begun[number] = way.ticks[: boundary + 1]
        return placed

    def knows(self, job: Job) -> bool:
        """Whether the tick of its first event is known."""
        way = self._known.get(_key(replace(job, events=())))
        return way is not None and not way.lacks(job.events[0][1])

    def note_plain(self, job: Job, boundary: int) -> None:
        """Remember that up to this boundary, ticks of the job without its events are boundaries."""
        self._way(replace(job, events=()), []).note_plain(boundary)

    def _way(self, job: Job, begun: list[int]) -> _Way:
        key = _key(job)
        way = self._known.pop(key, None) or _Way(job, begun)
        self._known[key] = way
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return way

    def _look(self, wanted: Sequence[tuple[_Way, int]]) -> None:
        """Look at each way until its boundary has a tick, or until the run has ended before it."""
        ahead = _AHEAD
        while lacking := {way: min(boundary + ahead, way.most) for way, boundary in wanted if way.lacks(boundary)}:
            walked = self._runs([(way.job, way.first, max(count - way.first, 1)) for way, count in lacking.items()])
            notes = {way: _notes(result) for way, result in zip(lacking, list(walked), strict=True)}
            close = {way: way.doubtful(notes[way]) for way in lacking}
            results = iter(list(self._runs([(way.job, tick, 0) for way, ticks in close.items() for tick in ticks])))
            for way, count in lacking.items():
                details = {tick: _seen(way.job, next(results)) for tick in close[way]}
                way.read(details if _agree(details, notes[way], way.first) else self._step_by_step(way, count), count)
            ahead *= 4

    def _step_by_step(self, way: _Way, count: int) -> _Details:
        ticks = range(way.start, way.start + count)
        results = self._runs([(way.job, tick, 0) for tick in ticks])
        return {tick: _seen(way.job, result) for tick, result in zip(ticks, results, strict=True)}


def _key(job: Job) -> tuple[object, ...]:
    """Equal for jobs that take the same way; the pages have to be kept for as long as it is used."""
    return job.image.profile.name, job.save, job.loaded, job.events, *map(id, job.image.pages.values())


class _Way:
    """A run, as far as it has been looked at: the tick of each boundary. `begun` are those up to its last event."""

    def __init__(self, job: Job, begun: list[int]) -> None:
        self.job = job  # keeps the pages that it is known by
        self.start = begun[-1] if begun else 0
        self.first = self.start + (_SETTLED if begun else 1)
        self.ticks = begun
        self.most = min(TICKS_A_BOUNDARY * job.image.limit, MOST_WALK)
        """Ticks after which the run is over, whatever it does."""
        self._entered = entries(job)
        self._begun = begun
        self._ended = False

    def lacks(self, boundary: int) -> bool:
        """Whether more has to be looked at before the tick of a boundary is known, or that it has none."""
        return len(self.ticks) <= boundary and not self._ended

    def note_plain(self, boundary: int) -> None:
        """Each boundary up to this one is a tick."""
        if self.lacks(boundary):
            self.ticks = list(range(boundary + 1))

    def doubtful(self, notes: _Notes) -> list[int]:
        """Ticks to be looked at closely: the beginning, the end, and where more may have happened than one instruction."""
        last = self.first + len(notes) - 1
        doubts = (self.first + number for number in _doubts(notes, self._entered))
        near = {tick + by for tick in (self.start, self.first, last, *doubts) for by in (-1, 0, 1)}
        return sorted(tick for tick in {*range(self.start, self.first), *near} if tick >= self.start)

    def read(self, details: _Details, count: int) -> None:
        """Find the tick of each boundary from those that were looked at closely; each of the others is the next boundary's."""
        self.ticks = list(self._begun)
        recogniser = Recogniser(self.job, self._entered)
        for tick in range(self.start, max(details) + 1):
            seen = details.get(tick)
            if seen is None:
                recogniser.pass_by()
            elif tick and tick - 1 not in details and isinstance(seen, Seen):
                recogniser.stand_at(seen, len(self.ticks) - (tick == self.start))
            elif (step := recogniser.step(seen)) is not None and step.end is not None:
                self._ended = True
                return
            if recogniser.retired == len(self.ticks):
                self.ticks.append(tick)
        self._ended = count >= self.most


def _notes(result: Result | End) -> _Notes:
    return [] if isinstance(result, End) else list(_NOTE.iter_unpack(result.notes))


def _seen(job: Job, result: Result | End) -> Seen | End:
    return result if isinstance(result, End) else see(job, result)


def _doubts(notes: _Notes, entered: Container[int]) -> Iterator[int]:
    """Where a handler may have been entered, a repeated instruction may have come to its end, or nothing has moved."""
    for number in range(1, len(notes)):
        (rip, rcx, *_), before = notes[number], notes[number - 1]
        if rip in entered or (rip == before[0] and (not rcx or notes[number] == before)):
            yield number


def _agree(details: _Details, notes: _Notes, first: int) -> bool:
    """Whether runs that were stopped only once stood where the walk did."""
    return bool(notes) and all(
        isinstance(seen, Seen) and (seen.end is End.ENDED or (bool(seen.registers) and _NOTED(seen.registers) == notes[tick - first]))
        for tick, seen in details.items()
        if first <= tick < first + len(notes)
    )
