"""The guest's memory from the host's side: the harness put in place, jobs written, results read."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from fuzzer.cores.guest import mailbox
from fuzzer.cores.guest.assemble import ENTRY, Harness
from fuzzer.cores.guest.job import Patch, Run, with_patches
from fuzzer.cores.guest.mailbox import CONTROL, RECORD
from fuzzer.cores.guest.state import harness_area
from reference.image import PAGE

_LARGE: Final = 0x20_0000
_TABLE_FLAGS: Final = 0x3
_LARGE_FLAGS: Final = 0x83
_UNCACHED: Final = 0x18
_PAGES_FOR_DEVICES: Final = 504
"""The first of the 2 MiB pages below 4 GiB that devices lie in."""
_SMI_MESSAGE: Final = 0x200
_QWORD: Final = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Result:
    """What the harness says of a run: its status, nanoseconds of the guest's clock, the save area, registers, changed frames, notes."""

    status: int
    nanoseconds: int
    save: bytes
    loaded: tuple[int, ...]
    pages: Mapping[int, bytes]
    notes: bytes = b""


class Memory(Protocol):
    """Physical memory of a guest, as its host reaches it."""

    def read(self, address: int, size: int) -> bytes:
        """Bytes at a physical address."""
        ...

    def write(self, address: int, data: bytes) -> None:
        """Put bytes at a physical address."""
        ...


class SharedMemory:
    """Memory that the engine shares with its host, as one piece."""

    def __init__(self, view: memoryview) -> None:
        self._view = view

    def read(self, address: int, size: int) -> bytes:
        """Bytes at a physical address."""
        return bytes(self._view[address : address + size])

    def write(self, address: int, data: bytes) -> None:
        """Put bytes at a physical address."""
        self._view[address : address + len(data)] = data


