"""More scenarios of `linux4`: exceptions, nesting, the edges of the kernel, and 32-bit user code. Appended, never reordered."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

from fuzzer.targets import layout, tables
from fuzzer.targets.linux4.control import afterwards, breakpoint_in, change
from fuzzer.targets.linux4.scenarios import (
    QUIET,
    SYMBOLS,
    fault,
    fault32,
    interrupt,
    kernel,
    machine_check,
    nmi,
    provoked,
    user,
    user32,
)
from fuzzer.targets.linux4.user_code import LAST_BYTES, LONG, SHORT
from fuzzer.targets.target import USER_GS_BASE, Scenario, default_registers, patch
from reference.bits import AC, FIXED, TF
from reference.profiles import PROFILES, Cr0

_TASK_SWITCHED = default_registers(PROFILES["intel"], 3)["cr0"] | Cr0.TS

_UNREACHABLE_SLOT = (
    patch(layout.IDT, 3 * 16, tables.gate(SYMBOLS["int3"], ist=layout.IST_UNUSED, dpl=3)),
    patch(layout.GDT, layout.TSS_SELECTOR, tables.system_segment(0xB, layout.TSS_BASE, 27 + 8 * layout.IST_UNUSED)),
)
"""INT3 wants an interrupt stack that the TSS limit cuts off."""
_NO_PAGE_FAULT_GATE = patch(layout.IDT, 14 * 16, tables.gate(SYMBOLS["page_fault"], present=False))

_BY_INT_ALONE = {
    "bounds": 5,
    "coprocessor_segment_overrun": 9,
    "spurious_interrupt_bug": 15,
    "coprocessor_error": 16,
    "simd_coprocessor_error": 19,
    "virtualization": 20,
}


def _exceptions() -> Iterator[Scenario]:
    yield user("overflow-from-user", "INT 4, which user mode may", "int 4")
    yield kernel("overflow-from-kernel", "INT 4 in the kernel", "kernel_overflow")
    yield provoked("invalid_op", "kernel_invalid_op", how="UD2 in the kernel")
    yield fault("device-not-available-from-user", "WAIT with CR0.TS set", "fwait", "do_device_not_available", cr0=_TASK_SWITCHED)
    waits = provoked("device_not_available", "kernel_device_not_available", how="WAIT with CR0.TS set")
    yield replace(waits, registers={**waits.registers, "cr0": _TASK_SWITCHED})
    yield fault("double-fault-from-user", "a page fault whose gate is not present", "unmapped", "do_double_fault", _NO_PAGE_FAULT_GATE)
    yield provoked("double_fault", "kernel_page_fault", _NO_PAGE_FAULT_GATE, how="a page fault whose gate is not present")
    yield fault("invalid-tss-from-user", "an interrupt stack past the TSS limit", "int3", "do_invalid_TSS", *_UNREACHABLE_SLOT)
    yield provoked("invalid_TSS", "kernel_int3", *_UNREACHABLE_SLOT, how="an interrupt stack past the TSS limit")
    yield provoked("segment_not_present", "kernel_segment_not_present")
    yield provoked("stack_segment", "kernel_stack_segment", how="a load from a non-canonical address through RBP")
    for name, vector in _BY_INT_ALONE.items():
        yield kernel(f"{name.replace('_', '-')}-from-kernel", f"INT {vector} in the kernel", f"kernel_interrupt_{vector}")
    yield fault("int-1-from-user", "INT 1, whose gate user mode may not use", "int 1", "do_general_protection")
    yield user("icebp-from-user", "INT1 (F1), which asks for no privilege", "icebp")
    yield fault("debug-register-read-from-user", "MOV from DR0", "read dr0", "do_general_protection")
    yield fault("debug-register-write-from-user", "MOV to DR7", "write dr7", "do_general_protection")


def _nested() -> Iterator[Scenario]:
    """Exceptions inside the handlers of exceptions that have stacks of their own."""
    inside = "an INT3 inside the handler"
    stop = change("do_debug", rflags=QUIET)
    yield kernel(
        "debug-nested-from-kernel", f"single step, and {inside}", "kernel_code", stop, breakpoint_in("do_debug"), rflags=QUIET | TF
    )
    yield kernel("int3-nested-from-kernel", f"INT3, and {inside}", "kernel_int3", breakpoint_in("do_int3"))
    yield user("int3-nested-from-user", f"INT3, and {inside}", "int3", breakpoint_in("do_int3"))
    # The second NMI arrives behind the IRET of the INT3's handler, which opened the latch.
    yield kernel("nmi-nested-from-kernel", f"two NMIs, and {inside}", "kernel_code", breakpoint_in("do_nmi"), events=(nmi(), nmi(265)))
    yield user("nmi-nested-from-user", f"two NMIs, and {inside}", "ordinary", breakpoint_in("do_nmi"), events=(nmi(), nmi(235)))
    yield user("mce-from-user", "user code, for a machine check to arrive in", "ordinary", events=(machine_check(),))
    yield kernel("mce-from-kernel", "kernel code, for a machine check to arrive in", "kernel_code", events=(machine_check(),))
    yield user("nmi-in-syscall-gap", "an NMI right behind SYSCALL", "syscall", events=(nmi(1),))
    yield user("mce-in-syscall-gap", "a machine check right behind SYSCALL", "syscall", events=(machine_check(1),))
    yield user(
        "nmi-in-syscall-gap-negative-gs",
        "an NMI right behind SYSCALL, where user mode has written a GS base that looks like the kernel's",
        "wrgsbase",
        change("do_invalid_op", rip=LONG.resume("wrgsbase")),
        events=(nmi(3),),
    )


def _system_calls() -> Iterator[Scenario]:
    sent = change("do_syscall_64", rip=LONG.resume("syscall"))
    yield user("system-call-slow", "SYSCALL whose handler changes RIP: IRETQ", "syscall", sent)
    stop = change("do_debug", rflags=QUIET)
    yield user("system-call-single-step", "SYSCALL with TF: IRETQ", "syscall", stop, rflags=QUIET | TF)
    edge = change("do_general_protection", rip=LONG.resume("ordinary"))
    registers = {"rip": LAST_BYTES}
    yield Scenario("system-call-at-the-edge", "SYSCALL whose return address is not canonical: IRETQ faults", 3, registers, (edge,))
    yield user("int80-from-user", "INT 0x80 from 64-bit code", "int 0x80")


def _bad_return(name: str, summary: str, handler: str, field: str, wrong: int, right: int) -> Scenario:
    """INT3, whose handler makes the frame one that IRETQ refuses; the handler of that fault mends it."""
    return user(f"bad-iret-{name}", summary, "int3", change("do_int3", **{field: wrong}), afterwards(handler, **{field: right}))


def _truncated() -> Scenario:
    """The last IRETQ at the address that K8 processors reported for it, with user mode's GS and tables already."""
    frame = struct.pack("<5Q", LONG.start("ordinary"), 0x73, QUIET, layout.USER_STACK.end - 0x100, layout.USER_DS)
    top = layout.ENTRY_STACK.size - len(frame)
    registers = {
        "rip": SYMBOLS["native_irq_return_iret"] & 0xFFFF_FFFF,
        "rsp": layout.ENTRY_STACK.start + top,
        "rflags": FIXED,
        "gs_base": USER_GS_BASE,
        "kernel_gs_base": layout.PERCPU.start,
    }
    memory = (patch(layout.ENTRY_STACK, top, frame), change("do_segment_not_present", cs=layout.USER_CS))
    return Scenario("bad-iret-truncated", "IRETQ that faults with a RIP of 32 bits", 0, registers, memory, user_tables=True)


