"""An image as a job of the harness: its pages with a way out of the run in them, its registers, its events as timers."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fuzzer.cores.guest.mailbox import MOST_EVENTS, MOST_FRAMES, REGISTERS_LOADED
from fuzzer.cores.guest.paging import OutsideError, physical, read_linear
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
    patches: tuple[Patch, ...]


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


def make_job(image: Image, watch: Watch, most_events: int = MOST_EVENTS) -> Job:
    """The job for an image; Unsupported where there is none."""
    if max(image.pages) >= MOST_FRAMES:
        raise Unsupported(f"physical memory at or above {MOST_FRAMES * PAGE:#x}")
    registers = image.registers
    try:
        way, save = _way_out(image), save_area(image)
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


def _way_out(image: Image) -> Way:
    registers, vector = image.registers, image.end_vector
    at = registers["idtr_base"] + vector * _GATE
    gate = read_linear(image, at, _GATE)
    target = int.from_bytes(gate[0:2] + gate[6:12], "little")
    stub = _free_place(image, target)
    patched = stub.to_bytes(8, "little")
    led = patched[0:2] + gate[2:6] + patched[2:8] + gate[12:16]
    return Way(stub, (_patch(image, at, led), _patch(image, stub, STUB)))


def _free_place(image: Image, target: int) -> int:
    """A linear address in the page of the gate's handler at which filler stands: bytes of one value, in nobody's way."""
    page = target & -PAGE
    data = read_linear(image, page, PAGE)
    for fill in (b"\xcc", b"\x00"):
        place = data.find(fill * (2 * _SPACE + len(STUB)), PAGE // 2)
        if place >= 0:
            return page + place + _SPACE
    raise Unsupported("no room for the way out in the page of the ending interrupt's handler")


def _patch(image: Image, linear: int, new: bytes) -> Patch:
    address = physical(image.pages, image.registers["cr3"], linear)
    if address is None or address % PAGE + len(new) > PAGE:
        raise OutsideError
    frame, offset = divmod(address, PAGE)
    return Patch(frame, offset, image.pages[frame][offset : offset + len(new)], new)


def with_patches(page: bytes, patches: Sequence[Patch]) -> bytes:
    """A page of the image as the guest has it: with the patches of its frame."""
    for patch in patches:
        page = page[: patch.offset] + patch.new + page[patch.offset + len(patch.new) :]
    return page


def without_patches(frame: int, page: bytes, patches: Sequence[Patch]) -> bytes:
    """A page that the guest has shown, with what the harness had put there taken out again, where it still stands."""
    for patch in patches:
        if patch.frame == frame and page[patch.offset : patch.offset + len(patch.new)] == patch.new:
            page = page[: patch.offset] + patch.old + page[patch.offset + len(patch.new) :]
    return page


def changed_pages(job: Job, shown: Mapping[int, bytes]) -> dict[int, bytes]:
    """What an observation reports: pages that differ from the image's, scratch left out."""
    image, watch, patches = job.image, job.watch, job.way.patches
    found = {
        frame: watch.with_flags(frame, without_patches(frame, page, patches)) for frame, page in shown.items() if frame not in image.scratch
    }
    return {frame: page for frame, page in sorted(found.items()) if page != image.pages.get(frame)}