class GuestMemory:
    """A view of the guest's memory, which knows what lies in each frame and in the pool."""

    def __init__(self, memory: Memory, harness: Harness, *, routed: bool, repeats: bool) -> None:
        self.write = memory.write
        self._read = memory.read
        self._routed, self._repeats = routed, repeats
        self._pool: dict[tuple[int, tuple[Patch, ...]], tuple[bytes, int]] = {}
        self._next = mailbox.POOL
        self._pages: Mapping[int, bytes] = {}
        self._tables: Mapping[int, bytes] = {}
        self._patched: set[int] = set()
        """What the last job put where: pages of its image, tables of its watch, frames with patches."""
        self._places: dict[int, int | None] = {}
        self._turn = 0
        self._install(harness)

    def _install(self, harness: Harness) -> None:
        self.write(ENTRY, harness.smm)
        tables = mailbox.TABLES
        pointers, low, high = (tables + number * PAGE for number in (1, 2, 3))
        self.write(tables, _QWORD.pack(pointers | _TABLE_FLAGS))
        self.write(pointers, struct.pack("<4Q", low | _TABLE_FLAGS, 0, 0, high | _TABLE_FLAGS))
        self.write(low, b"".join(_QWORD.pack(number * _LARGE | _LARGE_FLAGS) for number in range(mailbox.MEMORY // _LARGE)))
        devices = (0xC000_0000 + number * _LARGE | _LARGE_FLAGS | _UNCACHED for number in range(_PAGES_FOR_DEVICES - 16, 512))
        self.write(high + 8 * (_PAGES_FOR_DEVICES - 16), b"".join(map(_QWORD.pack, devices)))
        for vector in range(256):
            target = harness.symbols["drain_nmi" if vector == 2 else "drain_interrupt"]
            gate = struct.pack("<HHHHII", target & 0xFFFF, 0x08, 0x8E00, target >> 16 & 0xFFFF, target >> 32, 0)
            self.write(mailbox.IDT + 16 * vector, gate)
        self.write(mailbox.TRAMPOLINE_SAVE, harness_area(mailbox.TABLES, harness.symbols["trampoline"]))
        self._control(mailbox.JOB_RECORDS, mailbox.JOB_AREA)
        self._control(mailbox.RESULTS, mailbox.RESULT_AREA)
        self._control(mailbox.OUT, mailbox.OUT_AREA)
        self._control(mailbox.OUT_END, mailbox.MEMORY)
        self._control(mailbox.ROUTED, int(self._routed))
        self._control(mailbox.REPEATS, int(self._repeats))

    def _control(self, field: int, value: int) -> None:
        self.write(CONTROL + field, _QWORD.pack(value))

    def _read_control(self, field: int) -> int:
        return int.from_bytes(self._read(CONTROL + field, 8), "little")

    # Jobs

    def put(self, number: int, run: Run) -> bool:
        """Write the job of a number; False if there is no room for its pages, which ends the batch before it."""
        job, stop = run.job, run.stop
        pages, tables, patches, last = job.image.pages, job.watch.tables, job.way.patches, self._pages
        other = {frame for frame, page in pages.items() if last.get(frame) is not page}
        other |= patches.keys() | self._patched
        if self._tables is not tables:
            other |= tables.keys() | self._tables.keys()
        found = {frame: self._place(tables.get(frame) or pages[frame], patches.get(frame, ())) for frame in sorted(other)}
        places = {frame: place for frame, place in found.items() if self._places.get(frame) != place}
        watch = self._place(job.watch.page, ()) if job.watch.entries else 0
        if watch is None or None in places.values():
            return False
        assert len(pages) == len(last) or not last, "machines of another size have a guest of their own"
        self._pages, self._tables, self._patched = pages, tables, set(patches)
        self._places |= places
        events = list(zip((message for message, _ in job.events), run.delays, strict=True))
        if self._routed:
            events.insert(0, (_SMI_MESSAGE, stop))
        at = mailbox.JOB_AREA + number * RECORD
        head = struct.pack("<4Q", len(places), len(events), stop, job.breakpoints) + job.loaded
        timers = b"".join(struct.pack("<QQ", *event) for event in events)
        looks = struct.pack("<8Q", run.least, watch, job.watch.entries, *job.watch.roots, run.walk, run.step, job.way.stub)
        frames = b"".join(struct.pack("<II", *each) for each in places.items())
        self.write(at, head.ljust(mailbox.JOB_EVENT) + timers.ljust(mailbox.JOB_LEAST - mailbox.JOB_EVENT) + looks)
        self.write(at + mailbox.JOB_LIST, frames)
        self.write(at + mailbox.JOB_SAVE, job.save)
        return True

    def _place(self, page: bytes, patches: tuple[Patch, ...]) -> int | None:
        """Where a page with patches lies in the pool."""
        known = self._pool.get((id(page), patches))
        if known is not None:
            return known[1]
        if self._next + PAGE > mailbox.OUT_AREA:
            return None
        place, self._next = self._next, self._next + PAGE
        self.write(place, with_patches(page, patches))
        self._pool[id(page), patches] = (page, place)  # with the page, so that nothing else gets its identity
        return place

    def forget(self) -> None:
        """Empty the pool: the next job loads all of its pages."""
        self._pool.clear()
        self._pages, self._tables, self._patched = {}, {}, set()
        self._places.clear()
        self._next = mailbox.POOL

    def begin(self, jobs: int) -> None:
        """Let the guest run the jobs that were put."""
        self._control(mailbox.JOBS, jobs)
        self._control(mailbox.INDEX, 0)
        self._control(mailbox.FINISHED, 0)
        self._turn += 1
        self._control(mailbox.TURN, self._turn)

    def done(self) -> bool:
        """Whether the guest has come to the end of its turn."""
        return self._read_control(mailbox.DONE) == self._turn

    def missed(self) -> bool:
        """Whether the harness has proved, at the end of its turn, that a watch told less than was written."""
        missed = bool(self._read_control(mailbox.MISSED))
        if missed:
            self._control(mailbox.MISSED, 0)
        return missed

    def progress(self) -> int:
        """The number of the job that runs."""
        return self._read_control(mailbox.INDEX)

    def booted(self) -> bool:
        """Whether the harness has taken over the machine."""
        return self._read_control(mailbox.BOOTS) > 0

    def cut(self, jobs: int) -> None:
        """Let the turn end when so many of its jobs have run."""
        self._control(mailbox.JOBS, jobs)

    def note_stalled(self, number: int) -> None:
        """Let the result of a job say that the host has reset the machine in it."""
        self.write(mailbox.RESULT_AREA + number * RECORD, _QWORD.pack(mailbox.STATUS_STALLED))

    def finished(self) -> int:
        """How many of the jobs have run."""
        return self._read_control(mailbox.FINISHED)

    def result(self, number: int) -> Result:
        """The result of a job that has run."""
        at = mailbox.RESULT_AREA + number * RECORD
        record = self._read(at, RECORD)
        status, nanoseconds, pages = struct.unpack_from("<3Q", record)
        loaded = struct.unpack_from(f"<{len(mailbox.REGISTERS_LOADED)}Q", record, mailbox.RESULT_REGISTERS)
        shown = {}
        for index in range(pages):
            frame, place = struct.unpack_from("<II", record, mailbox.RESULT_LIST + 8 * index)
            shown[frame] = self._read(place, PAGE)
        walk, walked = struct.unpack_from("<QQ", record, mailbox.RESULT_WALK)
        notes = self._read(walk, walked << mailbox.WALK_SHIFT) if walked else b""
        return Result(status, nanoseconds, record[mailbox.RESULT_SAVE :], loaded, shown, notes)
