"""The assembled target `linux4`: its kernel text, its symbols, and the tables its machine is built and read with.

The tables here are the one source of every number the assembler and Python share: assemble.py hands them to `as` as constants.inc
and writes them into entry.json, and a test compares that with this file.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from fuzzer.targets.layout import (
    COMPAT_CODE,
    CONTROL,
    END_VECTOR,
    ENTRY_TEXT_PAGES,
    IRQ_STACK,
    IST_DEBUG,
    IST_DOUBLE_FAULT,
    IST_MACHINE_CHECK,
    IST_NMI,
    KERNEL_CS,
    KERNEL_DS,
    LOG,
    PAGE,
    PERCPU,
    THREAD_STACK,
    TSS_OFFSET,
    USER32_CS,
    USER_CS,
    USER_DS,
)
from fuzzer.targets.tables import USER_CR3_BIT

HERE = Path(__file__).parent
TEXT_FILE = HERE / "entry.bin"
SYMBOLS_FILE = HERE / "entry.json"


@dataclass(frozen=True, slots=True)
class Alternative:
    """Code that stands at `address` where the machine has `feature`."""

    address: int
    feature: str
    code: bytes


@dataclass(frozen=True, slots=True)
class Image4:
    """The kernel text, in whole pages from KERNEL_TEXT.start, the addresses of its labels, and what features change in it."""

    text: bytes
    symbols: Mapping[str, int]
    alternatives: tuple[Alternative, ...]


@dataclass(frozen=True, slots=True)
class Gate:
    """One interrupt gate of the target; `ist` 0 keeps the stack or takes RSP0, `paranoid` is as `idtentry` has it."""

    vector: int
    symbol: str
    ist: int = 0
    dpl: int = 0
    paranoid: int = 0


GATES = (
    Gate(0, "divide_error"),
    Gate(1, "debug", ist=IST_DEBUG, paranoid=1),
    Gate(2, "nmi", ist=IST_NMI, paranoid=1),
    Gate(3, "int3", ist=IST_DEBUG, dpl=3, paranoid=1),
    Gate(4, "overflow", dpl=3),
    Gate(5, "bounds"),
    Gate(6, "invalid_op"),
    Gate(7, "device_not_available"),
    Gate(8, "double_fault", ist=IST_DOUBLE_FAULT, paranoid=2),
    Gate(9, "coprocessor_segment_overrun"),
    Gate(10, "invalid_TSS"),
    Gate(11, "segment_not_present"),
    Gate(12, "stack_segment"),
    Gate(13, "general_protection"),
    Gate(14, "page_fault"),
    Gate(15, "spurious_interrupt_bug"),
    Gate(16, "coprocessor_error"),
    Gate(17, "alignment_check"),
    Gate(18, "machine_check", ist=IST_MACHINE_CHECK, paranoid=1),
    Gate(19, "simd_coprocessor_error"),
    Gate(20, "virtualization"),
    Gate(21, "control_protection"),
    Gate(0x80, "entry_INT80_compat", dpl=3),
    Gate(0xEF, "apic_timer_interrupt"),
    Gate(0xF5, "uv_bau_message_intr1"),
    Gate(0xFB, "call_function_single_interrupt"),
    Gate(0xFC, "call_function_interrupt"),
    Gate(0xFD, "reschedule_interrupt"),
    Gate(0xFE, "error_interrupt"),
    Gate(0xFF, "spurious_interrupt"),
)
"""The gates with an entry of their own, as Linux 4.x numbers them. Vectors 22 to 31 have none: nothing raises them."""

_APIC_VECTORS = {
    0xEF: "LOCAL_TIMER",
    0xF5: "TLB_SHOOTDOWN",
    0xFB: "CALL_FUNCTION_SINGLE",
    0xFC: "CALL_FUNCTION",
    0xFD: "RESCHEDULE",
    0xFE: "ERROR_APIC",
    0xFF: "SPURIOUS_APIC",
}

FIRST_INTERRUPT = 0x20
STUBS = {
    vector: f"interrupt_{vector:#x}"
    for vector in range(FIRST_INTERRUPT, 0x100)
    if vector != END_VECTOR and vector not in {gate.vector for gate in GATES}
}
"""Every other vector enters through a stub of the interrupt array."""

ERROR_CODES = frozenset({8, 10, 11, 12, 13, 14, 17, 21})
"""Vectors for which the processor pushes an error code (SDM Vol. 3A, Table 7-1)."""
_IN_THE_KERNEL = "nothing in the model raises it; INT in the kernel enters it"
UNRAISED = {
    9: _IN_THE_KERNEL,
    15: _IN_THE_KERNEL,
    16: f"x87 exceptions are not modelled: {_IN_THE_KERNEL}",
    19: f"SSE exceptions are not modelled: {_IN_THE_KERNEL}",
    20: f"virtual machines are not modelled: {_IN_THE_KERNEL}",
    21: "shadow stacks are not modelled, and INT pushes no error code: nothing enters it",
}
"""What can be said of gates that no event leads to."""

ALL_GATES = (*GATES, *(Gate(vector, symbol) for vector, symbol in STUBS.items()))

INTERRUPT_HANDLERS = {
    0x80: "do_int80_syscall_32",
    0xEF: "smp_apic_timer_interrupt",
    0xF5: "uv_bau_message_interrupt",
    0xFB: "smp_call_function_single_interrupt",
    0xFC: "smp_call_function_interrupt",
    0xFD: "smp_reschedule_interrupt",
    0xFE: "smp_error_interrupt",
    0xFF: "smp_spurious_interrupt",
}
"""The C handlers of the vectors from 32 on that have an entry of their own; all others have do_IRQ."""

# 0x100 + vector for exceptions, 0x200 and up for interrupts and system calls, 0x300 and up for what is called on the way out;
# 0 is kept for "any handler" in the control page.
HANDLERS = {
    **{f"do_{gate.symbol}": 0x100 + gate.vector for gate in GATES if gate.vector < FIRST_INTERRUPT},
    "do_IRQ": 0x200,
    "do_syscall_64": 0x201,
    "do_int80_syscall_32": 0x202,
    "do_fast_syscall_32": 0x203,
    "smp_apic_timer_interrupt": 0x210,
    "uv_bau_message_interrupt": 0x211,
    "smp_call_function_single_interrupt": 0x212,
    "smp_call_function_interrupt": 0x213,
    "smp_reschedule_interrupt": 0x214,
    "smp_error_interrupt": 0x215,
    "smp_spurious_interrupt": 0x216,
    "schedule": 0x300,
    "preempt_schedule_irq": 0x301,
}

FEATURES = {"fsgsbase": 1, "smap": 2, "pti": 3}
"""What alternatives of the code depend on: fields of `Profile`."""
ALTERNATIVE = struct.Struct("<QBBB5s")
"""A row of .altinstructions: address, feature, length of the code there, length of its replacement, replacement."""

_PT_REGS_ORDER = "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs rflags rsp ss"
PT_REGS = {name: 8 * word for word, name in enumerate(_PT_REGS_ORDER.split())}
PT_REGS_SIZE = 8 * len(PT_REGS)

# A record of the log: eight words, then the whole pt_regs.
RECORD = {
    "handler": 0x00,
    "error_code": 0x08,
    "rsp": 0x10,
    "pt_regs": 0x18,
    "rflags": 0x20,
    "gs_base": 0x28,
    "kernel_gs_base": 0x30,
    "cr3": 0x38,
    "frame": 0x40,
}
RECORD_SIZE = 256
RECORDS = LOG.size // RECORD_SIZE

# The control page. `cursor` counts all bytes ever logged; a record's place in the log is the cursor modulo the log's size.
CONTROL_FIELDS = {
    "cursor": 0x00,
    "change_handler": 0x08,
    "change_count": 0x10,
    "changes": 0x20,
    "next_handler": 0x68,
    "next_count": 0x70,
    "next_changes": 0x80,
    "reschedule": 0xC0,
    "breakpoint": 0xC8,
}
"""The changes of the `next_` fields take the place of the first ones when those have been made. `reschedule` names the handler after
which the scheduler is due, `breakpoint` the one that executes INT3: each once."""
MAX_CHANGES = 4

PERCPU_FIELDS = {
    "cpu_current_top_of_stack": 0x00,
    "irq_stack_ptr": 0x08,
    "irq_count": 0x10,
    "rsp_scratch": 0x18,
    "kernel_work": 0x20,
    "need_resched": 0x28,
    "cpu_tss": TSS_OFFSET,
}

BAD_SELECTOR = 0xFFF8
"""Past the end of every GDT: what kernel_general_protection loads."""
ABSENT_SELECTOR = 0x6B
"""A segment that is not present (tables.GDT_ENTRIES)."""
NON_CANONICAL = 0x8000_0000_1000
UNMAPPED = PERCPU.end
"""A kernel address no region covers: what kernel_page_fault reads."""
SYSENTER_LANDING = COMPAT_CODE.end - 0x80
"""Where user mode goes on after SYSENTER: in Linux a place in the vDSO."""


def constants() -> dict[str, int]:
    """Every number the assembler shares with Python, under its name in constants.inc."""
    groups = {
        "PT": PT_REGS,
        "HANDLER": HANDLERS,
        "RECORD": RECORD,
        "CONTROL": CONTROL_FIELDS,
        "PERCPU": PERCPU_FIELDS,
        "FEATURE": FEATURES,
    }
    named = {f"{group}_{name}": value for group, table in groups.items() for name, value in table.items()}
    vectors = {f"{name}_VECTOR": vector for vector, name in _APIC_VECTORS.items()}
    return (
        named
        | vectors
        | {
            "PT_SIZE": PT_REGS_SIZE,
            "PT_WORDS": len(PT_REGS),
            "RECORD_SIZE": RECORD_SIZE,
            "CHANGE_WORDS": (CONTROL_FIELDS["changes"] + 16 * MAX_CHANGES - CONTROL_FIELDS["change_handler"]) // 8,
            "LOG": LOG.start,
            "LOG_MASK": LOG.size - 1,
            "CONTROL": CONTROL.start,
            "USER_CS": USER_CS,
            "USER_DS": USER_DS,
            "USER32_CS": USER32_CS,
            "KERNEL_CS": KERNEL_CS,
            "KERNEL_DS": KERNEL_DS,
            "PERCPU": PERCPU.start,
            "USER_CR3_BIT": USER_CR3_BIT,
            "ENTRY_TEXT_SIZE": ENTRY_TEXT_PAGES * PAGE,
            "ALTERNATIVE_SIZE": ALTERNATIVE.size,
            "SYSENTER_LANDING": SYSENTER_LANDING,
            "IST_DEBUG": IST_DEBUG,
            "END_VECTOR": END_VECTOR,
            "BAD_SELECTOR": BAD_SELECTOR,
            "ABSENT_SELECTOR": ABSENT_SELECTOR,
            "NON_CANONICAL": NON_CANONICAL,
            "UNMAPPED": UNMAPPED,
        }
    )


def load() -> Image4:
    """The committed image; no assembler is needed."""
    description = json.loads(SYMBOLS_FILE.read_text(encoding="utf-8"))
    text = TEXT_FILE.read_bytes()
    padded = text + bytes(-len(text) % PAGE)
    alternatives = (Alternative(int(row["address"], 16), row["feature"], bytes.fromhex(row["code"])) for row in description["alternatives"])
    symbols = {name: int(address, 16) for name, address in description["symbols"].items()}
    return Image4(padded, MappingProxyType(symbols), tuple(alternatives))


def percpu_image() -> bytes:
    """The per-CPU page before the first event, with zeros where the TSS goes."""
    page = bytearray(PERCPU.size)
    struct.pack_into("<Q", page, PERCPU_FIELDS["cpu_current_top_of_stack"], THREAD_STACK.end)
    struct.pack_into("<Q", page, PERCPU_FIELDS["irq_stack_ptr"], IRQ_STACK.end)
    struct.pack_into("<i", page, PERCPU_FIELDS["irq_count"], -1)
    return bytes(page)
