"""What a start state has to be for the contract to apply: a machine that this kernel could be running on (docs/contract.md).

What user mode can set is not asked about: general registers, RSP, RIP, user flags, its selectors and bases.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from reference.bits import CANONICAL_LOW_END
from reference.descriptors import Gate
from reference.image import Image
from reference.linux.contexts import stack_at
from reference.linux.entry_code import EntryCode, StackKind
from reference.linux.look import Look
from reference.machine import Machine
from reference.profiles import Cr0, Cr4, Efer

_CR0: Final = Cr0.PE | Cr0.PG | Cr0.WP
_EFER: Final = Efer.SCE | Efer.LME | Efer.LMA | Efer.NXE


def assumes(image: Image, code: EntryCode) -> tuple[str, ...]:
    """What of `image` is not as the contract takes it to be; empty where the contract applies."""
    return (*_mode(image, code), *_tables(image, code), *_breakpoints(image, code))


def _mode(image: Image, code: EntryCode) -> Iterator[str]:
    at = image.registers
    if at["cr0"] & _CR0 != _CR0 or at["efer"] & _EFER != _EFER:
        yield "the kernel runs with paging, write protection, SYSCALL and NX on"
    kernel = at["cs"] & 3 == 0 and at["rip"] not in code.bad_return
    ours, users = ("gs_base", "kernel_gs_base") if kernel else ("kernel_gs_base", "gs_base")
    if at[ours] != code.percpu:
        yield f"the kernel's GS base is {code.percpu:#x}"
    if not at["cr4"] & Cr4.FSGSBASE and at[users] >= CANONICAL_LOW_END:
        yield "without CR4.FSGSBASE the kernel lets no program have a GS base in the kernel's half"
    if kernel:
        stack = stack_at(code, at["rsp"])
        if stack is None or stack.kind is StackKind.ENTRY:
            yield "kernel code is on one of the kernel's stacks"
        if at["cr3"] != code.kernel_cr3:
            yield f"kernel code runs with CR3 {code.kernel_cr3:#x}"


def _tables(image: Image, code: EntryCode) -> Iterator[str]:
    """The IDT leads into the entry code, stacks and text are mapped."""
    m, look, at = Machine(image), Look(code.kernel_cr3), image.registers
    for vector in sorted({handler.vector for handler in code.handlers.values() if handler.vector is not None}):
        words = look.words(m, at["idtr_base"] + 16 * vector, 2) if vector * 16 + 15 <= at["idtr_limit"] else None
        gate = Gate(*words) if words else None
        if gate is None or not (gate.present and gate.is_interrupt_or_trap and _in_text(code, gate.offset)):
            yield f"the gate of vector {vector} leads into the entry code"
    for name, start, end in (*((stack.name, stack.start, stack.end) for stack in code.stacks), *(("text", *span) for span in code.text)):
        if look.read(m, start, end - start) is None:
            yield f"{name} is mapped"


def _breakpoints(image: Image, code: EntryCode) -> Iterator[str]:
    """A kernel keeps breakpoints off its entry code; MOV SS before a fast system call brings a #DB to that one's first instruction."""
    at = image.registers
    entries = {at[name] for name in ("lstar", "cstar", "sysenter_eip")}
    for number in range(4):
        address = at[f"dr{number}"]
        if at["dr7"] >> 2 * number & 3 and address not in entries and _in_text(code, address):
            yield f"no breakpoint stands in the entry code, DR{number} is {address:#x}"


def _in_text(code: EntryCode, address: int) -> bool:
    return any(start <= address < end for start, end in code.text)
