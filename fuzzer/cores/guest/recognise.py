"""What happened between two boundaries of a native engine, read from the states there: which handler was entered, and why."""

from __future__ import annotations

from typing import Final

from iced_x86 import Decoder

from fuzzer.cores.guest.job import Job
from fuzzer.cores.guest.observe import Seen
from fuzzer.cores.guest.paging import OutsideError, physical, read_linear
from fuzzer.cores.guest.state import in_order
from reference.faults import exception_name
from reference.image import PAGE, Delivery, End, Step

_PUSHES_CODE: Final = frozenset({8, 10, 11, 12, 13, 14, 17})
_GATE: Final = 16
_VECTORS: Final = 256
_DEEPEST: Final = 128
"""Bytes above RSP in which the frame of an entry is looked for: the first instruction of a handler may have pushed something."""
_DEBUG, _NMI, _FIRST_INTERRUPT = 1, 2, 32


class Recogniser:
    """Makes steps of one run, in order."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._entries = _entries(job)
        self._before: Seen | None = None

    def step(self, boundary: int, seen: Seen | End) -> Step:
        """The step that ends at a boundary."""
        if isinstance(seen, End):
            values, memory = (self._before.values, self._before.memory) if self._before else (in_order(dict(self._job.image.registers)), {})
            return Step(boundary, values, memory, unseen=True, end=seen, detail="the engine's process was lost")
        before, self._before = self._before, seen
        shown = seen if seen.registers or before is None else before
        stuck = seen.halted and before is not None and before.registers == seen.registers and before.memory == seen.memory
        end = seen.end or (End.HALTED if stuck else None)
        if boundary >= self._job.image.limit and end is None:
            end = End.DID_NOT_END
        delivery = self._delivery(boundary, before, seen) if before is not None and seen.registers else None
        return Step(
            retired=boundary if end is None else max(boundary - 1, 0),
            registers=shown.values,
            memory=shown.memory,
            delivered=(delivery,) if delivery else (),
            raised=_raised(delivery, before) if delivery and before else "",
            asynchronous=bool(delivery) and delivery is not None and before is not None and _from_outside(delivery, before),
            code_bits=seen.code_bits,
            unseen=not seen.registers,
            end=end,
            detail=seen.detail,
        )

    def _delivery(self, boundary: int, before: Seen, seen: Seen) -> Delivery | None:
        """The event that was delivered since the last boundary, if its frame is still to be seen."""
        if seen.end is not None:
            return None
        cs, rip = before.registers["cs"], before.registers["rip"]
        for vector in self._entries.get(seen.registers["rip"], ()):
            for offset in range(0, _DEEPEST, 8):
                words = self._words(seen, seen.registers["rsp"] + offset)
                if len(words) == 3 and words[1] & 0xFFFF == cs and 0 <= words[0] - rip < 16:
                    below = self._words(seen, seen.registers["rsp"] + offset - 8)
                    code = below[0] if below and vector in _PUSHES_CODE else None
                    return Delivery(boundary - 1, vector, code, words[0], cs & 3)
        return None

    def _words(self, seen: Seen, linear: int) -> tuple[int, ...]:
        pages = {**self._job.image.pages, **seen.memory}
        found = []
        for number in range(3):
            address = physical(pages, seen.registers["cr3"], linear + 8 * number & (1 << 64) - 1)
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
    return delivery.vector == _NMI or delivery.vector >= _FIRST_INTERRUPT or (delivery.vector == _DEBUG and not _raised(delivery, before))


def _entries(job: Job) -> dict[int, list[int]]:
    """By address: the vectors whose handler begins there, or whose first instruction ends there."""
    image = job.image
    found: dict[int, list[int]] = {}
    for vector in range(min(_VECTORS, (image.registers["idtr_limit"] + 1) // _GATE)):
        try:
            gate = read_linear(image, image.registers["idtr_base"] + vector * _GATE, _GATE)
            handler = int.from_bytes(gate[0:2] + gate[6:12], "little")
            code = read_linear(image, handler, min(15, PAGE - handler % PAGE))
        except OutsideError:
            continue
        decoded = Decoder(64, code, ip=handler).decode()
        places = {handler, handler + decoded.len}
        if decoded.is_jmp_short_or_near:
            places.add(decoded.near_branch_target)
        for place in places:
            found.setdefault(place, []).append(vector)
    return found
