"""A Bochs of one CPU model with the harness in it: started when it is needed, still when it is not, gone with its owner."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from fuzzer.cores.bochs.memory import ProcessMemory
from fuzzer.cores.bochs.probe import PROGRAM
from fuzzer.cores.bochs.timing import INSTRUCTIONS_PER_SECOND
from fuzzer.cores.core import CoreError
from fuzzer.cores.guest.assemble import committed
from fuzzer.cores.guest.mailbox import MEMORY, ROM_MARKS
from fuzzer.cores.guest.memory import GuestMemory
from fuzzer.cores.guest.turn import Turn, wait
from fuzzer.cores.parent import die_with

_BOOT_SECONDS: Final = 20.0
_GO_ON: Final = b"c\n" * 0x800
_STALL_SECONDS: Final = 2.0
"""A job takes a millisecond. A stop that comes with a single-step trap pending makes Bochs deliver the trap in the handler of the SMI,
from which nothing returns."""
_ROM_AT: Final = 0xFFFF_0000
_VGA_BYTES: Final = 512


class Process:
    """One Bochs, and its memory as both sides see it."""

    leaves_memory = False

    def __init__(self, model: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="entryfuzz-bochs-")
        folder = Path(self._folder.name)
        harness = committed()
        rom = bytearray(harness.rom)
        rom[ROM_MARKS - _ROM_AT] = 1
        (folder / "rom").write_bytes(rom)
        (folder / "vga").write_bytes(bytes(_VGA_BYTES))
        (folder / "commands").write_text("c\n", encoding="ascii")
        (folder / "settings").write_text(_settings(folder, model), encoding="ascii")
        self._said = (folder / "said").open("w+b")
        self._process = subprocess.Popen(
            [PROGRAM, "-q", "-f", str(folder / "settings"), "-rc", str(folder / "commands")],
            stdin=subprocess.PIPE, stdout=self._said, stderr=self._said, cwd=folder, preexec_fn=partial(die_with, os.getpid()),
        )  # fmt: skip
        assert self._process.stdin is not None
        self._stdin = self._process.stdin.fileno()
        os.set_blocking(self._stdin, False)
        self._memory = ProcessMemory(self._process.pid)
        begun = time.monotonic()
        while not self._memory.find():
            self._check_boot(begun)
        self.guest = GuestMemory(self._memory, harness, routed=True, repeats=True)
        self._memory.unmark()
        while not self.guest.booted():
            self._check_boot(begun)
        self._folder.cleanup()  # all of it has been read
        self.pause()

    def _check_boot(self, begun: float) -> None:
        if not self.alive() or time.monotonic() - begun > _BOOT_SECONDS:
            said = self.last_words()
            self.close()
            raise CoreError(f"bochs: {PROGRAM} did not start the harness: {said or 'it says nothing'}")
        time.sleep(0.02)

    def last_words(self) -> str:
        """The end of what Bochs wrote, on one line."""
        self._said.seek(0)
        return " ".join(self._said.read().decode(errors="replace").split())[-300:]

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def pause(self) -> None:
        """Stand still: a guest that waits for its next turn would take a processor of the host."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on; and again whenever a triple fault has brought the debugger to its prompt."""
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(self._stdin, _GO_ON)
        self._process.send_signal(signal.SIGCONT)

    def turn(self, jobs: int, seconds: float) -> bool:
        """Let the guest run jobs; whether it came to their end within `seconds` without progress and without dying."""
        try:
            self.guest.begin(jobs)
            self.resume()
            done = wait(self.guest, self._process, _STALL_SECONDS, seconds) is Turn.DONE
        except OSError:
            self._process.wait()  # its memory is gone, and so is it
            return False
        if done:
            self.pause()
        return done

    def close(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._memory.close()
        self._said.close()
        self._folder.cleanup()


def _settings(folder: Path, model: str) -> str:
    """What Bochs is told; a message of it that is not fatal says nothing of the case."""
    size = MEMORY >> 20
    return f"""\
config_interface: textconfig
display_library: rfb, options="timeout=0"
memory: guest={size}, host={size}
romimage: file={folder / "rom"}, address={_ROM_AT:#x}
vgaromimage: file={folder / "vga"}
cpu: model={model}, count=1, ips={INSTRUCTIONS_PER_SECOND}, reset_on_triple_fault=1, ignore_bad_msrs=0
pci: enabled=1, chipset=i440fx
clock: sync=none
log: /dev/null
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
sound: driver=dummy
speaker: enabled=0
"""
