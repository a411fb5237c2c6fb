"""What happened between two boundaries of a native engine, read from the states there: which handler was entered, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from iced_x86 import Decoder

from fuzzer.cores.guest.job import Job
from fuzzer.cores.guest.observe import Seen
from fuzzer.cores.guest.paging import OutsideError, read_linear
from fuzzer.cores.guest.state import in_order
from reference.faults import exception_name
from reference.image import PAGE, Delivery, End, Step

_PUSHES_CODE: Final = frozenset({8, 10, 11, 12, 13, 14, 17})
_GATE: Final = 16
_VECTORS: Final = 256
_LONGEST: Final = 15
_DEEPEST: Final = 128
"""Bytes above RSP in which the frame of an entry is looked for: the first instruction of a handler may have pushed something."""
_DEBUG, _NMI, _FIRST_INTERRUPT = 1, 2, 32


class Recogniser:
    """Makes steps of one run, from what is seen of it tick by tick.

    A tick of the engine's clock is an instruction, but not only: an engine may count an instruction that faulted, and the look at RCX
    that ends a repeated one. `retired` counts as the architecture does.
    """

    def __init__(self, job: Job, entered: Mapping[int, Sequence[int]]) -> None:
        """`entered` is what `entries` says of the job."""
        self._job = job
        self._handlers = _handlers(job)
        self._entries = entered
        self._before: Seen | None = None
        self._held: Delivery | None = None
        """A debug trap that was taken with the instruction before it, in one tick: the boundary between them is not to be seen."""
        self.retired = -1

    def step(self, seen: Seen | End) -> Step | None:
        """The step that the next tick makes; None where it stands between two boundaries."""
        before = self._before
        if isinstance(seen, End) or not seen.registers:
            return self._unseen(seen if isinstance(seen, End) else seen.end or End.DID_NOT_END)
        if before is not None and seen.end is None and (self._is_spent_repeat(before, seen) or self._is_clock_only(before, seen)):
            return None
        self._before = seen
        delivery = self._delivery(before, seen) if before is not None else None
        raised = _raised(delivery, before) if delivery and before else ""
        outside = delivery is not None and before is not None and _from_outside(delivery, before)
        end = seen.end or (End.HALTED if before is not None and _stands_still(before, seen) else None)
        entered = delivery is not None and seen.registers["rip"] in self._handlers and bool(raised or outside)
        trapped = entered and before is not None and delivery is not None and delivery.rip != before.registers["rip"]
        if end is None and (trapped or not entered):
            self.retired += 1
        if trapped and end is None:
            self._held = delivery
            return None
        held, self._held = self._held, None
        outside = outside or held is not None
        if end is None and self.retired >= self._job.image.limit:
            end = End.DID_NOT_END
        return Step(
            retired=max(self.retired, 0),
            registers=seen.values,
            memory=seen.memory,
            delivered=tuple(each for each in (held, delivery) if each),
            raised=raised,
            asynchronous=outside,
            code_bits=seen.code_bits,
            end=end,
            detail=seen.detail,
        )

    def pass_by(self) -> None:
        """The next tick is that of the next boundary, and nothing of it has to be seen."""
        self.retired += 1

    def stand_at(self, seen: Seen, retired: int) -> None:
        """Go on from a tick that is a boundary, and of which this is seen."""
        self._before, self.retired = seen, retired

    def _unseen(self, end: End) -> Step:
        """The end of a run of whose machine nothing is left to look at."""
        last = self._before
        values, memory = (last.values, last.memory) if last else (in_order(dict(self._job.image.registers)), {})
        return Step(max(self.retired, 0), values, memory, unseen=True, end=end)

    def _is_spent_repeat(self, before: Seen, seen: Seen) -> bool:
        """All iterations of a repeated instruction are done, and only the engine has yet to notice."""
        if seen.registers["rip"] != before.registers["rip"] or seen.registers["rcx"] or not before.registers["rcx"]:
            return False
        return self._words(seen, seen.registers["rip"])[0:1] != () and _repeats(self._words(seen, seen.registers["rip"])[0])

    def _is_clock_only(self, before: Seen, seen: Seen) -> bool:
        """Nothing has moved but the clock: QEMU counts instructions behind INTO in 32-bit code that it never executes."""
        if seen.halted or before.registers != seen.registers or before.memory != seen.memory:
            return False
        return not _jumps_to_itself(seen.registers["rip"], _code(self._job, seen.registers["rip"]), seen.code_bits)

    def _delivery(self, before: Seen, seen: Seen) -> Delivery | None:
        """The event that was delivered since the last tick, if its frame is still to be seen."""
        cs, rip = before.registers["cs"], before.registers["rip"]
        for vector in self._entries.get(seen.registers["rip"], ()):
            for offset in range(0, _DEEPEST, 8):
                words = self._words(seen, seen.registers["rsp"] + offset)
                if len(words) == 3 and words[1] & 0xFFFF == cs and 0 <= words[0] - rip < 16:
                    below = self._words(seen, seen.registers["rsp"] + offset - 8)
                    code = below[0] if below and vector in _PUSHES_CODE else None
                    return Delivery(self.retired, vector, code, words[0], cs & 3)
        return None

    def _words(self, seen: Seen, linear: int) -> tuple[int, ...]:
        pages = {**self._job.image.pages, **seen.memory}
        found = []
        for number in range(3):
            address = self._job.watch.physical(pages, seen.registers["cr3"], linear + 8 * number & (1 << 64) - 1)
            page = None if address is None else pages.get(address // PAGE)
            if address is None or page is None:
                break
            found.append(int.from_bytes(page[address % PAGE : address % PAGE + 8], "little"))
        return tuple(found)


def _raised(delivery: Delivery, before: Seen) -> str:
    """The name of a fault: what returns to the instruction that met it, and is no event from outside."""
    if delivery.rip != before.registers["rip"] or delivery.vector == _NMI or delivery.vector >= _FIRST_INTERRUPT:
        return ""
    return exception_name(delivery.vector, delivery.error_code)


def _from_outside(delivery: Delivery, before: Seen) -> bool:
    """An event that no instruction caused: one from outside returns to where it came, a debug trap is told by not being a fault."""
    if delivery.vector == _DEBUG:
        return not _raised(delivery, before)
    return delivery.rip == before.registers["rip"] and (delivery.vector == _NMI or delivery.vector >= _FIRST_INTERRUPT)


def _stands_still(before: Seen, seen: Seen) -> bool:
    return seen.halted and before.registers == seen.registers and before.memory == seen.memory


def _repeats(code: int) -> bool:
    """Whether these bytes, the first in the lowest ones, are a string instruction with a REP prefix."""
    return Decoder(64, code.to_bytes(8, "little")).decode().has_rep_prefix


def _handlers(job: Job) -> Mapping[int, Sequence[int]]:
    """The vectors whose handler begins at an address."""
    registers = job.image.registers
    size = min(registers["idtr_limit"] + 1, PAGE, _VECTORS * _GATE)
    try:
        return _targets(read_linear(job.image, registers["idtr_base"], size // _GATE * _GATE))
    except OutsideError:
        return {}


@lru_cache(maxsize=64)
def _targets(idt: bytes) -> Mapping[int, Sequence[int]]:
    found: dict[int, list[int]] = {}
    for vector in range(len(idt) // _GATE):
        gate = idt[vector * _GATE : (vector + 1) * _GATE]
        found.setdefault(int.from_bytes(gate[0:2] + gate[6:12], "little"), []).append(vector)
    return found


def entries(job: Job) -> Mapping[int, Sequence[int]]:
    """The vectors by their handlers' addresses, and by those at which a handler has executed its first instruction."""
    handlers = _handlers(job)
    found = {address: list(vectors) for address, vectors in handlers.items()}
    for address, vectors in handlers.items():
        code = _code(job, address)
        if not code:
            continue
        found.setdefault(_following(address, code), []).extend(vectors)
    return found


def _code(job: Job, linear: int) -> bytes:
    """As many bytes as an instruction can have, if they are in one page."""
    address = job.watch.physical(job.image.pages, job.image.registers["cr3"], linear)
    return b"" if address is None else job.image.pages.get(address // PAGE, b"")[address % PAGE :][:_LONGEST]


@lru_cache(maxsize=1024)
def _following(address: int, code: bytes) -> int:
    decoded = Decoder(64, code, ip=address).decode()
    return decoded.near_branch_target if decoded.is_jmp_short_or_near else address + decoded.len


@lru_cache(maxsize=1024)
def _jumps_to_itself(address: int, code: bytes, code_bits: int) -> bool:
    return Decoder(code_bits, code, ip=address).decode().near_branch_target == address
