"""A core that really kills or stops its process on one case, for the tests of the pool."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

from fuzzer.cores import registry
from fuzzer.cores.core import CoreError
from fuzzer.cores.unicorn.core import UnicornCore
from fuzzer.targets.target import Target
from reference.image import Image, Observation
from workers import child

HOW = "ENTRYFUZZ_TEST_DEATH"
MARK = "ENTRYFUZZ_TEST_DEATH_MARK"
"""A file that is there once the process was killed."""
AT = 5


def _once(mark: str) -> None:
    if not os.path.exists(mark):
        open(mark, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)


class DyingCore(UnicornCore):
    """Dies on the sixth image it is given, as the environment says: by a signal, by an error of ours, or by never coming back."""

    given = 0

    def run(self, images: Sequence[Image]) -> Iterator[Observation]:
        """Run images until the one that is too much."""
        for image in images:
            self.given += 1
            if self.given == AT + 1 and os.environ[HOW] == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            if self.given == AT + 1 and os.environ[HOW] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.given == AT + 1 and os.environ[HOW] == "kill once":
                _once(os.environ[MARK])
            if self.given == AT + 1 and os.environ[HOW] == "error":
                raise CoreError("an adapter's mistake")
            if self.given == AT + 1 and os.environ[HOW] == "hang":
                time.sleep(600)
            yield from super().run([image])


def serve(pipe: Connection, core_names: Sequence[str], current: Any, targets: Sequence[Target] = ()) -> None:
    """What a process of the pool runs instead of `child.serve`: the same, with one core more."""
    for name in core_names:
        registry.CORES[name] = registry.CoreInfo(name, "unicorn", DyingCore)
    child.serve(pipe, core_names, current, targets)
