"""Planted bugs in the NMI entry: "handled separately", because an NMI can hit anywhere, itself included."""

from __future__ import annotations

from fuzzer.mutants.code import TAKEN, Edit, Place
from fuzzer.mutants.mutant import entry_mutant
from fuzzer.mutants.witness import Arrival, Witness
from reference.bits import DF, FIXED, IF
from reference.image import EventKind

_NESTING = "Linux, arch/x86/entry/entry_64.S: nested NMIs"

NMI = (
    entry_mutant(
        "nested-nmi-not-detected",
        "an NMI whose latch an exception opened is taken for the first one, and its frame is overwritten",
        _NESTING,
        Witness("nmi-nested-from-kernel"),
        Edit(Place("nmi", "je", nth=1)),
    ),
    entry_mutant(
        "nested-nmi-not-repeated",
        "a nested NMI returns without asking the outer one to run again: it is lost",
        _NESTING,
        Witness("nmi-nested-from-kernel"),
        Edit(Place("nmi", "mov [rsp-0x30]")),
    ),
    entry_mutant(
        "nmi-on-its-last-instruction",
        "the NMI that has said that it is done and not yet left is not recognized",
        "CVE-2015-3290 and CVE-2015-3291: the windows of the nested-NMI code",
        Witness("nmi-nested-from-kernel", (Arrival(EventKind.NMI, Place("nmi_return", "iretq")),)),
        Edit(Place("nmi", "je first_nmi"), TAKEN),
        arrival_only=True,
    ),
    entry_mutant(
        "nmi-while-it-repeats",
        "an NMI that arrives while the outer one copies its frame for another run changes the frame under its hands",
        _NESTING,
        Witness("nmi-nested-from-kernel", (Arrival(EventKind.NMI, Place("repeat_nmi", "push", nth=3)),)),
        Edit(Place("nmi", "jb", nth=1)),
        arrival_only=True,
    ),
    entry_mutant(
        "nmi-executing-never-set",
        "the word that says that an NMI is under way stays 0",
        _NESTING,
        Witness("nmi-nested-from-kernel"),
        Edit(Place("repeat_nmi", "mov qword ptr")),
    ),
    entry_mutant(
        "user-nmi-without-cld",
        "the NMI from user mode has its own way in, and no CLD",
        "System V ABI, AMD64 supplement, 3.2.1",
        Witness("nmi-from-user", registers={"rflags": FIXED | IF | DF}),
        Edit(Place("nmi", "cld")),
    ),
    entry_mutant(
        "user-nmi-stays-on-ist-stack",
        "an NMI from user mode keeps its IST stack: an exception in its handler lets the next one overwrite its frame",
        "Linux, x86/nmi/64: Switch stacks on userspace NMI entry (CVE-2015-3290)",
        Witness("nmi-from-user"),
        Edit(Place("nmi", "mov rsp")),
    ),
    entry_mutant(
        "user-nmi-keeps-user-tables",
        "an NMI from user mode runs its handler on user mode's page tables",
        "Linux, Documentation/x86/pti.txt",
        Witness("nmi-from-user", profile="intel-pti"),
        Edit(Place("nmi", "mov cr3")),
    ),
)
