"""Machines that no case describes: code of any size, hand-made page tables, and events."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from fuzzer_builders import snippet

from fuzzer.build import build
from fuzzer.cores.core import Core
from fuzzer.targets import layout, tables
from fuzzer.targets.target import Patch, patch
from reference.image import Event, EventKind, Image, Observation
from reference.profiles import Profile

COMPATIBILITY: dict[str, Any] = {
    "cs": layout.USER32_CS,
    "ss": layout.USER_DS,
    "ds": layout.USER_DS,
    "es": layout.USER_DS,
    "rflags": 0x202,
}
"""User code of 32 bits."""


def machine(
    code: str,
    scenario: str = "user",
    profile: str = "intel",
    events: Iterable[Event] = (),
    memory: Iterable[Patch] = (),
    **registers: int,
) -> Image:
    """The image of a snippet, with registers as they are given."""
    image = build(snippet(code, scenario, profile, events, memory))
    return dataclasses.replace(image, registers={**image.registers, **registers})


def as_profile(image: Image, profile: Profile) -> Image:
    """The same machine on another processor."""
    return dataclasses.replace(image, profile=profile)


def with_pages(image: Image, pages: Mapping[int, bytes], **registers: int) -> Image:
    """The same machine with pages added or replaced."""
    return dataclasses.replace(image, pages={**image.pages, **pages}, registers={**image.registers, **registers})


def open_gate(vector: int, handler: str | None = None) -> tuple[Patch, ...]:
    """A gate that user mode may use, to the vector's handler of `snippets`; `handler` is its code in hex, IRETQ where not given."""
    place = layout.KERNEL_TEXT.start + 16 * vector
    gate = patch(layout.IDT, 16 * vector, tables.gate(place, dpl=3))
    return (gate,) if handler is None else (gate, patch(layout.KERNEL_TEXT, 16 * vector, bytes.fromhex(handler)))


def machine_check(boundary: int) -> Event:
    return Event(boundary, EventKind.MACHINE_CHECK, 18)


def observe(core: Core, image: Image) -> Observation:
    """What the core shows of one image."""
    return next(iter(core.run([image])))
