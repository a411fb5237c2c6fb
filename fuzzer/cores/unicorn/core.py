"""The core `unicorn`: QEMU's instruction semantics as Unicorn packages them, events delivered by this adapter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import unicorn
from unicorn import x86_const

from fuzzer.cores.core import CoreError
from fuzzer.cores.unicorn.breakpoints import armed
from fuzzer.cores.unicorn.machine import USUAL, Machine, Parts
from fuzzer.cores.unicorn.walk import OutsideError
from reference.image import End, Image, Observation, Step

MODELS: Final = {
    "intel": x86_const.UC_CPU_X86_SKYLAKE_CLIENT,
    "amd": x86_const.UC_CPU_X86_EPYC,
    "intel-2010": x86_const.UC_CPU_X86_WESTMERE,
    "intel-2012": x86_const.UC_CPU_X86_IVYBRIDGE,
    "intel-pti": x86_const.UC_CPU_X86_SKYLAKE_CLIENT,
}
"""The engine's CPU model for each profile."""

_ARMED: Final = 2
"""Engines of one kind that hold breakpoints, besides the one that holds none."""


_Key = tuple[str, int, tuple[int, ...]]
"""Profile, physical pages, breakpoints."""


class UnicornCore:
    """Runs cases on the Unicorn wheel that is installed; `parts` other than the usual ones make a core with a planted mistake."""

    name = "unicorn"
    delivers_events = False

    def __init__(self, parts: Parts = USUAL) -> None:
        self.version: str = unicorn.__version__
        self._parts = parts
        self._machines: dict[_Key, Machine] = {}
        """In the order of last use."""

    def run(self, images: Sequence[Image]) -> Iterator[Observation]:
        """Run each image to its end."""
        for image in images:
            machine = self._machine(image)
            try:
                run = machine.start(image)
            except OutsideError:
                yield Observation(End.UNSUPPORTED, detail="the image's descriptor table is not in its memory")
                continue
            while run.end is None:
                run.advance()
            yield machine.finish(run)

    def trace(self, image: Image) -> Iterator[Step]:
        """Run one image one boundary at a time."""
        machine = self._machine(image)
        try:
            run = machine.start(image)
        except OutsideError:
            return  # `run` tells why
        yield machine.view(run, 0, asynchronous=False)
        while run.end is None:
            known, retired = len(run.doorman.deliveries), run.retired
            run.raised, run.at_fetch, run.arrivals.held_by_shadow = "", False, False
            asynchronous = run.advance(most=1)
            while run.end is None and not run.raised and (known, retired) == (len(run.doorman.deliveries), run.retired):
                asynchronous = run.advance(most=1)
            yield machine.view(run, known, asynchronous)

    def _machine(self, image: Image) -> Machine:
        """The engine for an image: one that has its breakpoints already, if there is one."""
        key = (image.profile.name, max(image.pages) + 1, armed(image.registers))
        machine = self._machines.pop(key, None) or self._take_armed(key)
        if machine is None or not machine.tidy():
            if image.profile.name not in MODELS:
                raise CoreError(f"unicorn: no CPU model for profile {image.profile.name!r}; known: {', '.join(MODELS)}")
            machine = Machine(MODELS[image.profile.name], key[1], image, self._parts)
        self._machines[key] = machine
        return machine

    def _take_armed(self, key: _Key) -> Machine | None:
        """The engine that has held other breakpoints for longest, where no more may be made; None while they may."""
        alike = [known for known in self._machines if known[2] and key[2] and known[:2] == key[:2]]
        return self._machines.pop(alike[0]) if len(alike) == _ARMED else None
