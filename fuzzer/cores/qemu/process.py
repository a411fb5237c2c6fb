"""A QEMU of one CPU model with the harness in it: started when it is needed, still when it is not, gone with its owner."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Final

from fuzzer.cores.core import CoreError
from fuzzer.cores.guest.assemble import committed
from fuzzer.cores.guest.mailbox import MEMORY
from fuzzer.cores.guest.memory import GuestMemory, SharedMemory
from fuzzer.cores.guest.turn import Turn, wait
from fuzzer.cores.parent import die_with
from fuzzer.cores.qemu.probe import PROGRAM

SHIFT: Final = 5
"""An instruction is 32 ns of the guest's time: more than two ticks of its HPET, so that each boundary can be hit."""
NANOSECONDS: Final = 1 << SHIFT
_BOOT_SECONDS: Final = 20.0
_STALL_SECONDS: Final = 0.15
"""Of processor time; a job takes microseconds."""
_NAP: Final = 0.002


class Process:
    """One QEMU, and its memory as both sides see it."""

    leaves_memory = True

    def __init__(self, model: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="entryfuzz-qemu-")
        folder = Path(self._folder.name)
        harness = committed()
        with (folder / "ram").open("w+b") as file:
            file.truncate(MEMORY)
            self._map = mmap.mmap(file.fileno(), MEMORY)
        (folder / "rom").write_bytes(harness.rom)
        self.guest = GuestMemory(SharedMemory(memoryview(self._map)), harness, routed=False, repeats=False)
        self._said = (folder / "said").open("w+b")
        self._process = subprocess.Popen(
            _command(folder, model), stdin=subprocess.PIPE, stdout=self._said, stderr=self._said, preexec_fn=partial(die_with, os.getpid())
        )
        self._wait_for_boot()

    def _wait_for_boot(self) -> None:
        begun = time.monotonic()
        while not self.guest.booted():
            if self._process.poll() is not None or time.monotonic() - begun > _BOOT_SECONDS:
                said = self.last_words()
                self.close()
                raise CoreError(f"qemu: {PROGRAM} did not start the harness: {said or 'it says nothing'}")
            time.sleep(_NAP)
        self._folder.cleanup()  # all of it has been opened, and nothing is left when this process is killed
        self.pause()

    def last_words(self) -> str:
        """What QEMU wrote, on one line."""
        self._said.seek(0)
        return " ".join(self._said.read().decode(errors="replace").split())[:300]

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def pause(self) -> None:
        """Stand still: a guest that waits for its next turn would take a processor of the host."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on."""
        self._process.send_signal(signal.SIGCONT)

    def turn(self, jobs: int, seconds: float) -> bool:
        """Let the guest run jobs; whether it came to their end within `seconds` without progress and without dying."""
        self.guest.begin(jobs)
        self.resume()
        outcome = wait(self.guest, self._process, _STALL_SECONDS, seconds)
        if outcome is Turn.STALLED:
            stalled = self.guest.progress()
            self._reset(stalled)
            outcome = wait(self.guest, self._process, seconds, seconds)
            self.guest.note_stalled(stalled)
        if outcome is Turn.DONE:
            self.pause()
        return outcome is Turn.DONE

    def _reset(self, job: int) -> None:
        """Reset the machine in a job: where no instruction retires, the guest's clock stands, and no timer of it will fire."""
        self.guest.cut(job + 1)
        assert self._process.stdin is not None
        self._process.stdin.write(b"system_reset\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._said.close()
        self._folder.cleanup()


def _command(folder: Path, model: str) -> list[str]:
    size = f"{MEMORY >> 20}M"
    return [
        PROGRAM,
        *("-M", "pc,memory-backend=m,smm=on", "-m", size, "-cpu", model),
        *("-object", f"memory-backend-file,id=m,size={size},mem-path={folder / 'ram'},share=on"),
        *("-accel", "tcg,thread=single", "-icount", f"shift={SHIFT},sleep=off"),
        *("-global", "hpet.msi=on", "-global", "hpet.timers=8"),
        *("-nodefaults", "-display", "none", "-monitor", "stdio", "-serial", "none", "-bios", str(folder / "rom")),
    ]
