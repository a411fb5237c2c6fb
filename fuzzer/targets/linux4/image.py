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
    CONTROL,
    END_VECTOR,
    IRQ_STACK,
    IST_DEBUG,
    IST_DOUBLE_FAULT,
    IST_NMI,
    LOG,
    PAGE,
    PERCPU,
    THREAD_STACK,
    TSS_OFFSET,
    USER_CS,
    USER_DS,
)

HERE = Path(__file__).parent
TEXT_FILE = HERE / "entry.bin"
SYMBOLS_FILE = HERE / "entry.json"


@dataclass(frozen=True, slots=True)
class Image4:
    """The kernel text, in whole pages from KERNEL_TEXT.start, and the addresses of its labels."""

    text: bytes
    symbols: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Gate:
    """One interrupt gate of the target; `ist` 0 keeps the stack or takes RSP0."""

    vector: int
    symbol: str
    ist: int = 0
    dpl: int = 0


FIRST_INTERRUPT = 0x20
INTERRUPTS = 16

GATES = (
    Gate(0, "divide_error"),
    Gate(1, "debug", ist=IST_DEBUG),
    Gate(2, "nmi", ist=IST_NMI),
    Gate(3, "int3", ist=IST_DEBUG, dpl=3),
    Gate(6, "invalid_op"),
    Gate(8, "double_fault", ist=IST_DOUBLE_FAULT),
    Gate(10, "invalid_TSS"),
    Gate(11, "segment_not_present"),
    Gate(12, "stack_segment"),
    Gate(13, "general_protection"),
    Gate(14, "page_fault"),
    Gate(17, "alignment_check"),
    *(Gate(vector, f"interrupt_{vector:#x}") for vector in range(FIRST_INTERRUPT, FIRST_INTERRUPT + INTERRUPTS)),
)

# 0x100 + vector for exceptions; 0 is kept for "any handler" in the control page.
HANDLERS = {
    "do_divide_error": 0x100,
    "do_debug": 0x101,
    "do_nmi": 0x102,
    "do_int3": 0x103,
    "do_invalid_op": 0x106,
    "do_double_fault": 0x108,
    "do_invalid_TSS": 0x10A,
    "do_segment_not_present": 0x10B,
    "do_stack_segment": 0x10C,
    "do_general_protection": 0x10D,
    "do_page_fault": 0x10E,
    "do_alignment_check": 0x111,
    "do_IRQ": 0x200,
    "do_syscall_64": 0x201,
}

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
}
MAX_CHANGES = 4

PERCPU_FIELDS = {
    "cpu_current_top_of_stack": 0x00,
    "irq_stack_ptr": 0x08,
    "irq_count": 0x10,
    "rsp_scratch": 0x18,
    "kernel_work": 0x20,
    "cpu_tss": TSS_OFFSET,
}

BAD_SELECTOR = 0xFFF8
"""Past the end of every GDT: what kernel_general_protection loads."""
UNMAPPED = PERCPU.end
"""A kernel address no region covers: what kernel_page_fault reads."""


def constants() -> dict[str, int]:
    """Every number the assembler shares with Python, under its name in constants.inc."""
    groups = {"PT": PT_REGS, "HANDLER": HANDLERS, "RECORD": RECORD, "CONTROL": CONTROL_FIELDS, "PERCPU": PERCPU_FIELDS}
    named = {f"{group}_{name}": value for group, table in groups.items() for name, value in table.items()}
    return named | {
        "PT_SIZE": PT_REGS_SIZE,
        "PT_WORDS": len(PT_REGS),
        "RECORD_SIZE": RECORD_SIZE,
        "LOG": LOG.start,
        "LOG_MASK": LOG.size - 1,
        "CONTROL": CONTROL.start,
        "USER_CS": USER_CS,
        "USER_DS": USER_DS,
        "IST_DEBUG": IST_DEBUG,
        "END_VECTOR": END_VECTOR,
        "BAD_SELECTOR": BAD_SELECTOR,
        "UNMAPPED": UNMAPPED,
    }


def load() -> Image4:
    """The committed image; no assembler is needed."""
    symbols = json.loads(SYMBOLS_FILE.read_text(encoding="utf-8"))["symbols"]
    text = TEXT_FILE.read_bytes()
    padded = text + bytes(-len(text) % PAGE)
    return Image4(padded, MappingProxyType({name: int(address, 16) for name, address in symbols.items()}))


def percpu_image() -> bytes:
    """The per-CPU page before the first event, with zeros where the TSS goes."""
    page = bytearray(PERCPU.size)
    struct.pack_into("<Q", page, PERCPU_FIELDS["cpu_current_top_of_stack"], THREAD_STACK.end)
    struct.pack_into("<Q", page, PERCPU_FIELDS["irq_stack_ptr"], IRQ_STACK.end)
    struct.pack_into("<i", page, PERCPU_FIELDS["irq_count"], -1)
    return bytes(page)
