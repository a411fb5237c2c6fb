"""The promises that are due on the way in: when the processor has delivered an event, at a SWAPGS, and when a C handler begins."""

from __future__ import annotations

from typing import Final

from reference.bits import AC, DF, IF, MASK32, MASK64
from reference.faults import Vector, vector_name
from reference.linux.contexts import FRAME, NUMBERS, on_user_stack, stack_at
from reference.linux.entry_code import Origin, Stack, StackKind
from reference.linux.moments import Moment, Promise, When
from reference.machine import RSI, RSP
from reference.profiles import Cr4

ENTRY_TEXT: Final = "Linux, Documentation/x86/entry_64.txt"
IDTENTRY: Final = "linux-insides, Interrupts part 3, idtentry"
PRACTICE: Final = "the practice of Linux 4.x, arch/x86/entry"

_NO_SYSTEM_CALL: Final = MASK64
_NOT_IMPLEMENTED: Final = -38 & MASK64
"""-ENOSYS, which stands in pt_regs.rax until the system call has a result."""
_PLAIN_EXCEPTIONS: Final = (Origin.EXCEPTION, Origin.NMI, Origin.MACHINE_CHECK)


def _stack_of_its_own(at: Moment) -> str:
    """A frame is pushed neither over words of the interrupted code nor on a stack that user mode chose."""
    context = at.context
    if context.cpl == 3:
        return ""
    rsp = context.interrupted["rsp"]
    size = 8 * (len(FRAME) + (context.event is not None and context.event.error_code is not None))
    if on_user_stack(at.code, at.outer, context):
        if context.vector == Vector.DF:
            return f"double fault with the user's RSP {rsp:#x}: an event needed a kernel stack and had none"
        pushed = context.frame == (rsp & ~0xF) - size
        return f"{_event(at)} pushed its frame at {context.frame:#x}, on the stack that user mode chose" if pushed else ""
    if context.nested and any(each.nested and not each.runs for each in at.outer):
        return f"{_event(at)} pushed its frame at {context.frame:#x} over that of a nested NMI, which has no copy of it"
    if context.nested or stack_at(at.code, rsp) is not context.stack or context.frame + size <= rsp:
        return ""
    return f"{_event(at)} pushed its frame at {context.frame:#x} over the interrupted code's stack, RSP {rsp:#x}"


def _no_exception_of_its_own(at: Moment) -> str:
    """Debug exceptions and what arrives from outside come anywhere; in C handlers everything is the kernel's business."""
    event = at.context.event
    if event is None or event.cpl == 3 or event.vector in _ANYWHERE or event.vector >= 32 or not at.outer or at.outer[-1].running:
        return ""
    expected = event.rip in at.code.bad_return or event.rip in at.code.gs_change
    own = not expected and any(start <= event.rip < end for start, end in at.code.text)
    return f"{vector_name(event.vector)} at {event.rip:#x}, in the entry code itself" if own else ""


_ANYWHERE: Final = frozenset({Vector.DB, Vector.NMI, Vector.MC})


def _swapgs_once_each_way(at: Moment) -> str:
    """In before the handler and out after it; once more each way only for an NMI that is repeated."""
    context = at.context
    if context.swaps == 1 and context.runs:
        return "SWAPGS on the way out, none on the way in"
    if context.swaps % 2 == 0 and context.runs == context.ran_before_swap:
        return "a second SWAPGS before the handler"
    repeated = context.swaps <= 2 or context.vector == Vector.NMI
    return "" if repeated else f"SWAPGS number {context.swaps} in one entry"


def _per_cpu_base(at: Moment) -> str:
    base, due = at.m.gs.base, at.code.percpu
    return "" if base == due else f"GS.base is {base:#x}, not {due:#x}"


