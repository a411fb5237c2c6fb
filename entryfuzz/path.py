"""The way a run took: what happened at each boundary, in words, and where event frames lie in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from entryfuzz.disassembly import LONGEST, Symbols
from fuzzer.compare import place_of
from fuzzer.view import linear_bytes, physical_of
from reference.faults import exception_name, vector_name
from reference.image import REGISTER_INDEX, REGISTERS, Delivery, End, Image, Step

FRAME: Final = ("RIP", "CS", "RFLAGS", "RSP", "SS")
"""The words of an interrupt frame from its lowest address, above the error code (SDM Vol. 3A, 7.14.2)."""
_RIP, _RSP, _CR3 = (REGISTER_INDEX[name] for name in ("rip", "rsp", "cr3"))


@dataclass(frozen=True, slots=True)
class Boundary:
    """What happened between two boundaries: an instruction ran or faulted, or an event was delivered."""

    number: int
    address: int
    code: bytes
    text: str
    image: Image
    before: Step
    after: Step

    @property
    def asynchronous(self) -> bool:
        """An event from outside was delivered; the instruction did not run."""
        return self.after.asynchronous and bool(self.after.delivered) and not self.after.raised

    @property
    def outcome(self) -> str:
        """Exceptions, deliveries and the end of the run; empty where the instruction simply ran."""
        parts = [f"raises {self.after.raised}"] if self.after.raised else []
        delivered = [_delivery(each) for each in self.after.delivered]
        if delivered and delivered != [self.after.raised]:
            parts.append(f"delivers {', '.join(delivered)}")
        if self.after.end is not None:
            parts.append(": ".join(filter(None, (self.after.end.value, self.after.detail))))
        return "; ".join(parts)

    def changed_registers(self) -> dict[str, int]:
        """Registers with another value than before; RIP only where it does not simply go on."""
        pairs = zip(REGISTERS, self.before.registers, self.after.registers, strict=False)
        changed = {name: new for name, old, new in pairs if old != new}
        if changed.get("rip") == self.address + len(self.code):
            del changed["rip"]
        return changed

    def changed_words(self) -> dict[str, int]:
        """Words of memory with another value than before, as `region+0x10`."""
        words: dict[str, int] = {}
        for frame in sorted(self.before.memory.keys() | self.after.memory.keys()):
            original = self.image.pages[frame]
            words |= _changes(frame, self.before.memory.get(frame, original), self.after.memory.get(frame, original))
        return words


def _changes(frame: int, old: bytes, new: bytes) -> dict[str, int]:
    if old == new:
        return {}
    return {
        place_of(frame << 12 | at): int.from_bytes(new[at : at + 8], "little")
        for at in range(0, len(new), 8)
        if new[at : at + 8] != old[at : at + 8]
    }


def _delivery(delivery: Delivery) -> str:
    return exception_name(delivery.vector, delivery.error_code)


def walk(image: Image, steps: Iterable[Step], symbols: Symbols) -> list[Boundary]:
    """The boundaries of a traced run, each with the instruction that stood at RIP."""
    path = []
    for number, (before, after) in enumerate(pairwise(steps)):
        if not before.registers:
            break
        address = before.registers[_RIP]
        code = linear_bytes(image, before.memory, before.registers[_CR3], address, LONGEST)
        text, length = symbols.text(code, address, before.code_bits)
        path.append(Boundary(number, address, code[:length], text, image, before, after))
    return path


def frame_words(image: Image, path: Sequence[Boundary]) -> dict[str, str]:
    """The words that event delivery pushed, by place: `thread_stack+0x1fd8` is `#GP frame: RSP`."""
    names: dict[str, str] = {}
    for boundary in path:
        if boundary.after.end is not End.ENDED and boundary.after.registers:
            names |= _frames(image, boundary.after)
    return names


def _frames(image: Image, step: Step) -> dict[str, str]:
    """The frames of one step, the last pushed first: the RSP that a frame saved is where the one before it ends."""
    names: dict[str, str] = {}
    top = step.registers[_RSP]
    for delivery in reversed(step.delivered):
        words = FRAME if delivery.error_code is None else ("error code", *FRAME)
        for number, word in enumerate(words):
            physical = physical_of(image, step.memory, step.registers[_CR3], top + 8 * number)
            if physical is not None:
                names[place_of(physical)] = f"{vector_name(delivery.vector)} frame: {word}"
        saved = linear_bytes(image, step.memory, step.registers[_CR3], top + 8 * words.index("RSP"), 8)
        top = int.from_bytes(saved, "little")
    return names
