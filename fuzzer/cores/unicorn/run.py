"""One run on an engine: the engine executes, this delivers events at exactly their boundaries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from unicorn import x86_const

from fuzzer.cores.unicorn import blob
from fuzzer.cores.unicorn.arrivals import Arrivals
from fuzzer.cores.unicorn.counting import UncountableError, count_retired
from fuzzer.cores.unicorn.delivery import PUSHES_CODE, Arrival, Doorman, EndedError, ShutdownError
from fuzzer.cores.unicorn.engine import DEBUG_REGISTERS, SYSCALL, Engine, Stop
from fuzzer.cores.unicorn.fast_calls import FastCalls
from fuzzer.cores.unicorn.inspector import Inspector
from fuzzer.cores.unicorn.walk import GuestFaultError, OutsideError
from reference.faults import exception_name
from reference.image import End, Event, Image

_IF: Final = 1 << 9
_MCE: Final = 1 << 6
_BREAKPOINTS: Final = 0xFF
_TF: Final = 1 << 8
_BS: Final = 1 << 14


class Run:
    """The adapter's state during one run; `advance` moves it on, `end` says how it ended."""

    def __init__(
        self,
        engine: Engine,
        image: Image,
        doorman: Doorman,
        arrivals: Arrivals,
        fast_calls: FastCalls,
        inspector: Inspector,
        rehearse: Callable[[int, int], Stop],
    ) -> None:
        self.engine = engine
        self.image = image
        self.doorman = doorman
        self.arrivals = arrivals
        self._fast_calls = fast_calls
        self.inspector = inspector
        self._rehearse = rehearse
        """Runs the engine from an address for a number of instructions, and undoes it."""
        self.retired = 0
        self.halted = False
        self.end: End | None = None
        self.detail = ""
        self.rip = image.registers["rip"]
        self._bits = 64
        """How wide the code is that runs next: 64, 32 or 16."""
        self._based = False
        """It is not 64-bit code, and its segment has a base."""
        self._note_code(())
        self._step_trap = False
        self._trap_due: int | None = None
        """DR6 of a single-step trap that comes at this boundary: of one behind SYSCALL or SYSENTER, or one that a traced run
        shows as a step of its own."""
        self.raised = ""
        """The exception that the engine raised last."""
        self.at_fetch = False
        self._last = -1
        """Address of the instruction that the engine began last, -1 after a delivery."""

    def advance(self, most: int | None = None) -> bool:
        """Deliver one event, or let the engine run to the next boundary that matters (at most `most` instructions).

        Says whether it was an event from outside; `end` is set when the run is over.
        """
        try:
            if self._trap_due is not None:
                self._deliver_trap(self._trap_due)
                return True
            if self._deliver_pending():
                return True
            if self.halted:
                self.end = End.HALTED
            elif self._based:
                self.end, self.detail = End.UNSUPPORTED, "32-bit code in a segment with a base"
            elif max(self.retired, len(self.doorman.deliveries)) >= self.image.limit:
                self.end = End.DID_NOT_END
            else:
                self._execute(most)
        except EndedError:
            self.retired -= 1
            self.end = End.ENDED
        except ShutdownError:
            self.end = End.SHUTDOWN
        except UncountableError:
            self.end, self.detail = End.UNSUPPORTED, "a repeated string instruction in a shadow, with events in the case"
        except OutsideError:
            self.end, self.detail = End.UNSUPPORTED, "a table walk of the adapter left physical memory"
        return False

    # Events

    def _deliver_pending(self) -> bool:
        if not self.arrivals.due(self.retired):
            return False
        self.arrivals.admit(self.retired)
        self.engine.save()
        event = self.arrivals.choose(lambda: self._peek(blob.EFLAGS) & _IF)
        if event is None:
            return False
        self._deliver(event)
        return True

    def _deliver(self, event: Event) -> None:
        self.arrivals.take(event, bool(self._peek(blob.CR4) & _MCE))
        self.halted = False
        self._enter(Arrival(event.vector, self.rip, asynchronous=True, resume=self._between_iterations()))

    def _deliver_trap(self, dr6: int) -> None:
        self._trap_due = None
        self.halted = False
        self.engine.write(x86_const.UC_X86_REG_DR6, dr6)
        self._enter(Arrival(1, self.rip, resume=self._between_iterations()))

    def _between_iterations(self) -> bool:
        return self._last == self.rip and self.inspector.repeats(self.rip)

    def _enter(self, arrival: Arrival) -> None:
        self.doorman.enter(arrival, self.retired - arrival.software)
        self.rip = self._peek(blob.RIP)
        self._note_code(())
        self.arrivals.end_shadow()
        self._last = -1

    # Execution

    def _execute(self, most: int | None) -> None:
        """Run the engine to the next boundary at which something can happen, and take what stopped it."""
        arrivals = self.arrivals
        fault_state = self._fault_state() if arrivals.open or most is not None else None
        count = (arrivals.scheduled[0].boundary if arrivals.scheduled else self.image.limit) - self.retired
        watching = arrivals.watches_iret
        if most is not None:
            count = min(count, most)
        elif arrivals.waiting or watching:
            count = 1 if arrivals.shadow or self._peek(blob.DR7) & _BREAKPOINTS else self._until_opening(count)

        stop = self.engine.run(self.rip, count)
        self._look(stop)
        if watching and stop.addresses and self.inspector.is_iret(stop.addresses[-1]):
            arrivals.unblock_nmi()
        self._step_trap = stop.vector == 1 and self._is_step_trap(stop)
        self._count(stop)
        self._note_shadow()
        belongs_to_next = stop.vector is not None and not (self._began_faulting(stop) or stop.software or self._step_trap)
        if belongs_to_next and fault_state is not None and len(stop.addresses) >= count:
            # The count was reached, and the engine looked at the next instruction all the same: another boundary's business.
            self._forget_fault(fault_state)
        elif self._step_trap and fault_state is not None and most is not None:
            self._trap_due = self.engine.read(x86_const.UC_X86_REG_DR6)
            self._forget_fault(fault_state)
        else:
            self._take(stop)

    def _look(self, stop: Stop) -> None:
        """Where the engine stands now, and how the instructions are to be read that it began."""
        self.engine.save()
        self.rip = self._peek(blob.RIP)
        self._note_code(stop.addresses)

    def _note_code(self, begun: tuple[int, ...]) -> None:
        """Take the width of code from the copied state; the instructions begun since it was taken last tell how it changed."""
        before = self._bits
        (hflags,) = self.engine.peek("<I", blob.HFLAGS)
        self._bits = blob.code_bits(hflags)
        self._based = self._bits != 64 and self._peek(blob.CS_BASE) != 0
        self.inspector.note_sizes(begun, before, self._bits)

    def _peek(self, offset: int) -> int:
        """A register as it was when the state was copied last."""
        (value,) = self.engine.peek("<Q", offset)
        return int(value)

    def _until_opening(self, most: int) -> int:
        """How many instructions it takes until one has run that may let a waiting event in, at most `most`."""
        tried = self._rehearse(self.rip, most)
        opening = self.inspector.first_opening(tried.addresses)
        return most if opening is None else opening + 1

    def _take(self, stop: Stop) -> None:
        """Act on what stopped the engine."""
        if stop.error:
            self.end, self.detail = End.CORE_ERROR, stop.error
        elif not stop.addresses and stop.vector is None:
            self.end, self.detail = End.CORE_ERROR, "the engine stopped without running, and without an exception"
        elif stop.instruction:
            self._take_fast_call(stop)
        elif stop.vector is None:
            self.halted = self.rip != stop.addresses[-1] and self.inspector.is_halt(stop.addresses[-1])
        else:
            self._take_exception(stop, stop.vector)

    def _take_fast_call(self, stop: Stop) -> None:
        instruction = stop.addresses[-1]
        mask = (1 << (64 if self._bits == 64 else 32)) - 1
        following = instruction + self.inspector.instruction(instruction).len & mask
        read, write = self.engine.read, self.engine.write
        write(x86_const.UC_X86_REG_DR6, stop.dr6)
        traced = read(x86_const.UC_X86_REG_RFLAGS) & _TF
        try:
            self._fast_calls.perform(stop.instruction, following, self._bits)
        except GuestFaultError as fault:
            self.retired -= 1
            self.rip = instruction
            write(x86_const.UC_X86_REG_RIP, instruction)
            self.raised = exception_name(fault.vector, fault.error_code if fault.vector in PUSHES_CODE else None)
            self._enter(Arrival(fault.vector, instruction, fault.error_code, resume=True))
            return
        if stop.instruction == SYSCALL:
            traced = read(x86_const.UC_X86_REG_RFLAGS) & _TF  # SYSCALL is judged by the TF that it leaves
        self._trap_due = stop.dr6 | _BS if traced else None
        self.rip = read(x86_const.UC_X86_REG_RIP)
        self._note_code(())
        self._last = -1

    def _take_exception(self, stop: Stop, vector: int) -> None:
        """Enter the handler of an exception that the engine raised; debug traps save RF as it is, software interrupts clear."""
        began = self._began_faulting(stop)
        resume = not stop.software and not (vector == 1 and (self._step_trap or not began))
        if self._step_trap and self._between_iterations():
            resume = True
        if not stop.software and not self._step_trap:
            self.raised = exception_name(vector, stop.error_code if vector in PUSHES_CODE else None)
            self.at_fetch = not began
        self.doorman.instruction = stop.addresses[-1] if stop.addresses else self.rip
        self.doorman.refused = ""
        try:
            self._enter(Arrival(vector, self.rip, stop.error_code, software=stop.software, resume=resume))
        finally:
            if self.doorman.refused:
                self.raised = self.doorman.refused
                self.retired -= 1

    def _began_faulting(self, stop: Stop) -> bool:
        """The engine had begun the instruction that faulted: RIP still points to it."""
        return bool(stop.addresses) and stop.addresses[-1] == self.rip and not stop.software

    def _is_step_trap(self, stop: Stop) -> bool:
        """Whether a #DB is the trap behind a retired instruction, not the fault of a breakpoint or of DR7.GD before one."""
        if not stop.addresses:
            return False
        if stop.addresses[-1] == self.rip and self.inspector.moves_debug_register(self.rip):
            return False
        return bool(self.engine.read(x86_const.UC_X86_REG_RFLAGS) & _TF) or not self._breakpoint_at(self.rip)

    def _breakpoint_at(self, address: int) -> bool:
        read = self.engine.read
        dr7 = read(x86_const.UC_X86_REG_DR7)
        return any(dr7 >> 2 * n & 3 and not dr7 >> 16 + 4 * n & 3 and read(DEBUG_REGISTERS[n]) == address for n in range(4))

    def _fault_state(self) -> tuple[int, int]:
        self.engine.save()
        return self._peek(blob.CR2), self._peek(blob.DR6)

    def _forget_fault(self, state: tuple[int, int]) -> None:
        self.engine.write(x86_const.UC_X86_REG_CR2, state[0])
        self.engine.write(x86_const.UC_X86_REG_DR6, state[1])
        self.engine.save()
        self.engine.restore()

    # Counting

    def _count(self, stop: Stop) -> None:
        """Add what was retired, and leave a repeated instruction that has nothing left to do."""
        if not stop.addresses:
            return
        faulted = (stop.vector is not None or bool(stop.error)) and self._began_faulting(stop) and not self._step_trap
        counted = count_retired(stop.addresses, self._last, self.rip, self.inspector, bool(self.image.events))
        self.retired += counted - faulted
        self._last = stop.addresses[-1]
        if stop.vector is None and self._between_iterations() and not self.inspector.repeat_count(self.rip):
            self._leave_repeat()

    def _leave_repeat(self) -> None:
        """Let the engine make the pass that ends a repeated instruction: it is no boundary of the architecture's."""
        self.engine.run(self.rip, 1)
        self.rip = self.engine.read(x86_const.UC_X86_REG_RIP)

    def _note_shadow(self) -> None:
        """Whether STI or a load of SS has just been retired: the engine's own flag, read where it can matter."""
        if not self.arrivals.due(self.retired):
            return
        self.engine.save()
        (hflags,) = self.engine.peek("<I", blob.HFLAGS)
        shadow = bool(hflags & blob.HFLAG_SHADOW)
        self.arrivals.shadow = shadow
        self.arrivals.stack_shadow = shadow and self._last >= 0 and self.inspector.loads_stack_segment(self._last)
