"""A core whose process dies on the cases that have an event at one boundary, for the tests of the sweep."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

from fuzzer.cores import registry
from fuzzer.cores.unicorn.core import UnicornCore
from fuzzer.targets.target import Target
from reference.image import Image, Observation
from workers import child

NAME = "fragile"
AT = 7


class FragileCore(UnicornCore):
    """Does not survive an event at boundary 7."""

    def run(self, images: Sequence[Image]) -> Iterator[Observation]:
        """Run images until one that is too much."""
        for image in images:
            if any(event.boundary == AT for event in image.events):
                os.kill(os.getpid(), signal.SIGSEGV)
            yield from super().run([image])


def register() -> None:
    """Make the core known by its name."""
    registry.CORES[NAME] = registry.CoreInfo(NAME, "unicorn", FragileCore)


def serve(pipe: Connection, core_names: Sequence[str], current: Any, targets: Sequence[Target] = ()) -> None:
    """What a process of the pool runs instead of `child.serve`: the same, with one core more."""
    register()
    child.serve(pipe, core_names, current, targets)
