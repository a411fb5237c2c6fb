"""The process of a guided run, watched: what it tells as it comes, and whether it came to its end."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from fuzzer.cores.core import CoreError
from fuzzer.guided.job import CURRENT, LOG, Current, Job, Told, read_line
from reference.image import End
from workers.child import NO_CASE
from workers.pool import HANG_SECONDS

CHILD: tuple[str, ...] = (sys.executable, "-m", "fuzzer.guided.child")
SELF_TEST = (sys.executable, "-m", "fuzzer.guided.selftest")
SELF_TEST_SECONDS = 120.0
START_SECONDS = 120.0
SECONDS_PER_EXECUTION = 5.0
"""A case takes milliseconds, on an engine that is a program tenths of a second: a run that needs this much for each does not get on."""
_CHUNK = 1 << 16
_LOG_SHOWN = 600


@dataclass(frozen=True, slots=True)
class Lost:
    """The case that took a child with it, and how: of the number `number`, on the core of the place `core`."""

    number: int
    core: int
    data: bytes
    end: End


@cache
def check_guidance() -> None:
    """Show once in this process that guidance works at all; CoreError where it does not."""
    done = subprocess.run(SELF_TEST, capture_output=True, text=True, timeout=SELF_TEST_SECONDS, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        raise CoreError(f"guided fuzzing is blind: atheris does not heed counters or a mutator of ours ({last}); install atheris==3.0.0")


@dataclass(slots=True)
class Child:
    """A guided run in a process of its own; use it as a context manager, and iterate over what it tells."""

    job: Job
    pipe: int
    """The end of the job's pipe to read from; this closes it."""
    lost: Lost | None = None
    """Set after the last message, where a core took the process with it."""
    _process: subprocess.Popen[bytes] = field(init=False)
    _current: Current = field(init=False)

    def __enter__(self) -> Child:
        self._current = Current(Path(self.job.folder) / CURRENT)
        self._current.clear()
        self._process = subprocess.Popen((*CHILD, str(self.job.write())), pass_fds=(self.job.pipe,), stdin=subprocess.DEVNULL)
        os.close(self.job.pipe)
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self.pipe)

    def __iter__(self) -> Iterator[Told]:
        """What the child tells, until it ends or is ended; CoreError where that has nothing to do with a case."""
        rest, idle, watched = b"", 0.0, (NO_CASE, NO_CASE)
        deadline = time.monotonic() + START_SECONDS + SECONDS_PER_EXECUTION * self.job.executions
        while time.monotonic() < deadline:
            if not select.select([self.pipe], [], [], 1.0)[0]:
                # Only seconds in which there was nothing to read count: the child waits for us where we are slow.
                current = self._current.get()[:2]
                idle, watched = (idle + 1.0 if current == watched else 0.0), current
                if idle > (HANG_SECONDS if current[0] != NO_CASE else START_SECONDS):
                    self._lose(End.CORE_HUNG)
                    return
                continue
            idle, chunk = 0.0, os.read(self.pipe, _CHUNK)
            if not chunk:
                self._judge_end()
                return
            *lines, rest = (rest + chunk).split(b"\n")
            yield from map(read_line, lines)
        raise CoreError(f"guided fuzzing of {self.job.target}: {self.job.executions} cases did not come to their end: {self._said()}")

    def _judge_end(self) -> None:
        """The pipe is closed: the process has ended, or is about to."""
        code = self._process.wait()
        if code:
            # A signal is the engine's doing; an error of Python's, in the log, is ours, and proves nothing about the engine.
            self._lose(End.CORE_CRASHED if code < 0 else End.UNSUPPORTED)

    def _lose(self, end: End) -> None:
        self._process.kill()
        self._process.wait()
        number, core, data = self._current.get()
        if number == NO_CASE or core == NO_CASE:
            raise CoreError(f"guided fuzzing of {self.job.target}: its process ended outside any core: {self._said()}")
        self.lost = Lost(number, core, data, end)

    def _said(self) -> str:
        log = Path(self.job.folder) / LOG
        return " ".join(log.read_text(encoding="utf-8", errors="replace")[-_LOG_SHOWN:].split()) if log.exists() else "it said nothing"


def write_inputs(folder: Path, inputs: Sequence[bytes]) -> None:
    """Store inputs under names that sort in their order."""
    for number, data in enumerate(inputs):
        (folder / f"{number:06}").write_bytes(data)
