"""Running a machine under the eyes of the contract: which entries are open, and which promises are due at each step."""

from __future__ import annotations

from typing import Final

from iced_x86 import Decoder, Mnemonic

from reference.faults import Shutdown
from reference.image import EventKind
from reference.linux.contexts import Context, Running, called, delivered, note_nested_nmi
from reference.linux.entry_code import EntryCode, Handler
from reference.linux.look import Look
from reference.linux.moments import NOBODY, Moment, Violation, When, pt_regs
from reference.linux.promises import DUE, SURVIVES
from reference.machine import RDI, RSP, Machine
from reference.run import step

_IRETS: Final = frozenset({Mnemonic.IRET, Mnemonic.IRETD, Mnemonic.IRETQ})
_BY_ONE_SLOT: Final = (0, 8, -8)
"""How PUSH, POP, CALL and RET move RSP: no IRET does that."""
_NOWHERE: Final = -1
SCHEDULERS: Final = ("schedule", "preempt_schedule_irq")
"""Symbols of what gives the processor to another thread, if the entry code has them."""


class Watch:
    """A machine that runs entry code, and the promises that it has broken so far.

    Entries are nested: a delivery through the IDT and a fast system call open one, the return to where it came from closes it.
    """

    __slots__ = ("_code", "_contexts", "_look", "_m", "_mnemonics", "_schedulers", "_stops", "violations")

    def __init__(self, m: Machine, code: EntryCode) -> None:
        self._m = m
        self._code = code
        self._look = Look(code.kernel_cr3)
        self._contexts: list[Context] = []
        self._mnemonics: dict[int, int] = {}
        self._schedulers = {code.symbols[name] for name in SCHEDULERS if name in code.symbols}
        self._stops = {*code.handlers, *self._schedulers}
        """Where something begins that a promise speaks of."""
        self.violations: list[Violation] = []

    def fork(self, m: Machine) -> Watch:
        """Go on with `m`, which is a fork of this machine in its present state; what is known of memory and code is shared."""
        other = Watch.__new__(Watch)
        other._m, other._code, other._look = m, self._code, self._look
        other._mnemonics, other._schedulers, other._stops = self._mnemonics, self._schedulers, self._stops
        other._contexts = [context.copy() for context in self._contexts]
        other.violations = self.violations.copy()
        return other

    def agrees(self, other: Watch) -> bool:
        """Whether both judge alike from here on: the same entries are open, and the memory that they guard holds the same."""
        guards = [guard for context in self._contexts for guard in (*context.guards, context.user_stack) if guard]
        return self._contexts == other._contexts and all(
            self._look.read(self._m, guard.start, len(guard.data)) == self._look.read(other._m, guard.start, len(guard.data))
            for guard in guards
        )

    def step(self) -> bool:
        """Pass one boundary as `reference.run.step` does, and judge what the entry code has done in it."""
        m = self._m
        rip, cpl, known = m.rip, m.cpl, len(m.deliveries)
        rsp, kernel_gs, translations = m.gpr[RSP], m.kernel_gs_base, m.translations
        try:
            going = step(m)
        except Shutdown:
            self._shut_down(rip)
            raise
        if len(m.deliveries) != known:
            self._delivered(rip, translations is not m.user32)
        elif m.cpl != cpl:
            self._crossed(rip, translations is not m.user32)
        elif self._contexts:
            context = self._contexts[-1]
            if context.running is not None:
                if m.rip == context.running.rip and m.gpr[RSP] == context.running.rsp:
                    context.running = None
                    context.given = pt_regs(m, self._code, self._look, context.pt_regs)
            elif m.rip in self._stops or m.kernel_gs_base != kernel_gs or m.gpr[RSP] - rsp not in _BY_ONE_SLOT:
                self._executed(rip, m.kernel_gs_base != kernel_gs, m.gpr[RSP] - rsp)
        return going

    def _shut_down(self, rip: int) -> None:
        """No handler could be entered, unless a machine check stopped the processor (SDM Vol. 3B, 16.3.1.2)."""
        m = self._m
        if all(event.kind is not EventKind.MACHINE_CHECK for event in m.pending):
            self.violations.append(Violation(SURVIVES.name, m.retired, rip, "a fault while a double fault was being delivered"))

    def _delivered(self, rip: int, wide: bool) -> None:
        """Open an entry. One for a fault of the IRET to user mode takes the place of the entry that was about to return."""
        m, contexts = self._m, self._contexts
        context = delivered(m, self._code, self._look, contexts, wide)
        event = m.deliveries[-1]
        if event.cpl != 3 and context.cpl == 3 and contexts and contexts[-1].cpl == 3:
            self._judge(When.FAILED_RETURN, contexts.pop(), event.boundary, rip)
        self._judge(When.ENTRY, context, event.boundary, rip, tuple(contexts))
        contexts.append(context)

    def _crossed(self, rip: int, wide: bool) -> None:
        """Open an entry for a fast system call, or close the one from user mode with whatever is still open inside it."""
        m, contexts = self._m, self._contexts
        if m.cpl != 3:
            contexts.append(called(m, self._code, self._look, rip, wide))
            return
        inner: list[Context] = []
        while contexts:
            context = contexts.pop()
            if context.cpl == 3:
                self._judge(When.RETURN, context, m.retired - 1, rip, tuple(inner))
                return
            inner.append(context)

    def _executed(self, rip: int, gs_changed: bool, popped: int) -> None:
        """An instruction that may matter retired in the entry code, outside C handlers."""
        m, context = self._m, self._contexts[-1]
        if gs_changed and self._mnemonic(rip) == Mnemonic.SWAPGS:
            context.swaps += 1
            self._judge(When.SWAPGS, context, m.retired - 1, rip)
            context.ran_before_swap = context.runs
        elif popped not in _BY_ONE_SLOT and self._mnemonic(rip) in _IRETS:
            self._returned(rip, context)
        elif m.rip in self._schedulers:
            self._judge(When.SCHEDULE, context, m.retired - 1, rip)
        elif handler := self._code.handlers.get(m.rip):
            self._begin(rip, context, handler)

    def _begin(self, rip: int, context: Context, handler: Handler) -> None:
        m = self._m
        context.runs += 1
        context.owes_repeat = False
        self._judge(When.HANDLER, context, m.retired - 1, rip, handler=handler)
        context.pt_regs = m.gpr[RDI]
        back = self._look.words(m, m.gpr[RSP], 1)
        context.running = Running(back[0] if back else _NOWHERE, m.gpr[RSP] + 8)

    def _returned(self, rip: int, context: Context) -> None:
        """Close the entry, unless IRET was only a way to go on in it: to a place of the entry code that nobody asked to return to."""
        m, contexts = self._m, self._contexts
        arrives = context.cpl != 3 and (m.rip in context.allowed("rip") or m.gpr[RSP] in context.allowed("rsp"))
        if not arrives and any(start <= m.rip < end for start, end in self._code.text):
            return
        contexts.pop()
        self._judge(When.RETURN, context, m.retired - 1, rip)
        if context.nested and not context.runs:
            note_nested_nmi(m, self._code, self._look, contexts, context)

    def _judge(
        self, when: When, context: Context, boundary: int, rip: int, others: tuple[Context, ...] = (), handler: Handler = NOBODY
    ) -> None:
        moment = Moment(self._m, self._code, self._look, context, others, handler)
        for promise in DUE[when]:
            if text := promise.broken(moment):
                self.violations.append(Violation(promise.name, boundary, rip, text))

    def _mnemonic(self, rip: int) -> int:
        """What kind of instruction stands in the kernel's text."""
        known = self._mnemonics.get(rip)
        if known is None:
            size = 15 if rip & 0xFFF <= 0xFF1 else 0x1000 - (rip & 0xFFF)
            known = Decoder(64, self._look.read(self._m, rip, size) or b"").decode().mnemonic
            self._mnemonics[rip] = known
        return known
