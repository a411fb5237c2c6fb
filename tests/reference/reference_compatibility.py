"""Machines in compatibility mode: `run32("50", eax=1)` is 32-bit user code with flat segments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from reference_machine import GDT_LIMIT, SPARE, USER32_CS, USER_DS, descriptor, image, run

from reference.image import Observation
from reference.run import run as run_image

SPARE_SELECTOR = SPARE | 3
"""A user selector for the descriptor that a test puts at SPARE."""


def run32(code: str = "", **parts: object) -> Observation:
    """Run 32-bit code at CPL 3."""
    segments = {"cs": USER32_CS, "ss": USER_DS, "ds": USER_DS, "es": USER_DS}
    return run(code, 3, **{**segments, **parts})  # type: ignore[arg-type]


def run_in_segment(entry: int, eip: int, memory: Mapping[int, bytes], **parts: object) -> Observation:
    """Run what `memory` holds at `eip` of the code segment `entry`."""
    made = image("", 3, cs=SPARE_SELECTOR, gdt={SPARE: entry}, gdtr_limit=GDT_LIMIT, memory=memory, **parts)  # type: ignore[arg-type]
    return run_image(replace(made, registers={**made.registers, "rip": eip, "ds": USER_DS, "es": USER_DS}))


def with_segment(name: str, kind: int, code: str, *, base: int = 0, limit: int = 0xF_FFFF, granular: bool = True, big: bool = True,
                 **parts: object) -> Observation:  # fmt: skip
    """The same with one segment register that holds a descriptor of one's own."""
    entry = descriptor(kind, 3, big=big, base=base, limit=limit, granular=granular)
    return run32(code, **{name: SPARE_SELECTOR}, gdt={SPARE: entry}, gdtr_limit=GDT_LIMIT, **parts)
