"""Trials of planted bugs in several processes, an engine in each."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from fuzzer.cores.core import CoreError
from fuzzer.mutants.trial import Result, Trial, run_trial


def run_trials(trials: Sequence[Trial], jobs: int) -> Iterator[Result]:
    """The results as they come. Cases are the same for any number of processes; how many fit into the time is not."""
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _ignore_interrupts)
    try:
        for done in as_completed([pool.submit(run_trial, trial) for trial in trials]):
            yield done.result()
    except BrokenProcessPool:
        raise CoreError("mutants: an engine took its process down; run fewer mutants by name to see which") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _ignore_interrupts() -> None:
    """Ctrl-C is for the process that a person started; it ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
