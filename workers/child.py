"""The process that engines live in: it takes work from a pipe and answers with results."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from fuzzer.cores.parent import die_with
from fuzzer.cores.registry import load
from fuzzer.targets.registry import register
from fuzzer.targets.target import Target

NO_CASE = -1
"""Told as the number of a case where no engine has anything to do."""
Starting = Callable[[int, int], None]
"""Is told the number of a case and the place of the core, among those of the process, that runs it next."""


def serve(pipe: Connection, core_names: Sequence[str], current: Any, targets: Sequence[Target] = ()) -> None:
    """Do work until the pipe is closed; `current` always holds which case is being run and on which core, `targets` are people's own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        die_with(parent.pid)
    for target in targets:
        register(target)
    cores = [load(name) for name in core_names]

    def starting(number: int, place: int) -> None:
        current[:] = (number, place)

    while True:
        try:
            work = pipe.recv()
        except EOFError:
            return
        pipe.send(work.run(cores, starting))
