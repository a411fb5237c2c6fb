"""The process that an engine lives in: it takes work from a pipe and answers with results."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from fuzzer.cores.registry import CORES
from fuzzer.targets.registry import register
from fuzzer.targets.target import Target

NO_CASE = -1
"""Told as the number of a case where the engine has nothing to do."""


def serve(pipe: Connection, core_name: str, current: Any, targets: Sequence[Target] = ()) -> None:
    """Do work until the pipe is closed; `current` always holds the number of the case that is being run, `targets` are people's own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for target in targets:
        register(target)
    core = CORES[core_name].load()

    def starting(number: int) -> None:
        current.value = number

    while True:
        try:
            work = pipe.recv()
        except EOFError:
            return
        pipe.send(work.run(core, starting))
