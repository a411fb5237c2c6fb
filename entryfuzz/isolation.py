"""Work in a process of its own: what an engine does to that process is a result, not the end of the command."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, Final, TypeVar

from fuzzer.targets.registry import own, register
from fuzzer.targets.target import Target
from reference.image import End

T = TypeVar("T")

HANG_SECONDS: Final = 20.0
"""A result takes milliseconds, a trace seconds; what is silent for so long never ends."""


class Lost(Exception):
    """The process ended without a word, or hung."""

    def __init__(self, end: End, detail: str) -> None:
        super().__init__(detail)
        self.end = end
        self.detail = detail


def results(work: Callable[..., Iterator[T]], *arguments: Any, patience: float = HANG_SECONDS) -> Iterator[T]:
    """What `work(*arguments)` yields, made in another process; its exceptions, and `Lost` where the process is."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(theirs, work, arguments, own()), daemon=True)
    process.start()
    theirs.close()
    try:
        yield from _received(ours, process, patience)
    finally:
        ours.close()
        process.kill()
        process.join()


def _received(pipe: Connection, process: Any, patience: float) -> Iterator[Any]:
    while True:
        if not pipe.poll(patience):
            raise Lost(End.CORE_HUNG, f"silent for {patience:.0f} s")
        try:
            kind, value = pipe.recv()
        except EOFError:
            process.join()
            raise Lost(End.CORE_CRASHED, _last_words(process.exitcode)) from None
        if kind == "end":
            return
        if kind == "error":
            raise value
        yield value


def _last_words(code: int | None) -> str:
    return f"the engine's process was killed by signal {-code}" if code and code < 0 else f"the engine's process left with code {code}"


def _serve(pipe: Connection, work: Callable[..., Iterator[Any]], arguments: tuple[Any, ...], targets: tuple[Target, ...]) -> None:
    for target in targets:
        register(target)
    try:
        for item in work(*arguments):
            pipe.send(("item", item))
        pipe.send(("end", None))
    except KeyboardInterrupt:
        return
    except Exception as error:
        pipe.send(("error", error))
