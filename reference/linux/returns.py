"""The promises that are due when an entry has returned to what it interrupted."""

from __future__ import annotations

from typing import Final

from reference.bits import DEFINED, FIXED, MASK32, MASK64, VM
from reference.linux.contexts import FRAME, NUMBERS, Context
from reference.linux.handlers import ENTRY_TEXT, IDTENTRY, PRACTICE
from reference.linux.moments import Moment, Promise, When
from reference.machine import CS, DS, ES, FS, GS, RSP, SS, Machine

_LOADED: Final = DEFINED & ~VM
"""What IRET at CPL 0 loads in 64-bit mode (SDM Vol. 2A, IRET)."""
_SELECTORS: Final = (("ES", ES), ("DS", DS), ("FS", FS), ("GS", GS))


def _handler_ran(at: Moment) -> str:
    return "" if at.context.runs or at.context.nested else "the entry returns and no C handler has run"


def _no_nmi_is_lost(at: Moment) -> str:
    return "the NMI returns without a repeat for the one that arrived meanwhile" if at.context.owes_repeat else ""


def _free(context: Context) -> frozenset[str]:
    """What the return may leave as it likes; without a handler's pt_regs that is also what the entry has never learned."""
    convention = context.convention
    return convention.clobbered if context.given else convention.clobbered | convention.open


def _registers(at: Moment) -> str:
    """Everything that the handler's pt_regs says, or what was interrupted if no handler has run."""
    context, gpr, free = at.context, at.m.gpr, _free(at.context)
    for name, number in NUMBERS:
        due = context.wanted[name]
        if gpr[number] != due and name not in free:
            return f"{name} is {gpr[number]:#x}, not {due:#x}"
    return ""


def _frame(at: Moment) -> str:
    """RIP, CS, RFLAGS, RSP and SS."""
    context, now, free = at.context, _present(at.m), _free(at.context)
    width = MASK64 if at.m.cs.descriptor.long else MASK32
    for name in FRAME:
        due = tuple(_held(name, value, width) for value in context.allowed(name))
        if now[name] & width not in due and name not in free:
            return f"{name} is {now[name]:#x}, not {due[0]:#x}"
    return ""


def _present(m: Machine) -> dict[str, int]:
    return {"rip": m.rip, "cs": m.segments[CS].selector, "rflags": m.rflags, "rsp": m.gpr[RSP], "ss": m.segments[SS].selector}


def _held(name: str, value: int, width: int) -> int:
    """What a register holds after `value` was loaded into it."""
    if name == "rflags":
        return value & _LOADED | FIXED
    return value & 0xFFFF if name in ("cs", "ss") else value & width


def _gs(at: Moment) -> str:
    m, context = at.m, at.context
    if m.gs.base != context.gs_base:
        return f"GS.base is {m.gs.base:#x}, not {context.gs_base:#x}"
    if m.kernel_gs_base != context.kernel_gs_base:
        return f"KERNEL_GS_BASE is {m.kernel_gs_base:#x}, not {context.kernel_gs_base:#x}"
    return ""


def _segments(at: Moment) -> str:
    """IRET to user mode makes null what user mode could not have loaded, and clears the RPL of a null selector (SDM Vol. 2A, IRET)."""
    m, context = at.m, at.context
    for (name, index), due in zip(_SELECTORS, context.selectors, strict=True):
        now = m.segments[index].selector
        if now != due and (now or (due & 0xFFFC and due & 3 == 3)):
            return f"{name} is {now:#x}, not {due:#x}"
    return "" if m.fs.base == context.fs_base else f"FS.base is {m.fs.base:#x}, not {context.fs_base:#x}"


def _cr3(at: Moment) -> str:
    return "" if at.m.cr3 == at.context.cr3 else f"CR3 is {at.m.cr3:#x}, not {at.context.cr3:#x}"


def _nmi_latch(at: Moment) -> str:
    """IRET opens the latch, so it may be open where it was closed, never the other way round (SDM Vol. 3A, 7.7.1)."""
    return "NMIs are still blocked" if at.m.nmi_blocked and not at.context.nmi_blocked else ""


def _interrupted_stack(at: Moment) -> str:
    return next((text for text in map(at.changed, at.context.guards) if text), "")


def _task_state(at: Moment) -> str:
    before, now = at.context.tss, at.look.read(at.m, at.m.tr.base, at.m.tr.limit + 1)
    for slot in range(1, 8):
        place = slice(28 + 8 * slot, 36 + 8 * slot)
        if before and now and before[place] != now[place]:
            old, new = (int.from_bytes(tss[place], "little") for tss in (before, now))
            return f"IST{slot} is {new:#x}, not {old:#x}"
    return ""


def _own_return(at: Moment) -> str:
    """`outer` are here the entries that were still open inside the one that returns."""
    return f"{len(at.outer)} inner entries have not returned" if at.outer else ""


BOTH: Final = (When.RETURN, When.FAILED_RETURN)

PROMISES_OUT: Final = (
    Promise(
        "return-in-order",
        "An entry returns to user mode only when every entry that interrupted it has returned.",
        ENTRY_TEXT,
        (When.RETURN,),
        _own_return,
    ),
    Promise(
        "handler-ran",
        "An entry does not return before its C handler has run; a nested NMI leaves that to the outer one.",
        IDTENTRY + "; " + PRACTICE,
        (When.RETURN,),
        _handler_ran,
    ),
    Promise(
        "nmi-repeated",
        "An NMI that interrupted an NMI is not lost: the outer one runs its handler again.",
        PRACTICE + " (repeat_nmi)",
        (When.RETURN,),
        _no_nmi_is_lost,
    ),
    Promise(
        "return-frame",
        "RIP, CS, RFLAGS, RSP and SS are what they were, or what the handler made them.",
        "SDM Vol. 2A, IRET; SDM Vol. 2B, SYSRET; " + IDTENTRY,
        (When.RETURN,),
        _frame,
    ),
    Promise(
        "registers-restored",
        "Every general register is what it was, or what the handler made it.",
        IDTENTRY,
        BOTH,
        _registers,
    ),
    Promise(
        "gs-restored",
        "GS.base and KERNEL_GS_BASE are what they were.",
        ENTRY_TEXT,
        BOTH,
        _gs,
    ),
    Promise(
        "segments-kept",
        "The selectors of ES, DS, FS and GS, and FS.base, are what they were.",
        PRACTICE + "; SDM Vol. 2A, IRET",
        BOTH,
        _segments,
    ),
    Promise("cr3-restored", "CR3 is what it was.", "Linux, Documentation/x86/pti.txt", BOTH, _cr3),
    Promise("nmi-latch", "NMIs are not blocked where they were not.", "SDM Vol. 3A, 7.7.1", (When.RETURN,), _nmi_latch),
    Promise(
        "interrupted-stack",
        "No word that interrupted kernel code has on its stack is overwritten; if the entry went to another stack, none below RSP.",
        ENTRY_TEXT + "; SDM Vol. 3A, 7.14.5",
        (When.RETURN,),
        _interrupted_stack,
    ),
    Promise(
        "ist-restored",
        "The interrupt stack table is what it was.",
        IDTENTRY + " (shift_ist)",
        (When.RETURN,),
        _task_state,
    ),
)
