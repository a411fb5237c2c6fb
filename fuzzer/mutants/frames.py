"""Planted bugs in frames, stacks and flags: what a handler is given, and where it runs."""

from __future__ import annotations

from fuzzer.mutants.code import Bytes, Edit, Into, Place
from fuzzer.mutants.mutant import entry_mutant
from fuzzer.mutants.witness import Arrival, Witness, recorder_asks
from reference.bits import AC, DF, FIXED, IF
from reference.image import EventKind

_DOCUMENT = "Linux, Documentation/x86/entry_64.txt"
_IDTENTRY = "linux-insides, Interrupts part 3: idtentry"
_ABI = "System V ABI, AMD64 supplement, 3.2.1"
_INTERRUPTED = Arrival(EventKind.INTERRUPT, 1)

FLAGS = (
    entry_mutant(
        "error-entry-without-cld",
        "DF stays as user mode left it, and a string instruction of the handler runs backwards",
        _ABI,
        Witness("divide-error-from-user", registers={"rflags": FIXED | IF | DF}),
        Edit(Place("error_entry", "cld")),
    ),
    entry_mutant(
        "interrupt-without-cld",
        "the interrupt stubs have their own way in, and no CLD",
        _ABI,
        Witness("interrupt-from-user", registers={"rflags": FIXED | IF | DF}),
        Edit(Place("interrupt_entry", "cld")),
    ),
    entry_mutant(
        "page-fault-without-clac",
        "a page fault lets user mode's AC lift SMAP in its handler",
        "SDM Vol. 3A, 5.6.1",
        Witness("page-fault-from-user", registers={"rflags": FIXED | IF | AC}),
        Edit(Place("page_fault", "clac", profile="intel")),
    ),
    entry_mutant(
        "sysenter-keeps-user-flags",
        "SYSENTER masks no flag but IF, and its entry cleans none: user mode's AC lifts SMAP",
        "SDM Vol. 2B, SYSENTER; Linux, x86_64, entry: Filter RFLAGS.NT on entry from userspace",
        Witness("sysenter-from-user32", registers={"rflags": FIXED | IF | AC}),
        Edit(Place("entry_SYSENTER_compat", "popfq"), Bytes("58", "pop rax")),
    ),
)

FRAMES = (
    entry_mutant(
        "user-event-stays-on-ist-stack",
        "sync_regs is skipped: a debug exception of user mode is handled on the IST stack, where nothing may sleep",
        _DOCUMENT,
        Witness("debug-from-user"),
        Edit(Place("debug", "call sync_regs"), Bytes("4889e0", "mov rax, rsp")),
    ),
    entry_mutant(
        "shift-ist-dropped",
        "INT3 does not move its IST stack down, so another INT3 in its handler overwrites its frame",
        "linux-insides, Interrupts part 3: shift_ist",
        Witness("int3-from-kernel", memory=(recorder_asks("breakpoint", "do_int3"),)),
        Edit(Place("int3", "sub qword ptr gs:[0x234]")),
        Edit(Place("int3", "add qword ptr gs:[0x234]")),
    ),
    entry_mutant(
        "ist-moved-for-good",
        "INT3 moves its IST stack down and not up again",
        "linux-insides, Interrupts part 3: shift_ist",
        Witness("int3-from-kernel"),
        Edit(Place("int3", "add qword ptr gs:[0x234]")),
    ),
    entry_mutant(
        "error-code-looks-like-a-system-call",
        "a page fault leaves its error code in ORIG_RAX, where -1 says that no system call is to be restarted",
        _IDTENTRY,
        Witness("page-fault-from-user"),
        Edit(Place("page_fault", "mov qword ptr [rsp+0x78]")),
    ),
    entry_mutant(
        "system-call-number-lost",
        "SYSCALL saves RCX where ORIG_RAX belongs",
        "SDM Vol. 2B, SYSCALL",
        Witness("system-call-from-user"),
        Edit(Place("system_call_on_kernel_stack", "push rax"), Bytes("51", "push rcx")),
    ),
    entry_mutant(
        "error-code-not-passed",
        "the handler of #GP gets 0 in RSI",
        _IDTENTRY,
        Witness("general-protection-from-user"),
        Edit(Place("general_protection", "mov rsi"), Bytes("31f6", "xor esi, esi")),
    ),
    entry_mutant(
        "interrupt-stays-on-thread-stack",
        "the outermost interrupt does not change to the interrupt stack",
        "Linux, Documentation/x86/kernel-stacks",
        Witness("interrupt-from-user"),
        Edit(Place("common_interrupt", "cmove rsp")),
    ),
    entry_mutant(
        "interrupt-count-not-restored",
        "irq_count is not counted down: the second interrupt takes itself for a nested one and stays on the thread stack",
        "Linux, arch/x86/entry/entry_64.S: irq_count is -1 outside interrupts",
        Witness("interrupt-from-user", (Arrival(EventKind.INTERRUPT, Place("native_irq_return_iret", "iretq")),)),
        Edit(Place("return_from_interrupt", "dec")),
        arrival_only=True,
    ),
    entry_mutant(
        "system-call-on-user-stack",
        "SYSCALL does not change RSP, and neither does the entry: the kernel runs on the stack that user mode chose",
        "SDM Vol. 2B, SYSCALL: RSP is not saved",
        Witness("system-call-from-user"),
        Edit(Place("system_call", "mov rsp, gs:[0]")),
    ),
    entry_mutant(
        "paranoid-exit-reschedules",
        "a paranoid exit to kernel mode calls the scheduler like any other",
        _DOCUMENT,
        Witness("int3-from-kernel", memory=(recorder_asks("reschedule", "do_int3"),)),
        Edit(Place("paranoid_exit", "jmp restore_registers_and_return"), Into("return_to_kernel")),
    ),
)
