"""The child of a guided slice with cores more: one that dies, one with a bug in a narrow place, and the planted ones."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence

from fuzzer.cores import registry
from fuzzer.cores.unicorn.core import UnicornCore
from fuzzer.cores.unicorn.delivery import Arrival, Doorman
from fuzzer.cores.unicorn.machine import Parts
from fuzzer.guided import child
from fuzzer.mutants.catalogue import MUTANTS
from reference.image import Image, Observation

HOW = "ENTRYFUZZ_TEST_DEATH"
AT = 30


class DyingCore(UnicornCore):
    """Dies on the thirtieth image that a process gives it, as the environment says."""

    given = 0

    def run(self, images: Sequence[Image]) -> Iterator[Observation]:
        """Run images until the one that is too much."""
        for image in images:
            self.given += 1
            if self.given == AT and os.environ[HOW] == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            if self.given == AT and os.environ[HOW] == "hang":
                time.sleep(600)
            if self.given == AT and os.environ[HOW] == "error":
                raise ValueError("an adapter's mistake")
            yield from super().run([image])


class PageFaultBehindNmi(Doorman):
    """Saves an RSP that is off by 8, for a page fault in kernel mode behind an NMI only."""

    def frame(self, arrival: Arrival) -> list[int]:
        """As it should be, but there."""
        ss, rsp, *rest = super().frame(arrival)
        wrong = arrival.vector == 14 and self.cpl == 0 and any(entry.vector == 2 for entry in self.deliveries)
        return [ss, rsp + 8 * wrong, *rest]


def narrow() -> UnicornCore:
    """The core with that bug."""
    return UnicornCore(Parts(doorman=PageFaultBehindNmi))


def register() -> None:
    """Make the cores known by their names."""
    registry.CORES["dying"] = registry.CoreInfo("dying", "unicorn", DyingCore)
    registry.CORES["narrow"] = registry.CoreInfo("narrow", "unicorn", narrow)
    for name, mutant in MUTANTS.items():
        if mutant.core:
            registry.CORES[name] = registry.CoreInfo(name, "unicorn", mutant.core)


if __name__ == "__main__":
    register()
    child.main(sys.argv[1])
