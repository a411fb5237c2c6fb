"""What the contract has to know of `linux4`: handlers, stacks, and the places where the rules bend."""

from __future__ import annotations

from fuzzer.targets import layout, tables
from fuzzer.targets.layout import PAGE, Region
from fuzzer.targets.linux4.image import GATES, INTERRUPT_HANDLERS, PT_REGS, Image4
from reference.linux.entry_code import Convention, EntryCode, Handler, Origin, Stack, StackKind

_THREAD, _INTERRUPT, _NMI = ("thread",), ("interrupt",), ("nmi",)
_DEBUG = ("debug", "debug-nested")

_ON_IST = {
    "do_debug": (_THREAD, _DEBUG),
    "do_int3": (_THREAD, _DEBUG),
    "do_nmi": (_THREAD, _NMI),
    "do_double_fault": (("double-fault",), ("double-fault",)),
    "do_machine_check": (_THREAD, ("machine-check",)),
}
"""Stacks of the handlers whose gates have an interrupt stack: from user mode, and from the kernel."""

_INTERRUPTS = {"do_IRQ": None, **{name: vector for vector, name in INTERRUPT_HANDLERS.items() if vector != 0x80}}
_SYSTEM_CALLS = {"do_syscall_64": None, "do_int80_syscall_32": 0x80, "do_fast_syscall_32": None}
_ORIGINS = {2: Origin.NMI, 18: Origin.MACHINE_CHECK}

_HIDDEN = frozenset({"r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"})
"""What 32-bit code cannot see."""


def entry_code(linked: Image4) -> EntryCode:
    """The description of the assembled image."""
    symbols = linked.symbols
    handlers = (*_exceptions(), *_interrupts(), *_system_calls())
    start, iret = layout.KERNEL_TEXT.start, symbols["native_irq_return_iret"]
    return EntryCode(
        handlers={symbols[handler.name]: handler for handler in handlers},
        percpu=layout.PERCPU.start,
        kernel_cr3=tables.CR3,
        stacks=_stacks(),
        pt_regs=PT_REGS,
        text=((start, symbols["kernel_code"]),),
        symbols=symbols,
        bad_return=frozenset({iret, iret & 0xFFFF_FFFF}),
        gs_change=frozenset({symbols["gs_change"]}),
        conventions={
            symbols["entry_SYSENTER_compat"]: Convention(_HIDDEN | {"rip", "rsp", "rflags"}, _HIDDEN | {"rip", "rsp"}),
            symbols["entry_SYSCALL_compat"]: Convention(_HIDDEN, _HIDDEN),
        },
    )


def _exceptions() -> tuple[Handler, ...]:
    return tuple(
        Handler(name, _ORIGINS.get(gate.vector, Origin.EXCEPTION), gate.vector, *_ON_IST.get(name, (_THREAD, ())))
        for gate in GATES
        if gate.vector < 0x20
        for name in (f"do_{gate.symbol}",)
    )


def _interrupts() -> tuple[Handler, ...]:
    return tuple(Handler(name, Origin.INTERRUPT, vector, _INTERRUPT, _INTERRUPT) for name, vector in _INTERRUPTS.items())


def _system_calls() -> tuple[Handler, ...]:
    return tuple(Handler(name, Origin.SYSTEM_CALL, vector, _THREAD) for name, vector in _SYSTEM_CALLS.items())


def _stacks() -> tuple[Stack, ...]:
    debug = layout.DEBUG_STACKS
    return (
        _stack("thread", StackKind.THREAD, layout.THREAD_STACK),
        _stack("interrupt", StackKind.INTERRUPT, layout.IRQ_STACK),
        Stack("debug", StackKind.IST, debug.end - PAGE, debug.end),
        Stack("debug-nested", StackKind.IST, debug.start, debug.end - PAGE),
        _stack("nmi", StackKind.IST, layout.NMI_STACK),
        _stack("double-fault", StackKind.IST, layout.DOUBLE_FAULT_STACK),
        _stack("machine-check", StackKind.IST, layout.MACHINE_CHECK_STACK),
        _stack("entry", StackKind.ENTRY, layout.ENTRY_STACK),
    )


def _stack(name: str, kind: StackKind, region: Region) -> Stack:
    return Stack(name, kind, region.start, region.end)
