"""The account of the fault test: who ran which slice from when to when, written by the processes that run them."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

BEGIN, BESIDE, BEAT, CRASH, HANG, END = "begin", "begin-beside", "beat", "crash", "hang", "end"


class Account:
    """The writing side. A lock for each slice, which the kernel lets go of when its holder dies, says whether another runs it now."""

    def __init__(self, file: Path) -> None:
        self._name = str(file)
        self._file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._number = -1

    def note(self, what: str) -> None:
        """One line, whole, of this process and the slice that it runs."""
        os.write(self._file, f"{time.monotonic():.6f} {os.getpid()} {self._number} {what}\n".encode())

    @contextmanager
    def running(self, number: int) -> Iterator[None]:
        """This process runs the slice meanwhile."""
        self._number = number
        lock = os.open(f"{self._name}.{number}", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            what = BEGIN
        except BlockingIOError:
            what = BESIDE
        try:
            self.note(what)
            yield
            self.note(END)
        finally:
            os.close(lock)


@dataclass(frozen=True, slots=True)
class Run:
    """One process that ran one slice: from its first line to its last. What was killed was alive at its last line, and ran on for less
    than a case after it."""

    pid: int
    number: int
    begun: float
    last: float
    beside: bool
    what: str
    """What its last line says."""


def runs(file: Path) -> list[Run]:
    """Every run of a slice, in the order of their beginnings."""
    open_now: dict[int, Run] = {}
    ended: list[Run] = []
    for line in file.read_text(encoding="ascii").splitlines():
        at, pid, number, what = line.split()
        if what in (BEGIN, BESIDE):
            ended += [open_now[int(pid)]] if int(pid) in open_now else []
            open_now[int(pid)] = Run(int(pid), int(number), float(at), float(at), what == BESIDE, what)
        else:
            open_now[int(pid)] = replace(open_now[int(pid)], last=float(at), what=what)
    return sorted([*ended, *open_now.values()], key=lambda run: run.begun)


def at_once(all_runs: Iterable[Run]) -> list[Run]:
    """The runs that began while another process was running the same slice, by the lock or by the times."""
    until: dict[int, float] = {}
    found = []
    for run in all_runs:
        if run.beside or run.begun < until.get(run.number, run.begun):
            found.append(run)
        until[run.number] = max(run.last, until.get(run.number, run.last))
    return found
