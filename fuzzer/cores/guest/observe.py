"""From a result of the harness to what a core reports: how the run ended, and every register as it was then."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fuzzer.cores.guest.job import STUB, Job, changed_pages
from fuzzer.cores.guest.mailbox import STATUS_SHUTDOWN, STATUS_STALLED
from fuzzer.cores.guest.memory import Result
from fuzzer.cores.guest.state import code_bits, cpl, in_order, registers_of
from reference.image import PAGE, End, Observation

_FIRST_OUT, _SECOND_OUT = 2, len(STUB) - 2
"""Bytes of the stub that have run when the SMI comes: the second OUT is needed where the chipset ignores the first. A run that is stopped
right behind the ending interrupt has run none of it."""
_ADDED: Final = 0x20
"""What the stub has added to AL by then."""
_HLT: Final = 0xF4
_RESETS: Final = {STATUS_SHUTDOWN: End.SHUTDOWN, STATUS_STALLED: End.DID_NOT_END}
"""What is seen of machines of which nothing is left; a fault that is delivered for ever stops the guest's clock too."""
_FRAME: Final = struct.Struct("<5Q")
_AT_END: Final = ("rip", "cs", "rflags", "rsp", "ss")


@dataclass(frozen=True, slots=True)
class Seen:
    """A machine as the harness found it. `end` is None where the run was stopped."""

    end: End | None
    registers: Mapping[str, int]
    memory: Mapping[int, bytes]
    halted: bool
    code_bits: int
    detail: str = ""

    @property
    def values(self) -> tuple[int, ...]:
        """Registers in the order of REGISTERS; none of a machine that has shut down."""
        return in_order(dict(self.registers)) if self.registers else ()


def see(job: Job, result: Result) -> Seen:
    """What a result shows of the machine."""
    if result.status in _RESETS:
        return Seen(_RESETS[result.status], {}, {}, halted=False, code_bits=64)
    registers = registers_of(result.save, result.loaded)
    pages = {**job.image.pages, **result.pages}
    memory = changed_pages(job, result.pages)
    passed = registers["rip"] - job.way.stub
    if passed in (0, _FIRST_OUT, _SECOND_OUT) and cpl(result.save) == 0:
        if passed == _SECOND_OUT:
            registers["rax"] = registers["rax"] & ~0xFF | registers["rax"] - _ADDED & 0xFF
        frame = _read(job, pages, registers["cr3"], registers["rsp"], _FRAME.size)
        if frame is None:
            return Seen(End.UNSUPPORTED, registers, memory, False, 64, "the frame of the ending interrupt is nowhere to be read")
        registers.update(zip(_AT_END, _FRAME.unpack(frame), strict=True))
        return Seen(End.ENDED, registers, memory, halted=False, code_bits=64)
    behind = _read(job, pages, registers["cr3"], registers["rip"] - 1, 1)
    halted = behind is not None and behind[0] == _HLT and cpl(result.save) == 0
    return Seen(None, registers, memory, halted, code_bits(result.save))


def _read(job: Job, pages: Mapping[int, bytes], cr3: int, linear: int, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        address = job.watch.physical(pages, cr3, linear + len(data))
        page = None if address is None else pages.get(address // PAGE)
        if address is None or page is None:
            return None
        data += page[address % PAGE :][: size - len(data)]
    return data


def observation(job: Job, result: Result) -> Observation:
    """The observation of a run that was given its whole limit of boundaries."""
    seen = see(job, result)
    end = seen.end or (End.HALTED if seen.halted else End.DID_NOT_END)
    return Observation(end, seen.values, seen.memory, detail=seen.detail)
