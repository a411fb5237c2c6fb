"""What Unicorn leaves to its user: entering an interrupt handler. The adapter's own reading of SDM Vol. 3A, chapter 7.

Nothing here may come from the specification: a helper shared by both sides would be a mistake shared by both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from unicorn import x86_const

from fuzzer.cores.unicorn import blob
from fuzzer.cores.unicorn.engine import Engine
from fuzzer.cores.unicorn.registers import Batch
from fuzzer.cores.unicorn.walk import GuestFaultError, Walker
from reference.faults import exception_name
from reference.image import Delivery

MASK: Final = (1 << 64) - 1
TF, IF, NT, RF, VM = 1 << 8, 1 << 9, 1 << 14, 1 << 16, 1 << 17
GENERAL_DETECT: Final = 1 << 13
PUSHES_CODE: Final = frozenset({8, 10, 11, 12, 13, 14, 17})
CONTRIBUTORY: Final = frozenset({0, 10, 11, 12, 13})


_STATE: Final = Batch(("rflags", "rsp", "rip", "cr0", "cr3", "cr4", "efer", "gdtr_base", "gdtr_limit", "idtr_base", "idtr_limit"))


class ShutdownError(Exception):
    """An exception while entering the double-fault handler."""


class EndedError(Exception):
    """The reserved software interrupt could be entered: the run is over."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """An event at the door: `software` for INT n and INT3, `asynchronous` for interrupts and NMIs."""

    vector: int
    rip: int
    error_code: int = 0
    software: bool = False
    asynchronous: bool = False
    resume: bool = False
    """RF is set in the saved RFLAGS."""


class Doorman:
    """Enters handlers for one engine: checks the gate, picks the stack, pushes the frame, switches CPL.

    The public methods are one rule each: a subclass that overrides one is a core with one planted mistake (`machine.Parts`).
    """

    def __init__(self, engine: Engine, walker: Walker, end_vector: int) -> None:
        self._engine = engine
        self._walker = walker
        self._end_vector = end_vector
        self.deliveries: list[Delivery] = []
        self.refused = ""
        """The exception that kept a software interrupt from being entered."""

    def _look(self) -> None:
        """Take the state that delivery depends on."""
        engine = self._engine
        engine.save()
        values = _STATE.read(engine.library.uc_reg_read_batch, engine.handle)
        self.rflags, self.rsp, self.rip = values[:3]
        self._walker.set_rules(*values[3:7])
        self.gdt, self.gdt_limit, self.idt, self.idt_limit = values[7:]
        (hflags,) = engine.peek("<I", blob.HFLAGS)
        self.hflags: int = hflags
        self.cpl: int = hflags & blob.HFLAG_CPL

    def enter(self, arrival: Arrival, boundary: int) -> None:
        """Deliver an event, or what its delivery runs into (SDM Vol. 3A, Table 7-5). Raises EndedError or ShutdownError."""
        self._look()
        while True:
            try:
                self._enter(arrival, boundary)
                return
            except GuestFaultError as fault:
                arrival = self._combine(arrival, fault)

    def _combine(self, first: Arrival, fault: GuestFaultError) -> Arrival:
        if fault.address is not None:
            self._engine.write(x86_const.UC_X86_REG_CR2, fault.address)
        if first.software:
            self._engine.write(x86_const.UC_X86_REG_RIP, self.instruction)
            self.refused = exception_name(fault.vector, fault.error_code)
        self._engine.save()
        external = first.software or first.asynchronous
        if first.vector == 8 and not external:
            raise ShutdownError
        serious = not external and (
            (first.vector in CONTRIBUTORY and fault.vector in CONTRIBUTORY)
            or (first.vector == 14 and (fault.vector == 14 or fault.vector in CONTRIBUTORY))
        )
        # A software interrupt that cannot be entered is a fault of the instruction, which stands before its end.
        if serious:
            return Arrival(8, self._interrupted(first))
        return Arrival(fault.vector, self._interrupted(first), fault.error_code, resume=True)

    def _interrupted(self, first: Arrival) -> int:
        return self.instruction if first.software else first.rip

    _code_place: int = 0
    """Where the descriptor of the handler's code segment stands."""
    instruction: int = 0
    """Address of the software interrupt being delivered."""

    def _enter(self, arrival: Arrival, boundary: int) -> None:
        ext = 0 if arrival.software else 1
        low, high = self._gate(arrival, ext)
        code, new_cpl = self._code_segment(low >> 16 & 0xFFFF, ext)
        stack = self.stack_pointer(low >> 32 & 7, new_cpl, ext)
        target = low & 0xFFFF | low >> 32 & 0xFFFF_0000 | (high & 0xFFFF_FFFF) << 32
        words = self.frame(arrival)
        top = stack - 8 * len(words) & MASK
        if not (_canonical(top) and _canonical(stack - 1 & MASK)):
            raise GuestFaultError(12, ext)
        if not _canonical(target):
            raise GuestFaultError(13, ext)
        if arrival.software and arrival.vector == self._end_vector:
            raise EndedError
        self._walker.check_write(stack - 8 & MASK, 8)
        self._walker.check_write(top, 8)
        if not code >> 40 & 1:
            self._walker.write(self._code_place + 5 & MASK, bytes([(code >> 40 | 1) & 0xFF]))
            code |= 1 << 40
        self._walker.write(top, b"".join(word.to_bytes(8, "little") for word in reversed(words)))
        self.deliveries.append(Delivery(boundary, arrival.vector, self.pushed_error(arrival), arrival.rip, self.cpl))
        trap_gate = bool(low >> 40 & 1)
        self._switch(low >> 16 & 0xFFFF, code, new_cpl, target, top, trap_gate)
        if arrival.vector == 1 and not arrival.software:
            self._clear_general_detect()

    def _gate(self, arrival: Arrival, ext: int) -> tuple[int, int]:
        error = self.gate_error(arrival.vector, ext)
        if arrival.vector * 16 + 15 > self.idt_limit:
            raise GuestFaultError(13, error)
        place = self.idt + arrival.vector * 16 & MASK
        low, high = self._walker.read(place, 8), self._walker.read(place + 8 & MASK, 8)
        if low >> 40 & 0x1F not in (0xE, 0xF):
            raise GuestFaultError(13, error)
        if arrival.software and low >> 45 & 3 < self.cpl:
            raise GuestFaultError(13, error)
        if not low >> 47 & 1:
            raise GuestFaultError(11, error)
        return low, high

    def _code_segment(self, selector: int, ext: int) -> tuple[int, int]:
        """(descriptor, CPL of the handler)."""
        if selector < 4:
            raise GuestFaultError(13, ext)
        error = self.selector_error(selector, ext)
        descriptor = self._descriptor(selector, error)
        access = descriptor >> 40 & 0xFF
        dpl = access >> 5 & 3
        is_code = access & 0x18 == 0x18
        if not is_code or dpl > self.cpl:
            raise GuestFaultError(13, error)
        if not access & 0x80:
            raise GuestFaultError(11, error)
        if descriptor >> 53 & 3 != 1:
            raise GuestFaultError(13, error)
        return descriptor, self.cpl if access & 4 else dpl

    def _descriptor(self, selector: int, error: int) -> int:
        base, limit = self.gdt, self.gdt_limit
        if selector & 4:
            table, _, base, limit, _ = self._engine.peek("<IIQII", blob.LDTR)
            if table & ~3 == 0:
                raise GuestFaultError(13, error)
        if (selector | 7) > limit:
            raise GuestFaultError(13, error)
        place = base + (selector & ~7) & MASK
        self._code_place = place
        return self._walker.read(place, 8)

    def gate_error(self, vector: int, ext: int) -> int:
        """The error code that names a gate: its vector, the IDT bit and EXT (SDM Vol. 3A, 7.13)."""
        return vector * 8 + 2 + ext

    def selector_error(self, selector: int, ext: int) -> int:
        """The error code that names a descriptor: its selector without RPL, and EXT (SDM Vol. 3A, 7.13)."""
        return selector & ~3 | ext

    def stack_pointer(self, ist: int, new_cpl: int, ext: int) -> int:
        """The RSP that the frame is pushed from."""
        offset = self.stack_slot(ist, new_cpl)
        if offset is None:
            return self.aligned(self.rsp)
        selector, _, base, limit, _ = self._engine.peek("<IIQII", blob.TR)
        if offset + 7 > limit:
            raise GuestFaultError(10, self.selector_error(selector, ext))
        return self.aligned(self._walker.read(base + offset & MASK, 8))

    def stack_slot(self, ist: int, new_cpl: int) -> int | None:
        """Where in the TSS the new RSP stands; None to stay on the stack (SDM Vol. 3A, 7.14.2, 7.14.5 and Figure 8-11)."""
        if ist:
            return 0x24 + 8 * (ist - 1)
        return None if new_cpl == self.cpl else 4 + 8 * new_cpl

    def aligned(self, rsp: int) -> int:
        """The stack as the frame begins on it: at 16 bytes (SDM Vol. 3A, 7.14.2)."""
        return rsp & ~15

    def frame(self, arrival: Arrival) -> list[int]:
        """What is pushed, first word first."""
        selectors = [self._engine.peek("<H", blob.SEGMENTS + blob.SEGMENT_SIZE * n)[0] for n in (2, 1)]
        words = [selectors[0], self.rsp, self.saved_flags(arrival), selectors[1], arrival.rip]
        error_code = self.pushed_error(arrival)
        return words if error_code is None else [*words, error_code]

    def pushed_error(self, arrival: Arrival) -> int | None:
        """The error code in the frame, if there is one."""
        has_code = arrival.vector in PUSHES_CODE and not arrival.software and not arrival.asynchronous
        return arrival.error_code if has_code else None

    def saved_flags(self, arrival: Arrival) -> int:
        """RFLAGS in the frame: with RF where the instruction is to run again, without it for INT n (SDM Vol. 3B, 18.3.1.1)."""
        if arrival.software:
            return self.rflags & ~RF
        return self.rflags | RF if arrival.resume else self.rflags

    def cleared_flags(self, trap_gate: bool) -> int:
        """The bits of RFLAGS that the handler begins without (SDM Vol. 3A, 7.12.1.3)."""
        return TF | NT | RF | VM | (0 if trap_gate else IF)

    def _switch(self, selector: int, descriptor: int, new_cpl: int, target: int, rsp: int, trap_gate: bool) -> None:
        """Make the engine stand at the handler's first instruction."""
        engine = self._engine
        engine.poke("24s", blob.SEGMENTS + blob.SEGMENT_SIZE, blob.segment_cache(selector & ~3 | new_cpl, descriptor, base=0))
        if new_cpl != self.cpl:
            engine.poke("24s", blob.SEGMENTS + 2 * blob.SEGMENT_SIZE, blob.segment_cache(new_cpl, new_cpl << 45))
        (eflags,) = engine.peek("<Q", blob.EFLAGS)
        engine.poke("<Q", blob.EFLAGS, eflags & ~self.cleared_flags(trap_gate))
        engine.poke("<I", blob.HFLAGS, blob.handler_hflags(self.hflags, new_cpl))
        engine.poke("<Q", 8 * 4, rsp)
        engine.poke("<Q", blob.RIP, target)
        engine.restore()

    def _clear_general_detect(self) -> None:
        dr7 = self._engine.read(x86_const.UC_X86_REG_DR7)
        if dr7 & GENERAL_DETECT:
            self._engine.write(x86_const.UC_X86_REG_DR7, dr7 & ~GENERAL_DETECT)


def _canonical(address: int) -> bool:
    return address >> 47 in (0, 0x1FFFF)
