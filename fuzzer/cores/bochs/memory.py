"""The guest's memory inside the process of an engine that shares none: found by marks that the guest writes, reached through /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fuzzer.cores.guest.mailbox import BLOCK, MARK, MARK_PLACE, MEMORY

_PAGE = 4096
_NONE = 0


class ProcessMemory:
    """The memory of a guest; blocks of it that the engine keeps for devices are nowhere."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._file = -1
        self._blocks: list[int] = []

    def find(self) -> bool:
        """Look for the marks: once the last of them is there, all are, if need be for another look."""
        return self._look() and (_NONE not in self._blocks or self._look())

    def _look(self) -> bool:
        found: dict[int, int] = {}
        self.close()
        try:
            self._file = os.open(f"/proc/{self._pid}/mem", os.O_RDWR)  # anew, as it is of the program that runs now
        except OSError:
            return False
        for start, end in self._large():
            try:
                data = os.pread(self._file, end - start, start)
            except OSError:
                return False  # the program has just been replaced by another
            words = memoryview(data).cast("I")[MARK_PLACE % _PAGE // 4 :: _PAGE // 4].tolist()
            for number, word in enumerate(words):
                if MARK <= word < MARK + MEMORY // BLOCK:
                    found[word - MARK] = start + number * _PAGE + MARK_PLACE % _PAGE - MARK_PLACE
        self._blocks = [found.get(number, _NONE) for number in range(MEMORY // BLOCK)]
        return self._blocks[-1] != _NONE

    def _large(self) -> Iterator[tuple[int, int]]:
        for line in Path(f"/proc/{self._pid}/maps").read_text(encoding="ascii").splitlines():
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            if end - start >= MEMORY:
                yield start, end

    def unmark(self) -> None:
        """Take the marks away, the first one last: the guest waits for that."""
        for number in reversed(range(len(self._blocks))):
            if self._blocks[number] != _NONE:
                self.write(number * BLOCK + MARK_PLACE, bytes(4))

    def read(self, address: int, size: int) -> bytes:
        """Bytes at a physical address."""
        number, offset = divmod(address, BLOCK)
        here = os.pread(self._file, min(size, BLOCK - offset), self._blocks[number] + offset)
        if size and not here:
            raise OSError(f"no memory at {address:#x}: the process has ended")
        return here if len(here) == size else here + self.read(address + len(here), size - len(here))

    def write(self, address: int, data: bytes) -> None:
        """Put bytes at a physical address."""
        number, offset = divmod(address, BLOCK)
        here = os.pwrite(self._file, data[: BLOCK - offset], self._blocks[number] + offset)
        if data and not here:
            raise OSError(f"no memory at {address:#x}: the process has ended")
        if here < len(data):
            self.write(address + here, data[here:])

    def close(self) -> None:
        """Let go of the process."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1
