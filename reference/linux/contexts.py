"""Entries into the kernel that have not returned yet: what each one interrupted, and how far it has come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from reference.faults import Vector
from reference.image import GPRS, Delivery
from reference.linux.entry_code import Convention, EntryCode, Stack
from reference.linux.look import Look
from reference.machine import DS, ES, FS, GS, R11, RCX, RSP, Machine

NUMBERS: Final = tuple((name, number) for number, name in enumerate(GPRS) if name != "rsp")
"""The general registers that no processor saves by itself."""
FRAME: Final = ("rip", "cs", "rflags", "rsp", "ss")
"""What the processor pushes, from the lowest address up (SDM Vol. 3A, 7.14.2)."""
RETURN_FAULTS: Final = frozenset({Vector.NP, Vector.SS, Vector.GP, Vector.PF})
"""What IRET and a load of GS can meet."""
SYSENTER_OPEN: Final = frozenset({"rip", "rsp", "rflags"})
"""SYSENTER saves nothing (SDM Vol. 2B, SYSENTER)."""
USER_BELOW: Final = 256
USER_ABOVE: Final = 64
"""How much of the user's stack around RSP is looked at."""


@dataclass(frozen=True, slots=True)
class Guard:
    """Memory of whoever was interrupted, and what was in it."""

    start: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Running:
    """A C handler on its way: it is back at `rip` with `rsp`."""

    rip: int
    rsp: int


@dataclass(slots=True)
class Context:
    """One entry. `interrupted` are the fields of pt_regs but orig_rax as they have to be; the others are state behind the entry."""

    event: Delivery | None
    """None for the fast system calls, which are not delivered."""
    rip: int
    """The entry point."""
    cpl: int
    """What was interrupted: 3 also for a fault of the IRET to user mode."""
    wide: bool
    """It was 64-bit code."""
    interrupted: dict[str, int]
    convention: Convention
    gs_base: int
    kernel_gs_base: int
    """Both as the return has to leave them."""
    fs_base: int
    selectors: tuple[int, ...]
    """ES, DS, FS, GS."""
    cr3: int
    nmi_blocked: bool
    tss: bytes | None
    frame: int
    """RSP after the processor's pushes."""
    stack: Stack | None
    """Where that is."""
    nested: bool = False
    """An NMI in an NMI's own stack: it has no handler of its own, the outer one repeats."""
    guards: tuple[Guard, ...] = ()
    """To be whole when the entry returns."""
    user_stack: Guard | None = None
    """To be whole when the handler begins."""

    swaps: int = 0
    """SWAPGS outside handlers."""
    ran_before_swap: int = 0
    """Handlers that had begun at the last of them."""
    runs: int = 0
    """Handlers begun."""
    running: Running | None = None
    pt_regs: int = 0
    given: dict[str, int] | None = None
    """pt_regs as the last handler left them: the state to return to."""
    owes_repeat: bool = False
    """A nested NMI has asked for another run of the handler."""

    @property
    def vector(self) -> int | None:
        """None for the fast system calls."""
        return self.event.vector if self.event else None

    @property
    def wanted(self) -> dict[str, int]:
        """The registers to return with."""
        return self.interrupted if self.given is None else self.given

    def allowed(self, field: str) -> tuple[int, int]:
        """What a field may hold at the return: an NMI handler that changes its frame may be heard or not, because a repeat starts over."""
        wanted = self.wanted[field]
        return (wanted, self.interrupted[field]) if self.vector == Vector.NMI and field in FRAME else (wanted, wanted)

    def copy(self) -> Context:
        """For a fork: nothing that a field holds is ever changed in place."""
        return replace(self)


def stack_at(code: EntryCode, rsp: int) -> Stack | None:
    """The kernel stack that `rsp` is on: an empty one included, so its end belongs to it."""
    for stack in code.stacks:
        if stack.start < rsp <= stack.end:
            return stack
    return None


def registers(m: Machine) -> dict[str, int]:
    """The general registers but RSP, by name."""
    gpr = m.gpr
    return {name: gpr[number] for name, number in NUMBERS}


def _state(m: Machine, code: EntryCode, look: Look, event: Delivery | None, cpl: int, wide: bool, interrupted: dict[str, int]) -> Context:
    segments = m.segments
    return Context(
        event=event,
        rip=m.rip,
        cpl=cpl,
        wide=wide,
        interrupted=interrupted,
        convention=code.conventions.get(m.rip, _PLAIN),
        gs_base=segments[GS].base,
        kernel_gs_base=m.kernel_gs_base,
        fs_base=segments[FS].base,
        selectors=tuple(segments[index].selector for index in (ES, DS, FS, GS)),
        cr3=m.cr3,
        nmi_blocked=m.nmi_blocked and (event is None or event.vector != Vector.NMI),
        tss=look.read(m, m.tr.base, m.tr.limit + 1),
        frame=m.gpr[RSP],
        stack=stack_at(code, m.gpr[RSP]),
    )


_PLAIN: Final = Convention()


