"""The scenarios of `linux4` that case bytes knew first, and those that came with the rest of the ways in: appended, never reordered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fuzzer.targets import layout
from fuzzer.targets.linux4 import image
from fuzzer.targets.linux4.control import change, reschedule
from fuzzer.targets.linux4.user_code import LONG, SHORT, UserCode
from fuzzer.targets.target import Patch, Scenario
from reference.bits import AC, DR7_FIXED, FIXED, IF, RF, TF
from reference.image import Event, EventKind

SYMBOLS: Mapping[str, int] = image.load().symbols
QUIET = FIXED | IF
"""RFLAGS that a debug handler returns with, so that stepping stops after one trap."""
_RESUMED = FIXED | RF
"""What a debugger sets so that the instruction under a breakpoint runs: RF; in the syscall gap interrupts are off."""
_BREAKPOINT = DR7_FIXED | 1


def interrupt(boundary: int = 2, vector: int = 0x21) -> Event:
    """An external interrupt."""
    return Event(boundary, EventKind.INTERRUPT, vector)


def nmi(boundary: int = 2) -> Event:
    """A non-maskable interrupt."""
    return Event(boundary, EventKind.NMI, 2)


def machine_check(boundary: int = 2) -> Event:
    """A machine check."""
    return Event(boundary, EventKind.MACHINE_CHECK, 18)


def user(name: str, summary: str, code: str, *memory: Patch, events: tuple[Event, ...] = (), **registers: int) -> Scenario:
    """64-bit user code."""
    return Scenario(name, summary, 3, {"rip": LONG.start(code), **registers}, memory, events)


def user32(name: str, summary: str, code: str, *memory: Patch, events: tuple[Event, ...] = (), **registers: int) -> Scenario:
    """32-bit user code, in compatibility mode."""
    start = {"rip": SHORT.start(code), "cs": layout.USER32_CS, "ds": layout.USER_DS, "es": layout.USER_DS}
    return Scenario(name, summary, 3, {**start, **registers}, memory, events)


def kernel(name: str, summary: str, symbol: str, *memory: Patch, events: tuple[Event, ...] = (), **registers: int) -> Scenario:
    """Kernel code on the thread stack."""
    return Scenario(name, summary, 0, {"rip": SYMBOLS[symbol], **registers}, memory, events)


def resumed(code: str, handler: str, where: UserCode = LONG) -> Patch:
    """The handler of a fault in user code sends it on."""
    return change(handler, rip=where.resume(code))


def fault(name: str, summary: str, code: str, handler: str, *memory: Patch, **registers: int) -> Scenario:
    """A fault in 64-bit user code, whose handler sends it on."""
    return user(name, summary, code, resumed(code, handler), *memory, events=(), **registers)


def fault32(name: str, summary: str, code: str, handler: str, **registers: int) -> Scenario:
    """A fault in 32-bit user code, whose handler sends it on."""
    return user32(name, summary, code, resumed(code, handler, SHORT), events=(), **registers)


def provoked(vector_name: str, symbol: str, *memory: Patch, how: str = "") -> Scenario:
    """An exception that kernel code provokes; the handler sends it to the label behind."""
    resume = change(f"do_{vector_name}", rip=SYMBOLS[f"{symbol}_resume"])
    summary = how or f"kernel code raises {vector_name}"
    return kernel(f"{vector_name.lower().replace('_', '-')}-from-kernel", summary, symbol, resume, *memory)


FIRST = (
    user("interrupt-from-user", "user code, for an interrupt to arrive in", "ordinary", events=(interrupt(),)),
    kernel("interrupt-from-kernel", "kernel code with interrupts on, off and on again", "kernel_code", events=(interrupt(),)),
    user("nmi-from-user", "user code, for an NMI to arrive in", "ordinary", events=(nmi(),)),
    kernel("nmi-from-kernel", "kernel code, for an NMI to arrive in", "kernel_code", events=(nmi(),)),
    fault("divide-error-from-user", "DIV by 0", "divide", "do_divide_error"),
    provoked("divide_error", "kernel_divide"),
    user("debug-from-user", "single step (RFLAGS.TF)", "ordinary", change("do_debug", rflags=QUIET), rflags=QUIET | TF),
    kernel("debug-from-kernel", "single step in the kernel", "kernel_code", change("do_debug", rflags=QUIET), rflags=QUIET | TF),
    user(
        "breakpoint-register-from-user",
        "DR0 on the second instruction",
        "ordinary",
        change("do_debug", rflags=QUIET | RF),
        dr0=LONG.start("ordinary") + 5,
        dr7=_BREAKPOINT,
    ),
    user(
        "debug-in-syscall-gap",
        "DR0 on the first instruction behind SYSCALL",
        "syscall",
        change("do_debug", rflags=_RESUMED),
        dr0=SYMBOLS["system_call"],
        dr7=_BREAKPOINT,
    ),
    user("int3-from-user", "INT3", "int3"),
    kernel("int3-from-kernel", "INT3 in the kernel", "kernel_int3"),
    fault("general-protection-from-user", "a selector past the GDT into ES", "bad selector", "do_general_protection"),
    provoked("general_protection", "kernel_general_protection"),
    fault("page-fault-from-user", "a load from a page that is not mapped", "unmapped", "do_page_fault"),
    provoked("page_fault", "kernel_page_fault"),
    fault("invalid-opcode-from-user", "UD2", "ud2", "do_invalid_op"),
    fault("segment-not-present-from-user", "a segment that is not present into ES", "absent selector", "do_segment_not_present"),
    fault("stack-segment-from-user", "a push below a non-canonical RSP", "push", "do_stack_segment", rsp=image.NON_CANONICAL),
    fault("alignment-check-from-user", "a misaligned load", "misaligned", "do_alignment_check", rflags=QUIET | AC),
    user("system-call-from-user", "SYSCALL, returning by SYSRETQ", "syscall"),
)

_APIC = {
    "apic-timer": 0xEF,
    "tlb-shootdown": 0xF5,
    "call-function-single": 0xFB,
    "call-function": 0xFC,
    "reschedule": 0xFD,
    "apic-error": 0xFE,
    "apic-spurious": 0xFF,
}


def _interrupts() -> Iterator[Scenario]:
    """The interrupt array at its ends and in its middle, and the vectors of the local APIC."""
    for name, vector in {"first-vector": 0x20, "array": 0x5A, "last-vector": 0xF4, **_APIC}.items():
        what = f"vector {vector:#x}"
        yield user(f"{name}-from-user", f"user code, for {what} to arrive in", "ordinary", events=(interrupt(2, vector),))
        yield kernel(f"{name}-from-kernel", f"kernel code, for {what} to arrive in", "kernel_code", events=(interrupt(2, vector),))


def _rescheduled() -> Iterator[Scenario]:
    """A handler makes the scheduler due: which ways out call it."""
    due = "the scheduler is due when the handler returns"
    yield user("interrupt-from-user-reschedule", due, "ordinary", reschedule("do_IRQ"), events=(interrupt(),))
    yield kernel("interrupt-from-kernel-reschedule", due, "kernel_code", reschedule("do_IRQ"), events=(interrupt(),))
    yield user("system-call-reschedule", due, "syscall", reschedule("do_syscall_64"))
    yield user("int3-from-user-reschedule", due, "int3", reschedule("do_int3"))
    yield kernel("int3-from-kernel-reschedule", f"{due}, by a paranoid exit", "kernel_int3", reschedule("do_int3"))
    resume = change("do_page_fault", rip=SYMBOLS["kernel_page_fault_resume"])
    yield kernel("page-fault-from-kernel-reschedule", due, "kernel_page_fault", resume, reschedule("do_page_fault"))
    yield user("nmi-from-user-reschedule", f"{due}, by an NMI's", "ordinary", reschedule("do_nmi"), events=(nmi(),))
    yield kernel("nmi-from-kernel-reschedule", f"{due}, by an NMI's", "kernel_code", reschedule("do_nmi"), events=(nmi(),))


SECOND = (*_interrupts(), *_rescheduled())
