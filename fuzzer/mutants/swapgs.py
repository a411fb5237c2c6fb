"""Planted bugs about GS and CR3: SWAPGS "must nest perfectly and only in single depth" (Linux, Documentation/x86/entry_64.txt)."""

from __future__ import annotations

from fuzzer.mutants.code import Edit, Into, Place
from fuzzer.mutants.mutant import entry_mutant
from fuzzer.mutants.tables import NotPatched
from fuzzer.mutants.witness import Arrival, Witness
from fuzzer.targets import layout
from reference.image import EventKind

_DOCUMENT = "Linux, Documentation/x86/entry_64.txt"
_ISOLATION = "Linux, Documentation/x86/pti.txt"
_GAP = Place("system_call", "swapgs")
"""The first instruction behind SYSCALL: CS says kernel, GS and RSP are the user's."""
_KERNEL_LIKE = layout.KERNEL_DATA.start

SWAPGS = (
    entry_mutant(
        "debug-not-paranoid",
        "#DB takes the cheap GS test: on the first instruction of SYSCALL, CS says kernel and GS is the user's",
        _DOCUMENT,
        Witness("debug-in-syscall-gap", profile="intel-2012"),
        Edit(Place("debug", "call paranoid_entry"), Into("error_entry")),
        Edit(Place("debug", "jmp paranoid_exit"), Into("error_exit")),
    ),
    entry_mutant(
        "machine-check-not-paranoid",
        "a machine check takes the cheap GS test: wrong only in the few instructions around each SWAPGS",
        _DOCUMENT,
        Witness("system-call-from-user", (Arrival(EventKind.MACHINE_CHECK, _GAP),)),
        Edit(Place("machine_check", "call paranoid_entry"), Into("error_entry")),
        Edit(Place("machine_check", "jmp paranoid_exit"), Into("error_exit")),
    ),
    entry_mutant(
        "nmi-trusts-cs",
        "an NMI from kernel mode takes the kernel's GS for granted, and leaves it as it is",
        _DOCUMENT,
        Witness("system-call-from-user", (Arrival(EventKind.NMI, _GAP),)),
        Edit(Place("end_repeat_nmi", "call paranoid_entry"), Into("error_entry")),
        Edit(Place("end_repeat_nmi", "mov cr3")),
        Edit(Place("end_repeat_nmi", "wrgsbase")),
        Edit(Place("end_repeat_nmi", "swapgs")),
    ),
    entry_mutant(
        "entry-without-swapgs",
        "error_entry leaves the user's GS in place",
        _DOCUMENT,
        Witness("divide-error-from-user"),
        Edit(Place("error_entry", "swapgs")),
    ),
    entry_mutant(
        "entry-always-swaps",
        "error_entry uses SWAPGS blindly: a second entry, already in kernel mode, gets the user's GS",
        _DOCUMENT,
        Witness("divide-error-from-kernel"),
        Edit(Place("error_entry", "je")),
    ),
    entry_mutant(
        "exit-without-swapgs",
        "the way back to the user keeps the kernel's GS: the handler ran well, the next entry breaks",
        _DOCUMENT,
        Witness("divide-error-from-user"),
        Edit(Place("return_to_user_without_work", "swapgs", nth=1)),
    ),
    entry_mutant(
        "isolated-exit-without-swapgs",
        "the same, on the way back through the entry stack that page-table isolation added beside the old one",
        _ISOLATION,
        Witness("divide-error-from-user", profile="intel-pti"),
        Edit(Place("return_to_user_without_work", "swapgs", nth=0)),
    ),
    entry_mutant(
        "exit-swaps-once-more",
        "error_exit takes the way to the user from kernel mode too: one SWAPGS too many",
        "FreeBSD-SA-08:07.amd64 (CVE-2008-3890)",
        Witness("page-fault-from-kernel"),
        Edit(Place("error_exit", "je")),
    ),
    entry_mutant(
        "sysret-without-swapgs",
        "the fast return forgets what the slow one does",
        _DOCUMENT,
        Witness("system-call-from-user"),
        Edit(Place("system_call_fast_return", "swapgs", nth=1)),
    ),
    entry_mutant(
        "paranoid-exit-does-not-restore",
        "paranoid_exit leaves the kernel's GS where the interrupted code had the user's",
        _DOCUMENT,
        Witness("debug-in-syscall-gap"),
        Edit(Place("paranoid_exit", "wrgsbase")),
    ),
    entry_mutant(
        "paranoid-exit-trusts-rbx",
        "paranoid_entry does not note what it found, so the exit decides by what the interrupted code had in EBX",
        "CVE-2018-14678: an entry that did not maintain RBX",
        Witness("debug-in-syscall-gap", profile="intel-2010", registers={"rbx": 1 << 31}),
        Edit(Place("paranoid_entry", "mov ebx")),
    ),
    entry_mutant(
        "sign-test-where-user-mode-writes-gs",
        "CR4.FSGSBASE is on and the entry still asks for the sign of GS, which is the user's to choose",
        "Linux, Documentation/x86/entry_64.txt: the test; SDM Vol. 2B, WRGSBASE",
        Witness("debug-in-syscall-gap", registers={"gs_base": _KERNEL_LIKE}),
        NotPatched("fsgsbase"),
    ),
    entry_mutant(
        "gs-change-fix-up-dropped",
        "a fault of the load of GS, between two SWAPGS, reaches its handler with the user's GS",
        "Linux, arch/x86/entry/entry_64.S: gs_change",
        Witness("bad-gs-from-kernel"),
        Edit(Place("error_entry", "swapgs", nth=1)),
    ),
    entry_mutant(
        "isolated-entry-keeps-user-tables",
        "error_entry runs its handler on user mode's page tables",
        _ISOLATION,
        Witness("divide-error-from-user", profile="intel-pti"),
        Edit(Place("error_entry", "mov cr3")),
    ),
    entry_mutant(
        "paranoid-exit-keeps-kernel-tables",
        "paranoid_exit does not switch CR3 back: what it interrupted goes on with the kernel's tables",
        _ISOLATION,
        Witness("debug-in-syscall-gap", profile="intel-pti"),
        Edit(Place("paranoid_exit", "mov cr3")),
    ),
)
