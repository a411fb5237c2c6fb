"""The child that runs cases: started, given batches through the shared file, watched, and started again when it is gone."""

from __future__ import annotations

import mmap
import os
import select
import signal
import socket
import struct
import subprocess
from collections.abc import Sequence
from typing import Final

from fuzzer.cores.core import CoreError
from fuzzer.cores.silicon import exchange as at
from fuzzer.cores.silicon.program import TEXT_FILE, program

PATIENCE: Final = 0.15
"""Seconds without progress after which a case is looked at, and given up after as many again."""
_LAST_PATIENCE: Final = 30.0


class Process:
    """A child with the pages that every case begins with and the descriptors that all cases share."""

    def __init__(self, template: Sequence[bytes], gdt_descriptors: Sequence[bytes], ldt_descriptors: Sequence[bytes]) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._file = os.memfd_create("entryfuzz-silicon")
        os.ftruncate(self._file, at.SHARED_SIZE)
        self.shared = mmap.mmap(self._file, at.SHARED_SIZE)
        descriptors = (*gdt_descriptors, *ldt_descriptors)
        self._set("CONTROL_DESCRIPTORS", len(descriptors))
        self._set("CONTROL_GDT_DESCRIPTORS", len(gdt_descriptors))
        self._put(at.NUMBERS["CONTROL_USER_DESC"], b"".join(descriptors))
        self._put(at.NUMBERS["CONTROL_ADDRESSES"], struct.pack(f"<{at.PAGES}Q", *at.ADDRESSES))
        self._template = b"".join(template)
        self._start()

    @property
    def cpu_segment(self) -> tuple[int, int]:
        """(limit, access rights as LAR gives them) of the descriptor in which Linux keeps the processor's number."""
        return self._get("CONTROL_CPU_LIMIT"), self._get("CONTROL_CPU_RIGHTS")

    def run(self, count: int) -> list[int]:
        """Run the first `count` slots; the numbers of those that did not end by themselves."""
        hung: list[int] = []
        self._set("CONTROL_COUNT", count)
        self._say()
        while not self._answered(PATIENCE):
            number = self._get("CONTROL_NUMBER")
            if self._answered(PATIENCE):
                break
            if number == self._get("CONTROL_NUMBER"):
                self._interrupt()
                hung.append(number)
        return hung

    def close(self) -> None:
        """End the child and give the file back."""
        self._stop()
        if self._file >= 0:
            self.shared.close()
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        self.close()

    def _interrupt(self) -> None:
        """Make the case that runs have its event now."""
        assert self._child is not None
        self._child.send_signal(signal.SIGUSR1)

    def _say(self) -> None:
        if self._child is None:
            self._start()
        try:
            self._talk.send(b"g")
        except BrokenPipeError:
            raise self._ended() from None

    def _answered(self, seconds: float) -> bool:
        """Whether the child has said that it is done, within `seconds`."""
        if not select.select([self._talk], [], [], seconds)[0]:
            return False
        try:
            answer = self._talk.recv(1)
        except ConnectionResetError:
            answer = b""
        if not answer:
            raise self._ended()
        return True

    def _ended(self) -> CoreError:
        """The child is gone: what to say about it. The next batch starts another."""
        assert self._child is not None
        code = self._child.wait()
        self._stop()
        return CoreError(f"silicon: the process that runs cases has ended with {code} at case {self._get('CONTROL_NUMBER')}")

    def _start(self) -> None:
        """A child that has everything installed and waits."""
        self._put(at.USER_PAGES, self._template)
        self._put(at.TEMPLATE_PAGES, self._template)
        self._put(at.NUMBERS["CONTROL_PROTECTIONS"], bytes(at.PROTECTIONS))
        self._put(at.NUMBERS["CONTROL_CHANGED"], bytes(at.PAGES))
        executable = os.memfd_create("entryfuzz-silicon-child")
        try:
            os.write(executable, program(TEXT_FILE.read_bytes()))
            self._spawn(executable)
        finally:
            os.close(executable)
        if not self._answered(_LAST_PATIENCE):
            self._stop()
            raise CoreError("silicon: the process that runs cases does not start")
        self.run(0)

    def _spawn(self, executable: int) -> None:
        """The program, with a socket as descriptor 0 and the shared file as descriptor 1, on one processor only."""
        self._talk, other = socket.socketpair()
        with other:
            self._child = subprocess.Popen(
                ["silicon"],
                executable=f"/proc/self/fd/{executable}",
                stdin=other.fileno(),
                stdout=self._file,
                pass_fds=(executable,),
                env={},
            )
        processors = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(self._child.pid, {processors[os.getpid() % len(processors)]})

    def _stop(self) -> None:
        if self._child is not None:
            self._talk.close()
            self._child.kill()
            self._child.wait()
            self._child = None

    def _put(self, offset: int, data: bytes) -> None:
        self.shared[offset : offset + len(data)] = data

    def _set(self, name: str, value: int) -> None:
        struct.pack_into("<Q", self.shared, at.NUMBERS[name], value)

    def _get(self, name: str) -> int:
        value: int = struct.unpack_from("<Q", self.shared, at.NUMBERS[name])[0]
        return value
