"""Cores that are wrong on purpose: the Unicorn core with one behaviour changed, in its runs and its traces alike."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from fuzzer.cores.unicorn.core import UnicornCore
from fuzzer.targets import layout, tables
from reference.image import PAGE, REGISTER_INDEX, Image, Observation, Step


@dataclass
class Moment:
    """A machine as a core shows it: what the damage reads and changes."""

    image: Image
    registers: dict[str, int]
    memory: dict[int, bytes]
    deliveries: int
    """Handlers entered so far."""
    retired: int

    def word(self, region: layout.Region, linear: int) -> int:
        page, offset = self._page(region, linear)
        return int.from_bytes(page[offset : offset + 8], "little")

    def set_word(self, region: layout.Region, linear: int, value: int) -> None:
        page, offset = self._page(region, linear)
        frame = tables.FRAMES[region.name] + (linear - region.start) // PAGE
        self.memory[frame] = page[:offset] + struct.pack("<Q", value) + page[offset + 8 :]

    def _page(self, region: layout.Region, linear: int) -> tuple[bytes, int]:
        offset = linear - region.start
        frame = tables.FRAMES[region.name] + offset // PAGE
        return self.memory.get(frame, self.image.pages[frame]), offset % PAGE


Damage = Callable[[Moment], None]


class WrongCore:
    """Runs what Unicorn runs, and shows every moment after `damage`."""

    name = "wrong"
    version = "0"
    delivers_events = False

    def __init__(self, core: UnicornCore, damage: Damage) -> None:
        self._core = core
        self._damage = damage

    def run(self, images: Sequence[Image]) -> Iterator[Observation]:
        for image, seen in zip(images, self._core.run(images), strict=True):
            registers, memory = self._damaged(image, seen.registers, seen.memory, len(seen.deliveries), seen.retired)
            yield replace(seen, registers=registers, memory=memory)

    def trace(self, image: Image) -> Iterator[Step]:
        deliveries = 0
        for step in self._core.trace(image):
            deliveries += len(step.delivered)
            registers, memory = self._damaged(image, step.registers, step.memory, deliveries, step.retired)
            yield replace(step, registers=registers, memory=memory)

    def _damaged(
        self, image: Image, registers: tuple[int, ...], memory: object, deliveries: int, retired: int
    ) -> tuple[tuple[int, ...], dict[int, bytes]]:
        assert isinstance(memory, dict)
        moment = Moment(image, dict(zip(REGISTER_INDEX, registers, strict=True)), dict(memory), deliveries, retired)
        self._damage(moment)
        return tuple(moment.registers.values()), {frame: page for frame, page in moment.memory.items() if page != image.pages[frame]}
