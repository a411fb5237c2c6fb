"""The target `linux4`: entry code of the 4.x kind, and a scenario for each way into it from user and from kernel mode."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from fuzzer.targets import layout, tables
from fuzzer.targets.linux4 import image
from fuzzer.targets.target import Patch, Scenario, Target, patch
from reference.bits import AC, DR7_FIXED, FIXED, IF, RF, TF

_IMAGE = image.load()
SYMBOLS: Mapping[str, int] = _IMAGE.symbols
END = bytes([0xCD, layout.END_VECTOR])

# User code: an instruction that provokes an event, or none, then ordinary ones to be interrupted; RESUME is where a handler sends it on.
_ORDINARY = bytes.fromhex(
    "b801000000"  # mov eax, 1
    "488d5c24f8"  # lea rbx, [rsp-8]
    "53"  # push rbx
    "59"  # pop rcx
    "4801d8"  # add rax, rbx
    "65488b142500000000"  # mov rdx, gs:[0]
    "9c"  # pushfq
    "58"  # pop rax
)
_RESUME = 0x40
_SLOT = 0x100
_USER_CODES = (
    "",
    "b801000000 31d2 31c9 f7f1",  # mov eax, 1; xor edx, edx; xor ecx, ecx; div ecx
    "0f05",  # syscall
    "cc",  # int3
    "b8f8ff0000 8ec0",  # mov eax, 0xfff8; mov es, eax
    "31c0 488b00",  # xor eax, eax; mov rax, [rax]
    "0f0b",  # ud2
    "b86b000000 8ec0",  # mov eax, 0x6b; mov es, eax
    "50",  # push rax
    "488b4424f9",  # mov rax, [rsp-7]
)
"""What user code begins with, each in a slot of its own, so that all scenarios share the same pages of code."""


def _slot(code: str) -> int:
    return layout.USER_CODE.start + _SLOT * _USER_CODES.index(code)


def _user_pages() -> bytes:
    """User code that ends the run behind its ordinary instructions, and ends it too where a handler resumes."""
    bodies = (bytes.fromhex(code) + _ORDINARY + END for code in _USER_CODES)
    return b"".join((body.ljust(_RESUME, b"\xcc") + END).ljust(_SLOT, b"\xcc") for body in bodies)


def _change(handler: str, field: str, value: int) -> Patch:
    """The control page that makes `handler` write one field of the pt_regs it was given."""
    data = struct.pack("<QQQQQQ", 0, image.HANDLERS[handler], 1, 0, image.PT_REGS[field], value)
    return patch(layout.CONTROL, 0, data)


def _resume_user(handler: str, code: str) -> Patch:
    return _change(handler, "rip", _slot(code) + _RESUME)


def _user(name: str, summary: str, code: str = "", *memory: Patch, **registers: int) -> Scenario:
    return Scenario(name, summary, 3, {"rip": _slot(code), **registers}, memory)


def _fault(name: str, summary: str, code: str, handler: str, **registers: int) -> Scenario:
    """A fault in user code, whose handler sends it on."""
    return _user(name, summary, code, _resume_user(handler, code), **registers)


def _kernel(name: str, summary: str, symbol: str, *memory: Patch, **registers: int) -> Scenario:
    return Scenario(name, summary, 0, {"rip": SYMBOLS[symbol], **registers}, memory)


def _provoked(vector_name: str, symbol: str) -> Scenario:
    """An exception that kernel code provokes; the handler sends it to the label behind."""
    resume = _change(f"do_{vector_name}", "rip", SYMBOLS[f"{symbol}_resume"])
    return _kernel(f"{vector_name.replace('_', '-')}-from-kernel", f"kernel code raises {vector_name}", symbol, resume)


_QUIET = FIXED | IF
_RESUMED = FIXED | RF
"""What a debugger sets so that the instruction under a breakpoint runs: RF; in the syscall gap interrupts are off."""
"""RFLAGS that a debug handler returns with, so that stepping stops after one trap."""
_BREAKPOINT = DR7_FIXED | 1

SCENARIOS = (
    _user("interrupt-from-user", "user code, for an interrupt to arrive in"),
    _kernel("interrupt-from-kernel", "kernel code with interrupts on, off and on again", "kernel_code"),
    _user("nmi-from-user", "user code, for an NMI to arrive in"),
    _kernel("nmi-from-kernel", "kernel code, for an NMI to arrive in", "kernel_code"),
    _fault("divide-error-from-user", "DIV by 0", _USER_CODES[1], "do_divide_error"),
    _provoked("divide_error", "kernel_divide"),
    _user("debug-from-user", "single step (RFLAGS.TF)", "", _change("do_debug", "rflags", _QUIET), rflags=_QUIET | TF),
    _kernel("debug-from-kernel", "single step in the kernel", "kernel_code", _change("do_debug", "rflags", _QUIET), rflags=_QUIET | TF),
    _user(
        "breakpoint-register-from-user",
        "DR0 on the second instruction",
        "",
        _change("do_debug", "rflags", _QUIET | RF),
        dr0=_slot("") + 5,
        dr7=_BREAKPOINT,
    ),
    _user(
        "debug-in-syscall-gap",
        "DR0 on the first instruction behind SYSCALL",
        "0f05",
        _change("do_debug", "rflags", _RESUMED),
        dr0=SYMBOLS["system_call"],
        dr7=_BREAKPOINT,
    ),
    _user("int3-from-user", "INT3", "cc"),
    _kernel("int3-from-kernel", "INT3 in the kernel", "kernel_int3"),
    _fault("general-protection-from-user", "a selector past the GDT into ES", _USER_CODES[4], "do_general_protection"),
    _provoked("general_protection", "kernel_general_protection"),
    _fault("page-fault-from-user", "a load from a page that is not mapped", _USER_CODES[5], "do_page_fault"),
    _provoked("page_fault", "kernel_page_fault"),
    _fault("invalid-opcode-from-user", "UD2", "0f0b", "do_invalid_op"),
    _fault("segment-not-present-from-user", "a segment that is not present into ES", _USER_CODES[7], "do_segment_not_present"),
    _fault("stack-segment-from-user", "a push below a non-canonical RSP", "50", "do_stack_segment", rsp=0x8000_0000_1000),
    _fault("alignment-check-from-user", "a misaligned load", _USER_CODES[9], "do_alignment_check", rflags=_QUIET | AC),
    _user("system-call-from-user", "SYSCALL, returning by IRETQ", "0f05"),
)


def _idt() -> dict[int, bytes]:
    gates = {gate.vector: tables.gate(SYMBOLS[gate.symbol], ist=gate.ist, dpl=gate.dpl) for gate in image.GATES}
    gates[layout.END_VECTOR] = tables.gate(layout.KERNEL_CODE.start, ist=layout.IST_END, dpl=3)
    return gates


def _with_entry_point(scenario: Scenario) -> Scenario:
    registers = {"lstar": SYMBOLS["system_call"], **scenario.registers}
    return Scenario(scenario.name, scenario.summary, scenario.cpl, registers, scenario.memory)


TARGET = Target(
    name="linux4",
    summary="Linux entry code as it was around 4.x: idtentry, error_entry, paranoid_entry, interrupts, NMI, SYSCALL",
    pages={
        **tables.blank_pages(),
        **tables.system_pages(image.percpu_image(), _idt()),
        **tables.region_pages(layout.KERNEL_TEXT, _IMAGE.text, fill=0xCC),
        **tables.region_pages(layout.USER_CODE, _user_pages(), fill=0xCC),
        **tables.region_pages(layout.KERNEL_CODE, b"\xf4", fill=0xCC),
    },
    scenarios=tuple(_with_entry_point(scenario) for scenario in SCENARIOS),
    symbols=SYMBOLS,
)
