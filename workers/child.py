"""The process that an engine lives in: it takes slices from a pipe and answers with results."""

from __future__ import annotations

import signal
from multiprocessing.connection import Connection
from typing import Any

from fuzzer.cores.registry import CORES
from workers.slices import run_slice


def serve(pipe: Connection, core_name: str, current: Any) -> None:
    """Run slices until the pipe is closed; `current` always holds the number of the case that is being run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    core = CORES[core_name].load()

    def starting(number: int) -> None:
        current.value = number

    while True:
        try:
            work = pipe.recv()
        except EOFError:
            return
        pipe.send(run_slice(work, core, starting))
