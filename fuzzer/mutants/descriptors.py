"""Planted bugs in what the processor reads: gates, stacks of the TSS, and registers that the kernel sets up once."""

from __future__ import annotations

from fuzzer.mutants.code import Place
from fuzzer.mutants.mutant import Kind, Mutant
from fuzzer.mutants.tables import Change, Gate, Register, Tss, TssStack
from fuzzer.mutants.witness import Arrival, Witness
from fuzzer.targets import layout
from reference.bits import AC, DF, FIXED, IF, TF
from reference.image import EventKind

_GATES = "SDM Vol. 3A, 7.12.1"
_MASK = "SDM Vol. 2B, SYSCALL: RFLAGS AND NOT IA32_FMASK"
_IST = "SDM Vol. 3A, 7.14.5"
_INTERRUPT_GATE, _TRAP_GATE = 0xE, 0xF


def _mutant(name: str, story: str, source: str, witness: Witness, change: Change, arrival_only: bool = False) -> Mutant:
    return Mutant(name, Kind.DESCRIPTOR, story, source, witness, (change,), arrival_only=arrival_only)


GATES = (
    _mutant(
        "int3-gate-closed",
        "the gate of INT3 has DPL 0: a breakpoint of user mode becomes #GP",
        f"{_GATES}.2; Linux, early_trap_init",
        Witness("int3-from-user"),
        Gate(3, "dpl", 0),
    ),
    _mutant(
        "debug-gate-without-ist",
        "a #DB on the first instruction of SYSCALL is pushed onto the stack that user mode chose",
        "CVE-2018-8897 shows what an event there can do",
        Witness("debug-in-syscall-gap"),
        Gate(1, "ist", 0),
    ),
    _mutant(
        "nmi-gate-without-ist",
        "an NMI on the first instruction of SYSCALL is pushed onto the stack that user mode chose",
        _IST,
        Witness("system-call-from-user", (Arrival(EventKind.NMI, Place("system_call", "swapgs")),)),
        Gate(2, "ist", 0),
    ),
    _mutant(
        "nmi-shares-the-debug-stack",
        "NMI and #DB have one IST slot: an NMI in the debug handler overwrites its frame",
        _IST,
        Witness("debug-from-kernel", (Arrival(EventKind.NMI, Place("do_debug", "mov eax")),)),
        Gate(2, "ist", layout.IST_DEBUG),
    ),
    _mutant(
        "page-fault-trap-gate",
        "a trap gate leaves IF set: an interrupt before SWAPGS sees a kernel CS and the user's GS",
        f"{_GATES}.3",
        Witness("page-fault-from-user", (Arrival(EventKind.INTERRUPT, Place("error_entry", "cld")),), profile="intel-2012"),
        Gate(14, "type", _TRAP_GATE),
        arrival_only=True,
    ),
)

STACKS = (
    _mutant(
        "rsp0-at-the-wrong-end",
        "RSP0 is the bottom of the thread stack, so the first push is into the guard page",
        "SDM Vol. 3A, 7.14.2",
        Witness("page-fault-from-user"),
        Tss("rsp0", -layout.THREAD_STACK.size),
    ),
    _mutant(
        "rsp0-is-the-interrupt-stack",
        "events of user mode are handled on the interrupt stack",
        "SDM Vol. 3A, 7.14.2; Linux, Documentation/x86/kernel-stacks",
        Witness("page-fault-from-user"),
        TssStack("rsp0", layout.IRQ_STACK),
    ),
    _mutant(
        "machine-check-on-the-nmi-stack",
        "the machine-check slot holds the NMI stack",
        _IST,
        Witness("nmi-from-kernel", (Arrival(EventKind.NMI, 1), Arrival(EventKind.MACHINE_CHECK, Place("do_nmi", "mov eax")))),
        TssStack("ist4", layout.NMI_STACK),
    ),
)

REGISTERS = (
    _mutant(
        "fmask-without-if",
        "SYSCALL leaves interrupts on: one arrives on the user's stack, with the user's GS and a kernel CS",
        _MASK,
        Witness("system-call-from-user", (Arrival(EventKind.INTERRUPT, Place("system_call", "swapgs")),)),
        Register("sfmask", "does not clear IF", without=IF),
        arrival_only=True,
    ),
    _mutant(
        "fmask-without-df",
        "SYSCALL leaves DF as user mode set it",
        _MASK,
        Witness("system-call-from-user", registers={"rflags": FIXED | IF | DF}),
        Register("sfmask", "does not clear DF", without=DF),
    ),
    _mutant(
        "fmask-without-ac",
        "SYSCALL leaves AC as user mode set it, and AC lifts SMAP",
        f"{_MASK}; SDM Vol. 3A, 5.6.1",
        Witness("system-call-from-user", registers={"rflags": FIXED | IF | AC}),
        Register("sfmask", "does not clear AC", without=AC),
    ),
    _mutant(
        "fmask-without-tf",
        "a user that single-steps over SYSCALL steps on through the kernel",
        f"{_MASK}; SDM Vol. 3B, 18.3.1.4",
        Witness("system-call-single-step"),
        Register("sfmask", "does not clear TF", without=TF),
    ),
)

DESCRIPTORS = (*GATES, *STACKS, *REGISTERS)
