"""A core whose version is what the environment says: the specification itself, with a defect in some versions."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from fuzzer.cores import registry
from fuzzer.targets.target import Target
from reference.image import REGISTER_INDEX, Image, Observation, Step
from reference.run import run
from reference.trace import trace
from workers import child

NAME = "mending"
VERSION = "ENTRYFUZZ_TEST_VERSION"
DEFECT = "ENTRYFUZZ_TEST_DEFECT"
"""`wrong`: R15 is changed by the first instruction; `crash`: its process ends; anything else: none."""
_R15 = REGISTER_INDEX["r15"]


def _damaged(registers: tuple[int, ...], retired: int) -> tuple[int, ...]:
    if os.environ[DEFECT] != "wrong" or retired < 1:
        return registers
    return (*registers[:_R15], registers[_R15] ^ 1, *registers[_R15 + 1 :])


class MendingCore:
    """Does what the specification does, but for its defect."""

    name = NAME
    delivers_events = False

    def __init__(self) -> None:
        self.version = os.environ[VERSION]

    def run(self, images: Sequence[Image]) -> Iterator[Observation]:
        """Run each image to its end."""
        for image in images:
            if os.environ[DEFECT] == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            seen = run(image)
            yield replace(seen, registers=_damaged(seen.registers, seen.retired))

    def trace(self, image: Image) -> Iterator[Step]:
        """Run an image in steps."""
        for step in trace(image):
            yield replace(step, registers=_damaged(step.registers, step.retired), rule="")


INFO = registry.CoreInfo(NAME, "(a test)", MendingCore, lambda: (os.environ[VERSION], ""))


def serve(pipe: Connection, core_names: Sequence[str], current: Any, targets: Sequence[Target] = ()) -> None:
    """What a process of the pool runs instead of `child.serve`: the same, with one core more."""
    known: Mapping[str, object] = registry.CORES
    if NAME not in known:
        registry.CORES[NAME] = INFO
    child.serve(pipe, core_names, current, targets)
