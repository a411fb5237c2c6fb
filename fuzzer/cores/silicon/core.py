"""The core `silicon`: the host's own processor in user mode, asked for the first event of a case."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from fuzzer.cores.core import CoreError
from fuzzer.cores.silicon import exchange as at
from fuzzer.cores.silicon.event import FIELDS, FirstEvent, Kind
from fuzzer.cores.silicon.host import GDT_DESCRIPTORS, LDT_DESCRIPTORS, TEMPLATE, Host, HostImage
from fuzzer.cores.silicon.probe import processor
from fuzzer.cores.silicon.process import Process
from fuzzer.targets.layout import END_VECTOR, USER32_CS
from reference.faults import VECTORS, Vector
from reference.image import GPRS, PAGE, REGISTERS, Delivery, End, Image, Observation, Step

_BEFORE: Final = struct.Struct("<16Q 5Q 4Q 2Q Q 16s")
_BEFORE_NAMES: Final = (*GPRS, "rip", "cs", "rflags", "rsp", "ss", "ds", "es", "fs", "gs", "fs_base", "gs_base")
_AFTER: Final = struct.Struct("<26Q Q 4Q")
_AFTER_AT: Final = at.NUMBERS["OUT_GPR"]
_SIGSYS, _SIGUSR1 = 31, 10
_END_ERROR: Final = END_VECTOR << 3 | 2


class SiliconCore:
    """Runs user mode of cases on the processor that runs this program; what follows the first event it cannot say."""

    name = "silicon"
    delivers_events = True

    def __init__(self) -> None:
        found = processor()
        if found is None or found.profile is None:
            raise CoreError("silicon: this host's processor is none of those that there are profiles of")
        self.version = found.version
        self.profile = found.profile
        self.hypervisor = "hypervisor" in found.flags
        """There is a machine below this one: some debug exceptions come from it."""
        self._process = Process(TEMPLATE, GDT_DESCRIPTORS, LDT_DESCRIPTORS)
        self.host = Host(found.profile, "umip" in found.flags, *self._process.cpu_segment)

    def first(self, images: Iterable[HostImage]) -> Iterator[FirstEvent]:
        """The first event of each image that `host.fit` made."""
        waiting = iter(images)
        while batch := list(islice(waiting, at.SLOT_COUNT)):
            yield from self._batch(batch)

    def run(self, images: Sequence[Image]) -> Iterator[Observation]:
        """Observations that are never compared with those of a whole run: user mode up to the first event, and no further."""
        for image in images:
            fitted = self.host.fit(image)
            if isinstance(fitted, str):
                yield Observation(End.UNSUPPORTED, detail=fitted)
            else:
                yield _observation(image, next(self.first([fitted])))

    def trace(self, image: Image) -> Iterator[Step]:
        """No steps: the processor shows its first event only."""
        return iter(())

    def close(self) -> None:
        """End the process that cases run in."""
        self._process.close()

    def _batch(self, batch: Sequence[HostImage]) -> list[FirstEvent]:
        for number, each in enumerate(batch):
            self._write(at.SLOTS + number * at.SLOT_SIZE, each)
        self._process.run(len(batch))
        return [self._read(at.SLOTS + number * at.SLOT_SIZE) for number in range(len(batch))]

    def _write(self, slot: int, each: HostImage) -> None:
        """A case into its slot; pages that are the usual ones stay where they are."""
        shared, pages, registers = self._process.shared, each.image.pages, each.image.registers
        mask = 0
        for number, (frame, usual) in enumerate(zip(at.USER_FRAMES, TEMPLATE, strict=True)):
            page = pages[frame]
            if page is not usual:
                mask |= 1 << number
                start = slot + at.SLOT_IN_PAGES + number * PAGE
                shared[start : start + PAGE] = page
        values = [registers[name] for name in _BEFORE_NAMES]
        _BEFORE.pack_into(shared, slot, *values, mask, bytes(each.protections))

    def _read(self, slot: int) -> FirstEvent:
        shared = self._process.shared
        *registers, dirty, signal, vector, error, cr2 = _AFTER.unpack_from(shared, slot + _AFTER_AT)
        memory = {}
        if dirty:
            for number, frame in enumerate(at.USER_FRAMES):
                if dirty >> number & 1:
                    start = slot + at.SLOT_OUT_PAGES + number * PAGE
                    memory[frame] = shared[start : start + PAGE]
        return _event(tuple(registers), memory, signal, vector, error, cr2)


_RIP, _CS = FIELDS.index("rip"), FIELDS.index("cs")


def _event(registers: tuple[int, ...], memory: dict[int, bytes], signal: int, vector: int, error: int, cr2: int) -> FirstEvent:
    """What the kernel said, in the processor's words."""
    if registers[_RIP] >> 32 == at.TEXT >> 32:
        return FirstEvent(Kind.OPEN, detail="the processor refuses to begin there")
    if signal == _SIGUSR1:
        return FirstEvent(Kind.NONE, registers=registers, memory=memory)
    if signal == _SIGSYS:
        if registers[_CS] == USER32_CS:
            return FirstEvent(Kind.OPEN, detail="a system call of 32-bit code, whose registers the kernel changes")
        return FirstEvent(Kind.CALL, registers=registers, memory=memory)
    if vector == Vector.GP and error == _END_ERROR:
        return FirstEvent(Kind.END, registers=registers, memory=memory)
    pushed = error if vector in VECTORS and VECTORS[vector].pushes_error else None
    return FirstEvent(Kind.EXCEPTION, vector, pushed, cr2 if vector == Vector.PF else None, registers, memory)


def _observation(image: Image, event: FirstEvent) -> Observation:
    """The machine at the first event, as far as user mode sees it; the rest is the image's."""
    seen = {**image.registers, **dict(zip(FIELDS, event.registers, strict=False))}
    deliveries = (Delivery(-1, event.vector, event.error_code, seen["rip"], 3),) if event.kind is Kind.EXCEPTION else ()
    detail = f"user mode up to its first event: {event.words}"
    return Observation(End.UNSUPPORTED, tuple(seen[name] for name in REGISTERS), event.memory, deliveries, detail)
