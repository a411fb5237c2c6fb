"""The core of the fault test: bugs planted, some cases that crash it and some that hang it, and an account of each run of a slice.

It is installed as anybody's own core would be (docs/adding-a-core.md), so that the program under test is the unchanged one.
"""

from __future__ import annotations

import os
import signal
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from chaos_audit import BEAT, CRASH, HANG, Account

from db.records import SliceResult
from fuzzer.cores.core import Core
from fuzzer.cores.unicorn.core import UnicornCore
from fuzzer.cores.unicorn.machine import Parts
from fuzzer.mutants.cores import KeepsInterruptFlag, MaskOf16Bits, NoShadow
from reference.image import Image, Observation
from workers.child import Starting
from workers.slices import Slice

NAME = "planted"
VERSION = "1"
ACCOUNT = "ENTRYFUZZ_CHAOS_ACCOUNT"
PAUSE = "ENTRYFUZZ_CHAOS_PAUSE"
"""Seconds for which every case sleeps, so that a slice is long enough to be hit on any machine, and costs no more."""
CRASH_EVERY, HANG_EVERY = 400, 1500
"""One case in so many."""
FOR_EVER = 3600.0


class PlantedCore(UnicornCore):
    """Keeps IF at interrupt gates, knows no STI shadow, masks 16 bits at SYSCALL; and does not survive every case."""

    name = NAME

    def __init__(self, account: Account) -> None:
        super().__init__(Parts(KeepsInterruptFlag, NoShadow, MaskOf16Bits))
        self.version = VERSION
        self._account = account
        self._pause = float(os.environ.get(PAUSE, "0"))

    def run(self, images: Sequence[Image]) -> Iterator[Observation]:
        """Run images until one that is too much: the same one each time."""
        for image in images:
            mark = _mark(image)
            if mark % CRASH_EVERY == 0:
                self._account.note(CRASH)
                os.kill(os.getpid(), signal.SIGSEGV)
            if mark % HANG_EVERY == 1:
                self._account.note(HANG)
                time.sleep(FOR_EVER)
            self._account.note(BEAT)
            time.sleep(self._pause)
            yield from super().run([image])


def _mark(image: Image) -> int:
    """A number that depends on all of the image and on nothing else."""
    mark = zlib.crc32(repr((image.profile.name, sorted(image.registers.items()), image.events)).encode())
    for number, page in sorted(image.pages.items()):
        mark = zlib.crc32(page, mark ^ number)
    return mark


def make() -> Core:
    """What the entry point names: runs in the process of the engines before it is given any work."""
    account = Account(Path(os.environ[ACCOUNT]))
    plain = Slice.run

    def audited(work: Slice, cores: Sequence[Core], starting: Starting) -> SliceResult:
        with account.running(work.number):
            return plain(work, cores, starting)

    Slice.run = audited  # type: ignore[method-assign, assignment]
    return PlantedCore(account)


def install(folder: Path) -> dict[str, str]:
    """What a package of this core would leave in `folder`, and the environment in which programs find it."""
    info = folder / f"entryfuzz_planted-{VERSION}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: entryfuzz-planted\nVersion: {VERSION}\n")
    (info / "entry_points.txt").write_text(f"[entryfuzz.cores]\n{NAME} = chaos_core:make\n")
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(Path(__file__).parent)])}