def _interrupted_registers(at: Moment) -> str:
    """A second run of the handler in one entry sees what the first one left, or the original again."""
    frame = at.pt_regs()
    if frame is None:
        return "RDI does not point to memory"
    context = at.context
    for name in (*(name for name, _ in NUMBERS), *FRAME):
        due = context.interrupted[name]
        held = {due, context.wanted[name]}
        if name == "rax" and at.handler.origin is Origin.SYSTEM_CALL:
            held |= {_NOT_IMPLEMENTED, due & MASK32}
        if frame[name] not in held and name not in context.convention.open:
            return f"pt_regs.{name} is {frame[name]:#x}, interrupted was {due:#x}"
    return ""


def _original_rax(at: Moment) -> str:
    frame, context = at.pt_regs(), at.context
    if frame is None or "orig_rax" not in frame or at.handler is None or context.runs > 1:
        return ""
    value, origin = frame["orig_rax"], at.handler.origin
    if origin is Origin.SYSTEM_CALL:
        number = context.interrupted["rax"]
        exact = context.event is None and context.wide
        kept = value == number if exact else value & MASK32 == number & MASK32
        return "" if kept else f"pt_regs.orig_rax is {value:#x}, the system call's number was {number:#x}"
    if origin is Origin.INTERRUPT:
        return "" if value >> 63 else f"pt_regs.orig_rax is {value:#x}: not negative, as if it were a system call's number"
    return "" if value == _NO_SYSTEM_CALL else f"pt_regs.orig_rax is {value:#x}, not -1"


def _error_code(at: Moment) -> str:
    if at.handler.origin not in _PLAIN_EXCEPTIONS or at.context.event is None:
        return ""
    value, due = at.m.gpr[RSI], at.context.event.error_code or 0
    return "" if value == due else f"RSI is {value:#x}, the error code was {due:#x}"


def _handler_of_the_event(at: Moment) -> str:
    handler, event = at.handler, at.context.event
    if event is None:
        return "" if handler.origin is Origin.SYSTEM_CALL else f"a system call led to {handler.name}"
    origins = _ORIGINS.get(event.vector, (Origin.EXCEPTION,) if event.vector < 32 else (Origin.INTERRUPT, Origin.SYSTEM_CALL))
    if handler.origin in origins and handler.vector in (None, event.vector):
        return ""
    return f"{vector_name(event.vector)} led to {handler.name}"


_ORIGINS: Final = {Vector.NMI: (Origin.NMI,), Vector.MC: (Origin.MACHINE_CHECK,)}


def _handler_stack(at: Moment) -> str:
    user = at.context.cpl == 3
    names = at.handler.stacks_from_user if user else at.handler.stacks_from_kernel
    rsp = at.m.gpr[RSP]
    here = stack_at(at.code, rsp)
    if names:
        right = here is not None and here.name in names
        return "" if right else f"RSP is {rsp:#x}, on {_name(here)}, not on {' or '.join(names)}"
    before = stack_at(at.code, at.context.interrupted["rsp"])
    return "" if user or here is before else f"RSP is {rsp:#x}, on {_name(here)}; interrupted was {_name(before)}"


def _direction_is_up(at: Moment) -> str:
    return f"RFLAGS is {at.m.rflags:#x}, DF is set" if at.m.rflags & DF else ""


def _user_memory_is_closed(at: Moment) -> str:
    lifted = at.m.cr4 & Cr4.SMAP and at.m.rflags & AC
    return f"RFLAGS is {at.m.rflags:#x}, AC is set and lifts SMAP" if lifted else ""


def _kernel_page_tables(at: Moment) -> str:
    return "" if at.m.cr3 == at.code.kernel_cr3 else f"CR3 is {at.m.cr3:#x}, not {at.code.kernel_cr3:#x}"


def _user_stack_untouched(at: Moment) -> str:
    guard = at.context.user_stack
    return at.changed(guard) if guard and at.context.runs == 1 else ""


def _no_rescheduling(at: Moment) -> str:
    context = at.context
    paranoid = context.stack is not None and context.stack.kind is StackKind.IST
    if context.cpl == 3 or (context.interrupted["rflags"] & IF and not paranoid):
        return ""
    reason = "the entry is paranoid" if paranoid else "interrupts were off"
    return f"{_event(at)} interrupted the kernel at {context.interrupted['rip']:#x} and calls the scheduler, but {reason}"


