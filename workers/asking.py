"""Checks of the specification against the host's processor in several processes, a child that runs cases in each."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import cache

from fuzzer.cores.core import CoreError
from fuzzer.cores.silicon.core import SiliconCore
from fuzzer.silicon_check import SLICE, Tally, check


def run_check(seed: int, cases: int, jobs: int) -> Iterator[Tally]:
    """Tallies as they come; the cases are the same for any number of processes."""
    slices = [range(start, min(start + SLICE, cases)) for start in range(0, cases, SLICE)]
    if jobs == 1:
        yield from (_slice(seed, numbers) for numbers in slices)
        return
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _ignore_interrupts)
    try:
        for done in as_completed([pool.submit(_slice, seed, numbers) for numbers in slices]):
            yield done.result()
    except BrokenProcessPool:
        raise CoreError("silicon: a process that compares has ended") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _slice(seed: int, numbers: range) -> Tally:
    return check(seed, numbers, _core())


@cache
def _core() -> SiliconCore:
    """This process's own."""
    return SiliconCore()


def _ignore_interrupts() -> None:
    """Ctrl-C is for the process that a person started; it ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
