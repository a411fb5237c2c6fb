"""Processes that do pieces of work, each with its own engines; one that dies or hangs is replaced, and the case that did it is known."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, Protocol, Self, TypeVar

from fuzzer.cores.core import Core, CoreError
from fuzzer.targets.registry import own
from reference.image import End
from workers.child import NO_CASE, Starting, serve

HANG_SECONDS = 20.0
"""A case takes milliseconds; one that takes this long never ends."""
MOST_KILLS = 5
"""A process that is killed more often while no engine runs a case has not enough memory, or another lasting trouble."""
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Work(Protocol[R_co]):
    """A piece of work for one process: numbered cases, the same each time."""

    def run(self, cores: Sequence[Core], starting: Starting) -> R_co:
        """Do it; `starting` is told the number of each case before an engine runs it."""
        ...

    def without(self, case: int, place: int, end: End) -> Self:
        """The same, with the knowledge that one case cannot be run on the core of that place."""
        ...


class Pool(Generic[R]):
    """A fixed number of processes; use it as a context manager."""

    def __init__(self, jobs: int, cores: Sequence[str]) -> None:
        self._members: list[_Member[R]] = [_Member(cores) for _ in range(jobs)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for member in self._members:
            member.stop()

    def run(self, works: Iterator[Work[R]], tick: Callable[[], None] = lambda: None) -> Iterator[R]:
        """Results as they come; at most one piece of work is with each process. `tick` is called every second or more often meanwhile."""
        for member in self._members:
            member.take(next(works, None))
        while any(member.work for member in self._members):
            tick()
            for member in self._ready():
                result = member.result()
                if result is not None:
                    member.take(next(works, None))
                    yield result

    def _ready(self) -> list[_Member[R]]:
        """The members that have something to say: a result, their end, or that nothing has moved for too long."""
        busy = {member.pipe: member for member in self._members if member.work}
        answered = [busy[pipe] for pipe in wait(list(busy), timeout=1.0) if isinstance(pipe, Connection)]
        return answered or [member for member in busy.values() if member.hangs()]


class _Member(Generic[R]):
    """One process, and the work it has."""

    def __init__(self, cores: Sequence[str]) -> None:
        self._cores = tuple(cores)
        self.work: Work[R] | None = None
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._current: Any = context.Array("q", (NO_CASE, 0), lock=False)
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, self._cores, self._current, own()), daemon=True)
        self._process.start()
        theirs.close()

    def take(self, work: Work[R] | None) -> None:
        """Begin a piece of work, if there is one."""
        self._killed: Counter[tuple[int, int]] = Counter()
        self._begin(work)

    def _begin(self, work: Work[R] | None) -> None:
        self.work = work
        self._current[:] = (NO_CASE, 0)
        self._watched, self._since = (NO_CASE, 0), time.monotonic()
        if work is not None:
            self.pipe.send(work)

    def hangs(self) -> bool:
        """Whether the same case has been running for too long."""
        current = tuple(self._current)
        if current != self._watched:
            self._watched, self._since = current, time.monotonic()
        return current[0] != NO_CASE and time.monotonic() - self._since > HANG_SECONDS

    def result(self) -> R | None:
        """The result of the work; None if the process was lost, which then tries again without the case that it died of."""
        if not self.hangs():
            try:
                result: R = self.pipe.recv()
            except (EOFError, ConnectionResetError):
                self._process.join()
                if self._was_killed():
                    return None
                # A signal is the engine's doing; a Python error, on stderr by now, is ours, and proves nothing about the engine.
                self._replace(End.CORE_CRASHED if (self._process.exitcode or 0) < 0 else End.UNSUPPORTED)
                return None
            return result
        self._replace(End.CORE_HUNG)
        return None

    def _was_killed(self) -> bool:
        """Whether somebody from outside ended the process; then the work begins again. The same case twice is no accident."""
        case, place = self._current
        if self._process.exitcode != -signal.SIGKILL or self._killed[case, place] == (MOST_KILLS if case == NO_CASE else 1):
            return False
        self._killed[case, place] += 1
        self.stop()
        self._start()
        self._begin(self.work)
        return True

    def _replace(self, end: End) -> None:
        case, place = self._current
        work = self.work
        self.stop()
        if case == NO_CASE or work is None:
            said = "what it said is on stderr, and `entryfuzz cores list` shows whether they work"
            raise CoreError(f"{', '.join(self._cores)}: their process ended outside any case; {said}")
        self._start()
        self._begin(work.without(case, place, end))

    def stop(self) -> None:
        """End the process, whatever it does."""
        self.pipe.close()
        self._process.kill()
        self._process.join()
