"""A core whose engine is a whole machine with the harness in it: batches, and traces made of runs that are stopped."""

from __future__ import annotations

import atexit
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from fuzzer.cores.guest.arrival import is_plain, screened
from fuzzer.cores.guest.job import Job, Run, Unsupported, make_job
from fuzzer.cores.guest.mailbox import MOST_EVENTS
from fuzzer.cores.guest.memory import Result
from fuzzer.cores.guest.observe import observation, see
from fuzzer.cores.guest.recognise import Recogniser, entries
from fuzzer.cores.guest.session import Engine, Session
from fuzzer.cores.guest.walk import TICKS_A_BOUNDARY, Arrivals
from fuzzer.cores.guest.watch import Watches
from reference.image import End, Image, Observation, Step

_FIRST_STEPS, _MOST_STEPS = 4, 64
"""Stops of a trace that are asked for at once, at first and later: whoever reads it often has seen enough after a few."""


class Timing(Protocol):
    """From boundaries to the engine's timers."""

    beginning: int
    """Nanoseconds from the harness's reading of the clock to boundary 0."""

    def stop(self, boundary: int, events: int) -> int:
        """What stops a run with so many events at a boundary."""
        ...

    def delays(self, boundaries: tuple[int, ...]) -> tuple[int, ...]:
        """What makes events pending at these boundaries."""
        ...


class NativeCore:
    """What cores of such engines have in common; each says how one is started, and how its time passes."""

    name: str
    version: str
    delivers_events = True
    timing: Timing
    most_events = MOST_EVENTS

    def __init__(self) -> None:
        self._sessions: dict[tuple[str, frozenset[int]], Session] = {}
        self._watches = Watches()
        atexit.register(self.close)

    def start(self, profile: str) -> Engine:
        """A new engine for a profile; CoreError where there is none."""
        raise NotImplementedError

    def close(self) -> None:
        """End every engine that was started."""
        for session in self._sessions.values():
            session.close()

    def run(self, images: Sequence[Image]) -> Iterator[Observation]:
        """Run each image to its end, those of one machine as one batch."""
        groups: dict[tuple[str, frozenset[int]], list[int]] = {}
        for number, image in enumerate(images):
            groups.setdefault(_machine(image), []).append(number)
        found: dict[int, Observation] = {}
        for numbers in groups.values():
            batch = [images[number] for number in numbers]
            found.update(zip(numbers, self._run(self._session(batch[0]), batch), strict=True))
        return (found[number] for number in range(len(images)))

    def trace(self, image: Image) -> Iterator[Step]:
        """The start, then the state at each boundary, by runs that are stopped there; the last step says how it ended."""
        try:
            job = make_job(image, self._watches.of(image), self.most_events)
        except Unsupported:
            return  # `run` tells why
        session = self._session(image)
        (job,) = self._arrivals(session).placed([job])
        recogniser = Recogniser(job, entries(job))
        first, count = 0, _FIRST_STEPS
        while first <= TICKS_A_BOUNDARY * image.limit:
            for result in list(session.results([self._stopped(job, tick) for tick in range(first, first + count)])):
                step = recogniser.step(result if isinstance(result, End) else see(job, result))
                if step is not None:
                    yield step
                    if step.end is not None:
                        return
            first, count = first + count, min(2 * count, _MOST_STEPS)

    def _session(self, image: Image) -> Session:
        key = _machine(image)
        if key not in self._sessions:
            self._sessions[key] = Session(lambda: self.start(image.profile.name))
        return self._sessions[key]

    def _run(self, session: Session, images: Sequence[Image]) -> list[Observation]:
        """Images of one machine. Events come into their own in a second round: the first shows which of them come at all."""
        found: list[Observation] = [Observation(End.UNSUPPORTED)] * len(images)
        jobs: dict[int, Job] = {}
        for number, image in enumerate(images):
            try:
                jobs[number] = make_job(image, self._watches.of(image), self.most_events)
            except Unsupported as reason:
                found[number] = Observation(End.UNSUPPORTED, detail=str(reason))
        for number, placed in self._placed(session, jobs).items():
            if isinstance(placed, Job):
                jobs[number] = placed
            else:
                found[number] = placed
                del jobs[number]
        runs = [self._stopped(job, images[number].limit) for number, job in jobs.items()]
        for number, result in zip(jobs, session.results(runs), strict=True):
            found[number] = _observed(jobs[number], result)
        return found

    def _placed(self, session: Session, jobs: Mapping[int, Job]) -> dict[int, Job | Observation]:
        """Jobs with events: each with its events at ticks, or what is observed where none of them comes."""
        arrivals = self._arrivals(session)
        later = {number: job for number, job in jobs.items() if job.events and job.events[-1][1] > 0}
        walked = [number for number, job in later.items() if len(job.events) > 1 or arrivals.knows(job)]
        screens = {number: screened(later[number]) for number in later if number not in walked}
        runs = [self._stopped(screen, min(later[number].events[0][1], screen.image.limit)) for number, screen in screens.items()]
        found: dict[int, Job | Observation] = {}
        for (number, screen), result in zip(screens.items(), session.results(runs), strict=True):
            job = later[number]
            if isinstance(result, End) or not is_plain(screen, result):
                walked.append(number)
            elif (seen := see(screen, result)).end is not None or seen.halted:
                found[number] = observation(screen, result)
            else:
                arrivals.note_plain(job, min(job.events[0][1], job.image.limit))
        found.update(zip(walked, arrivals.placed([later[number] for number in walked]), strict=True))
        return found

    def _arrivals(self, session: Session) -> Arrivals:
        return session.arrivals(lambda wanted: session.results([self._stopped(*each) for each in wanted]))

    def _stopped(self, job: Job, tick: int, walk: int = 0) -> Run:
        """A run that is stopped at a tick, or walked from there on."""
        timing = self.timing
        delays = timing.delays(tuple(at for _, at in job.events))
        return Run(job, timing.stop(tick, len(job.events)), delays, timing.beginning if tick else 0, walk, timing.stop(1, 0))


def _machine(image: Image) -> tuple[str, frozenset[int]]:
    """Images that one engine can run one after the other: of one profile, with the same physical pages."""
    return image.profile.name, frozenset(image.pages)


def _observed(job: Job, result: Result | End) -> Observation:
    if isinstance(result, End):
        return Observation(result, detail="the engine's process was lost")
    return observation(job, result)
