"""Runs of many images on one engine: batches through its memory, and what happens where it dies, hangs or has no more room."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final, Protocol

from fuzzer.cores.core import CoreError
from fuzzer.cores.guest.job import Run
from fuzzer.cores.guest.mailbox import MOST_JOBS
from fuzzer.cores.guest.memory import GuestMemory, Result
from fuzzer.cores.guest.walk import Arrivals, Runs
from fuzzer.cores.guest.watch import EVERYTHING
from reference.image import End

HANG_SECONDS: Final = 10.0
"""A job takes microseconds; an engine that stays with one for this long never comes back."""


_PATIENCE: Final = 3


class Engine(Protocol):
    """A machine with the harness in it."""

    guest: GuestMemory
    leaves_memory: bool
    """Whether its memory can still be read when it has died."""

    def turn(self, jobs: int, seconds: float) -> bool:
        """Let the guest run the jobs that were put; False where it died, or stayed with one of them for so many seconds."""
        ...

    def alive(self) -> bool:
        """Whether it still runs."""
        ...

    def close(self) -> None:
        """End it, whatever it does."""
        ...


class Session:
    """One engine, replaced when it is lost."""

    def __init__(self, start: Callable[[], Engine]) -> None:
        self._start = start
        self._engine: Engine | None = None
        self._arrivals: Arrivals | None = None

    def arrivals(self, runs: Runs) -> Arrivals:
        """What is known of the ways to events on this engine."""
        if self._arrivals is None:
            self._arrivals = Arrivals(runs)
        return self._arrivals

    def results(self, runs: Sequence[Run]) -> Iterator[Result | End]:
        """The result of each run in its order; CORE_CRASHED or CORE_HUNG for one that the engine did not survive."""
        first = alone = lost = 0
        while first < len(runs):
            engine = self._engine = self._engine or self._start()
            try:
                count = _put(engine.guest, runs[first : first + (1 if first < alone else MOST_JOBS)])
            except OSError as error:  # it had ended before it was given anything
                self.close()
                lost += 1
                if lost > _PATIENCE:
                    raise CoreError(f"an engine ends again and again before it is given a case: {error}") from None
                continue
            survived = engine.turn(count, HANG_SECONDS)
            if not survived and not engine.leaves_memory and not engine.alive():
                self.close()
                if count == 1:
                    yield End.CORE_CRASHED
                    first += 1
                alone = max(alone, first + count)  # nothing is known of those that had run: one by one
                continue
            if survived and engine.guest.missed():
                runs = [*runs[:first], *map(_unwatched, runs[first : first + count]), *runs[first + count :]]
                continue
            finished = engine.guest.finished() if survived else engine.guest.progress()
            for number in range(finished):
                yield engine.guest.result(number)
            first += finished
            if not survived:
                end = End.CORE_HUNG if engine.alive() else End.CORE_CRASHED
                self.close()
                yield end
                first += 1

    def close(self) -> None:
        """End the engine; the next run starts another."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None


def _unwatched(run: Run) -> Run:
    """The same run with a look at everything: what its watch does not see is there to be seen."""
    return replace(run, job=replace(run.job, watch=EVERYTHING))


def _put(guest: GuestMemory, runs: Sequence[Run]) -> int:
    """Write as many jobs as there is room for; at least one, as the pool is emptied for it."""
    for number, run in enumerate(runs):
        if not guest.put(number, run):
            if number:
                return number
            guest.forget()
            assert guest.put(0, run), "the pool holds the pages of any one image"
    return len(runs)
