"""An image as a job of the harness: its pages with a way out of the run in them, its registers, its events as timers."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from fuzzer.cores.guest.mailbox import MOST_EVENTS, MOST_FRAMES, REGISTERS_LOADED
from fuzzer.cores.guest.paging import OutsideError
from fuzzer.cores.guest.state import save_area
from fuzzer.cores.guest.watch import Watch
from reference.image import PAGE, Event, EventKind, Image

STUB: Final = bytes.fromhex("e6b20420e6b2ebfe")
"""out 0xb2, al; add al, 0x20; out 0xb2, al; jmp $: the chipset raises an SMI for all values but two, which are 1 apart."""
_GATE: Final = 16
_SPACE: Final = 2
_NMI_MESSAGE: Final = 0x400
_BREAKPOINTS: Final = 0xFF


class Unsupported(Exception):
    """The harness cannot express this image; the message says what."""


@dataclass(frozen=True, slots=True)
class Patch:
    """Bytes that the harness put into a frame, and what was there."""

    frame: int
    offset: int
    old: bytes
    new: bytes


@dataclass(frozen=True, slots=True)
class Way:
    """The way out of a run: the gate of the ending interrupt leads to a stub, at a place that nothing else uses."""

    stub: int
    """Its linear address."""
    patches: Mapping[int, tuple[Patch, ...]]
    """By frame."""


@dataclass(frozen=True, slots=True)
class Job:
    """What one run needs. `stop` counts boundaries; `events` are (message to the interrupt controller, boundary)."""

    image: Image
    watch: Watch
    way: Way
    save: bytes
    loaded: bytes
    breakpoints: bool
    events: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Run:
    """A job and its timers: the count of its stop, the delays of its events, the nanoseconds that it takes at least.

    A run that is walked goes on from its stop by `walk` ticks, one at a time, and notes each; `step` is the count of one tick.
    """

    job: Job
    stop: int
    delays: tuple[int, ...]
    least: int
    walk: int = 0
    step: int = 0


def make_job(image: Image, watch: Watch, most_events: int = MOST_EVENTS) -> Job:
    """The job for an image; Unsupported where there is none."""
    if max(image.pages) >= MOST_FRAMES:
        raise Unsupported(f"physical memory at or above {MOST_FRAMES * PAGE:#x}")
    registers = image.registers
    try:
        way, save = _way_out(image, watch), save_area(image, watch)
    except OutsideError:
        raise Unsupported("the image's descriptor tables are not in its memory") from None
    loaded = struct.pack(f"<{len(REGISTERS_LOADED)}Q", *(registers[name] for name in REGISTERS_LOADED))
    return Job(image, watch, way, save, loaded, bool(registers["dr7"] & _BREAKPOINTS), _messages(image.events, most_events))


def _messages(events: Sequence[Event], most: int) -> tuple[tuple[int, int], ...]:
    if len(events) > most:
        raise Unsupported(f"more than {most} events")
    if sum(event.kind is EventKind.INTERRUPT for event in events) > 1:
        raise Unsupported("several interrupts, of which the controller may hold one until an end of interrupt")
    if any(event.kind is EventKind.MACHINE_CHECK for event in events):
        raise Unsupported("machine checks")
    return tuple((_NMI_MESSAGE if event.kind is EventKind.NMI else event.vector, event.boundary) for event in events)


def _way_out(image: Image, watch: Watch) -> Way:
    registers = image.registers
    gate_at, gate = _stretch(image, watch, registers["idtr_base"] + image.end_vector * _GATE, _GATE)
    target = int.from_bytes(gate[0:2] + gate[6:12], "little")
    handler_at, handler = _stretch(image, watch, target & -PAGE, PAGE)
    return _led_out(gate_at, gate, target & -PAGE, handler_at, handler)


def _stretch(image: Image, watch: Watch, linear: int, size: int) -> tuple[int, bytes]:
    """The physical address of bytes in one page of the image, and the bytes."""
    address = watch.physical(image.pages, image.registers["cr3"], linear)
    page = None if address is None else image.pages.get(address // PAGE)
    if address is None or page is None or address % PAGE + size > PAGE:
        raise OutsideError
    return address, page[address % PAGE : address % PAGE + size]


@lru_cache(maxsize=256)
def _led_out(gate_at: int, gate: bytes, page: int, handler_at: int, handler: bytes) -> Way:
    """The way out by a gate, whose handler is in the page at a linear address; `gate_at` and `handler_at` are physical."""
    offset = _free_place(handler)
    stub = (page + offset).to_bytes(8, "little")
    led = stub[0:2] + gate[2:6] + stub[2:8] + gate[12:16]
    patches = (Patch(*divmod(gate_at, PAGE), gate, led), Patch(handler_at // PAGE, offset, handler[offset : offset + len(STUB)], STUB))
    return Way(page + offset, {patch.frame: tuple(each for each in patches if each.frame == patch.frame) for patch in patches})


def _free_place(page: bytes) -> int:
    """An offset at which filler stands: bytes of one value, in nobody's way."""
    for fill in (b"\xcc", b"\x00"):
        place = page.find(fill * (2 * _SPACE + len(STUB)), PAGE // 2)
        if place >= 0:
            return place + _SPACE
    raise Unsupported("no room for the way out in the page of the ending interrupt's handler")


def with_patches(page: bytes, patches: Sequence[Patch]) -> bytes:
    """A page of the image as the guest has it: with the patches of its frame."""
    for patch in patches:
        page = page[: patch.offset] + patch.new + page[patch.offset + len(patch.new) :]
    return page


def without_patches(page: bytes, patches: Sequence[Patch]) -> bytes:
    """A page that the guest has shown, with what the harness had put there taken out again, where it still stands."""
    for patch in patches:
        if page[patch.offset : patch.offset + len(patch.new)] == patch.new:
            page = page[: patch.offset] + patch.old + page[patch.offset + len(patch.new) :]
    return page


def changed_pages(job: Job, shown: Mapping[int, bytes]) -> dict[int, bytes]:
    """What an observation reports: pages that differ from the image's, scratch left out."""
    image, watch, patches = job.image, job.watch, job.way.patches
    found = {
        frame: watch.with_flags(frame, without_patches(page, patches.get(frame, ())))
        for frame, page in shown.items()
        if frame not in image.scratch
    }
    return {frame: page for frame, page in sorted(found.items()) if page != image.pages.get(frame)}
