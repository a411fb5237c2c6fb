"""The seam between the fuzzer and an engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from reference.image import Image, Observation, Step


class CoreError(Exception):
    """An engine failed: it is missing, of another version than the adapter knows, or broke its own rules."""


class Core(Protocol):
    """An engine that runs machines to their end and leaves nothing behind."""

    name: str
    version: str
    delivers_events: bool
    """Whether the engine enters interrupt handlers itself; otherwise its adapter does, and findings say so."""

    def run(self, images: Sequence[Image]) -> Iterator[Observation]:
        """Run each image from its start; observations come in the order of the images."""
        ...

    def trace(self, image: Image) -> Iterator[Step]:
        """Run one image boundary by boundary; slow, for explaining a divergence."""
        ...
