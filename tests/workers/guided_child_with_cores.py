"""The child of a guided slice with cores more: one that dies, and the planted ones."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence

from fuzzer.cores import registry
from fuzzer.cores.unicorn.core import UnicornCore
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


def register() -> None:
    """Make the cores known by their names."""
    registry.CORES["dying"] = registry.CoreInfo("dying", "unicorn", DyingCore)
    for name, mutant in MUTANTS.items():
        if mutant.core:
            registry.CORES[name] = registry.CoreInfo(name, "unicorn", mutant.core)


if __name__ == "__main__":
    register()
    child.main(sys.argv[1])