def _bad_returns() -> Iterator[Scenario]:
    code, stack = ("cs", layout.USER_CS), ("ss", layout.USER_DS)
    yield _bad_return("not-present", "IRETQ to code that is not present", "do_segment_not_present", code[0], 0x73, code[1])
    yield _bad_return("protection", "IRETQ to a data segment", "do_general_protection", code[0], layout.USER_DS, code[1])
    yield _bad_return("stack", "IRETQ to a stack that is not present", "do_stack_segment", stack[0], 0x6B, stack[1])
    yield _truncated()
    resume = change("do_general_protection", rip=SYMBOLS["bad_gs"])
    yield kernel("bad-gs-from-kernel", "a selector past the GDT into GS, between two SWAPGS", "kernel_load_gs", resume)
    small = change("do_int3", cs=layout.USER32_CS, ss=0x2F, rip=SHORT.start("ordinary"))
    yield user("iret-to-16-bit-stack", "IRETQ to 32-bit code on a 16-bit stack, which is not modelled", "int3", small)


def _from_32_bit_code() -> Iterator[Scenario]:
    ordinary = "32-bit user code, for {} to arrive in"
    yield user32("interrupt-from-user32", ordinary.format("an interrupt"), "ordinary", events=(interrupt(),))
    yield user32("nmi-from-user32", ordinary.format("an NMI"), "ordinary", events=(nmi(),))
    yield user32("mce-from-user32", ordinary.format("a machine check"), "ordinary", events=(machine_check(),))
    yield fault32("divide-error-from-user32", "DIV by 0", "divide", "do_divide_error")
    stop = change("do_debug", rflags=QUIET)
    yield user32("debug-from-user32", "single step (EFLAGS.TF)", "ordinary", stop, rflags=QUIET | TF)
    yield user32("int3-from-user32", "INT3", "int3")
    yield user32("overflow-from-user32", "INTO", "into")
    yield fault32("bounds-from-user32", "BOUND", "bound", "do_bounds")
    yield fault32("invalid-opcode-from-user32", "UD2", "ud2", "do_invalid_op")
    yield fault32("segment-not-present-from-user32", "a segment that is not present into ES", "absent selector", "do_segment_not_present")
    yield fault32("general-protection-from-user32", "a selector past the GDT into ES", "bad selector", "do_general_protection")
    yield fault32("page-fault-from-user32", "a load from a page that is not mapped", "unmapped", "do_page_fault")
    yield fault32("alignment-check-from-user32", "a misaligned load", "misaligned", "do_alignment_check", rflags=QUIET | AC)
    yield user32("int80-from-user32", "INT 0x80 from 32-bit code", "int 0x80")
    yield fault32("sysenter-from-user32", "SYSENTER; #UD on AMD", "sysenter", "do_invalid_op")
    yield fault32("system-call-from-user32", "SYSCALL from 32-bit code; #UD on Intel", "syscall", "do_invalid_op")


THIRD = (*_exceptions(), *_nested(), *_system_calls(), *_bad_returns(), *_from_32_bit_code())
