"""What a promise is judged on: a moment of a run, and the machine, the entry code and the open entry at that moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from reference.linux.contexts import Context, Guard
from reference.linux.entry_code import EntryCode, Handler, Origin
from reference.linux.look import Look
from reference.machine import RDI, Machine


class When(Enum):
    """The moments at which promises are due."""

    ENTRY = "the processor has delivered an event"
    SWAPGS = "SWAPGS was executed outside a C handler"
    HANDLER = "a C handler begins"
    SCHEDULE = "the scheduler is called"
    RETURN = "the entry has returned"
    FAILED_RETURN = "the IRET to user mode has faulted"


NOBODY: Final = Handler("no handler", Origin.EXCEPTION)


@dataclass(frozen=True, slots=True)
class Moment:
    """The machine `m` with an entry open: `context` is that entry, `outer` are those that it interrupted, outermost first."""

    m: Machine
    code: EntryCode
    look: Look
    context: Context
    outer: tuple[Context, ...] = ()
    handler: Handler = NOBODY
    """The one that begins, at When.HANDLER."""

    def pt_regs(self) -> dict[str, int] | None:
        """The structure that RDI points to, None if it points nowhere."""
        return pt_regs(self.m, self.code, self.look, self.m.gpr[RDI])

    def changed(self, guard: Guard) -> str:
        """The first word of guarded memory that is not what it was, or ''."""
        size = len(guard.data)
        now = self.look.read(self.m, guard.start, size)
        if now == guard.data or now is None:
            return ""
        offset = next(n for n in range(size) if now[n] != guard.data[n])
        start = max(offset - (guard.start + offset) % 8, 0)
        old, new = (int.from_bytes(data[start : start + 8], "little") for data in (guard.data, now))
        return f"the word at {guard.start + start:#x} is {new:#x}, was {old:#x}"


def pt_regs(m: Machine, code: EntryCode, look: Look, address: int) -> dict[str, int] | None:
    """The fields of the pt_regs at `address`, None where nothing is mapped."""
    words = look.words(m, address, max(code.pt_regs.values()) // 8 + 1)
    return None if words is None else {name: words[offset >> 3] for name, offset in code.pt_regs.items()}


@dataclass(frozen=True, slots=True)
class Promise:
    """What entry code guarantees, in words and as a predicate: `broken` says what is wrong, or ''."""

    name: str
    text: str
    source: str
    when: tuple[When, ...]
    broken: Callable[[Moment], str]


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that did not hold: after `boundary` retired instructions, by the instruction at `rip`."""

    promise: str
    boundary: int
    rip: int
    text: str