def _event(at: Moment) -> str:
    return "a system call" if at.context.vector is None else vector_name(at.context.vector)


def _name(stack: Stack | None) -> str:
    return stack.name if stack else "no kernel stack"


PROMISES_IN: Final = (
    Promise(
        "stack-of-its-own",
        "A frame is pushed neither over words of the interrupted kernel code nor on a stack that user mode chose.",
        "SDM Vol. 3A, 7.14.4 and 7.14.5; " + IDTENTRY + " (shift_ist)",
        (When.ENTRY,),
        _stack_of_its_own,
    ),
    Promise(
        "no-exception-of-its-own",
        "Between the entry and the C handler, and between that and the return, the entry code meets no exception "
        "but those of the IRET to user mode and of a load of GS.",
        PRACTICE + ": every other address is missing from its exception tables",
        (When.ENTRY,),
        _no_exception_of_its_own,
    ),
    Promise(
        "swapgs-once-each-way",
        "In one entry SWAPGS is executed at most once on the way in and once on the way out.",
        ENTRY_TEXT + ": it must nest perfectly and only in single depth",
        (When.SWAPGS,),
        _swapgs_once_each_way,
    ),
    Promise(
        "gs-base",
        "While a C handler runs, GS.base is this CPU's per-CPU base, whatever the interrupted code had.",
        ENTRY_TEXT,
        (When.HANDLER,),
        _per_cpu_base,
    ),
    Promise(
        "pt-regs",
        "RDI points to pt_regs: exactly the interrupted general registers, and RIP, CS, RFLAGS, RSP and SS as the processor saved them.",
        IDTENTRY + "; SDM Vol. 3A, 7.14.2; SDM Vol. 2B, SYSCALL",
        (When.HANDLER,),
        _interrupted_registers,
    ),
    Promise(
        "orig-rax",
        "ORIG_RAX is -1 for an exception, negative for an interrupt, and the number of a system call.",
        IDTENTRY + "; " + PRACTICE,
        (When.HANDLER,),
        _original_rax,
    ),
    Promise("error-code", "RSI is the error code of an exception, 0 if it has none.", IDTENTRY, (When.HANDLER,), _error_code),
    Promise(
        "own-handler",
        "An event leads to the handler of its own vector, a system call to a system call's.",
        "Linux, arch/x86/include/asm/irq_vectors.h, after " + ENTRY_TEXT,
        (When.HANDLER,),
        _handler_of_the_event,
    ),
    Promise(
        "handler-stack",
        "The handler runs on the stack meant for it: the thread's, the interrupt's, or the IST slot of its vector.",
        ENTRY_TEXT + ": from user mode off the IST stack; " + IDTENTRY,
        (When.HANDLER,),
        _handler_stack,
    ),
    Promise(
        "direction-flag",
        "DF is clear when a C handler begins.",
        "System V ABI, AMD64 supplement, 3.2.1; " + IDTENTRY,
        (When.HANDLER,),
        _direction_is_up,
    ),
    Promise(
        "access-control",
        "With SMAP on, AC is clear when a C handler begins.",
        "SDM Vol. 3A, 5.6.1; " + PRACTICE,
        (When.HANDLER,),
        _user_memory_is_closed,
    ),
    Promise(
        "kernel-cr3",
        "CR3 is the kernel's when a C handler begins.",
        "Linux, Documentation/x86/pti.txt",
        (When.HANDLER,),
        _kernel_page_tables,
    ),
    Promise(
        "user-stack-untouched",
        "Between a fast system call and the change of stacks nothing is written to the user's stack.",
        "SDM Vol. 2B, SYSCALL: RSP is not saved; " + PRACTICE,
        (When.HANDLER,),
        _user_stack_untouched,
    ),
    Promise(
        "no-rescheduling",
        "An exit to kernel mode does not call the scheduler if it is paranoid, or if the interrupted code had interrupts off.",
        ENTRY_TEXT + ": what paranoid=1 changes; " + PRACTICE + " (retint_kernel)",
        (When.SCHEDULE,),
        _no_rescheduling,
    ),
)
