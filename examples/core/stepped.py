"""A core of your own: Unicorn, one boundary at a time. What runs many instructions at once must end where this one ends."""

from collections.abc import Iterator, Sequence

from fuzzer.cores.unicorn.core import UnicornCore
from reference.image import End, Image, Observation, Step


class SteppedCore:
    """Runs images to their end in single steps."""

    name = "unicorn-stepped"
    delivers_events = False  # as with Unicorn, the adapter enters the handlers

    def __init__(self) -> None:
        self._engine = UnicornCore()
        self.version = self._engine.version

    def run(self, images: Sequence[Image]) -> Iterator[Observation]:
        """One observation for each image, in their order; nothing is left behind for the next."""
        for image in images:
            last = None
            for step in self.trace(image):
                last = step
            if last is None or last.end is None:
                yield Observation(End.UNSUPPORTED, detail="this image cannot be run in steps")
            else:
                yield Observation(last.end, last.registers, last.memory, detail=last.detail, retired=last.retired)

    def trace(self, image: Image) -> Iterator[Step]:
        """The start, a step for each boundary, and the last says how the run ended."""
        return self._engine.trace(image)