def delivered(m: Machine, code: EntryCode, look: Look, outer: list[Context], wide: bool) -> Context:
    """The context of the event that has just entered its handler through the IDT: the processor's frame says what was interrupted."""
    event = m.deliveries[-1]
    frame = _words(m, look, m.gpr[RSP] + 8 * (event.error_code is not None))
    context = _state(m, code, look, event, event.cpl, wide, registers(m) | frame)
    if event.cpl != 3 and not _interrupts_return(m, code, look, context):
        context.nested = event.vector == Vector.NMI and _outer_nmi(outer, context) is not None
        context.guards = _guards(m, code, look, outer, context)
    if event.rip in code.gs_change and event.vector in RETURN_FAULTS:
        context.gs_base, context.kernel_gs_base = context.kernel_gs_base, context.gs_base
    return context


def _words(m: Machine, look: Look, address: int) -> dict[str, int]:
    return dict(zip(FRAME, look.words(m, address, len(FRAME)) or (0,) * len(FRAME), strict=True))


def _interrupts_return(m: Machine, code: EntryCode, look: Look, context: Context) -> bool:
    """Whether it is a fault of the IRET to user mode: user mode was interrupted, with the state that IRET was about to load."""
    event = context.event
    if event is None or event.rip not in code.bad_return or event.vector not in RETURN_FAULTS:
        return False
    frame = _words(m, look, context.interrupted["rsp"])
    if frame["cs"] & 3 != 3:
        return False
    context.cpl = 3
    context.interrupted |= frame
    return True


def _outer_nmi(outer: Sequence[Context], context: Context) -> Context | None:
    """The NMI that interrupted the kernel and still has its frame where this one has just got its own."""
    return next((each for each in outer if each.vector == Vector.NMI and not each.cpl and each.stack is context.stack), None)


def _guards(m: Machine, code: EntryCode, look: Look, outer: list[Context], context: Context) -> tuple[Guard, ...]:
    """What the interrupted kernel code has on its stack; what is below RSP too, if the processor has gone to another one."""
    rsp = context.interrupted["rsp"]
    stack = stack_at(code, rsp)
    if stack is None:
        return ()
    switched = context.stack is not stack
    start, end = stack.start if switched else rsp, stack.end
    if context.nested and not switched:
        # A nested NMI changes the outer one's return frame, which lies above pt_regs, to make it repeat.
        end = max(start, _end_of_pt_regs(code, _outer_nmi(outer, context)))
    data = look.read(m, start, end - start) if start < end else None
    return (Guard(start, data),) if data else ()


def _end_of_pt_regs(code: EntryCode, nmi: Context | None) -> int:
    """From there on a nested NMI may write; 0 while there is no pt_regs."""
    return nmi.pt_regs + 8 * len(code.pt_regs) if nmi and nmi.pt_regs else 0


def note_nested_nmi(m: Machine, code: EntryCode, look: Look, contexts: Sequence[Context], nested: Context) -> None:
    """A nested NMI has returned without a handler: the outer one owes a repeat, and what is new above its pt_regs is nobody's fault."""
    nmi = _outer_nmi(contexts, nested)
    assert nmi is not None
    nmi.owes_repeat = True
    start = _end_of_pt_regs(code, nmi)
    for context in contexts:
        context.guards = tuple(_renewed(m, look, guard, start, nmi.stack) for guard in context.guards)


def _renewed(m: Machine, look: Look, guard: Guard, start: int, stack: Stack | None) -> Guard:
    """The same guard, with what is now in memory from `start` on, if it guards that stack."""
    if stack is None or not stack.start <= guard.start < stack.end:
        return guard
    kept = max(start - guard.start, 0)
    now = look.read(m, guard.start, len(guard.data)) or guard.data
    return Guard(guard.start, guard.data[:kept] + now[kept:])


def called(m: Machine, code: EntryCode, look: Look, rip: int, wide: bool) -> Context:
    """The context of a fast system call that has just been made at `rip` (SDM Vol. 2B, SYSCALL and SYSENTER)."""
    base = m.star >> 48
    user_cs = (base + 16 if wide else base) & 0xFFFF | 3
    frame = {"rip": m.gpr[RCX], "cs": user_cs, "rflags": m.gpr[R11], "rsp": m.gpr[RSP], "ss": base + 8 & 0xFFFF | 3}
    context = _state(m, code, look, None, 3, wide, registers(m) | frame)
    if not 0 < m.gpr[RCX] - rip <= 15:
        context.convention = Convention(context.convention.open | SYSENTER_OPEN, context.convention.clobbered)
        return context
    start = m.gpr[RSP] - USER_BELOW
    if data := look.read(m, start, USER_BELOW + USER_ABOVE):
        context.user_stack = Guard(start, data)
    return context


def on_user_stack(code: EntryCode, outer: Sequence[Context], context: Context) -> bool:
    """Whether kernel code was interrupted while RSP was still the one that user mode had."""
    rsp = context.interrupted["rsp"]
    called = outer[-1] if outer and outer[-1].event is None and not outer[-1].runs else None
    kept = called is not None and "rsp" not in called.convention.open and called.interrupted["rsp"] == rsp
    return kept or stack_at(code, rsp) is None
