"""Planted bugs on the way back: SYSRET's conditions, and faults of the IRET to user mode."""

from __future__ import annotations

from fuzzer.mutants.code import Edit, Place
from fuzzer.mutants.mutant import entry_mutant
from fuzzer.mutants.tables import Register
from fuzzer.mutants.witness import Witness, recorder_changes
from fuzzer.targets import layout
from reference.bits import FIXED, IF, RF

_SYSRET = "SDM Vol. 2B, SYSRET"
_ELSEWHERE = layout.USER_CODE.start + 0x40


def _check(nth: int) -> Edit:
    """One of the conditions of the fast return dropped."""
    return Edit(Place("system_call_on_kernel_stack", "jne return_to_user", nth=nth))


def _changed(**fields: int) -> Witness:
    return Witness("system-call-from-user", memory=(recorder_changes("do_syscall_64", **fields),))


SYSRET = (
    entry_mutant(
        "sysret-to-a-stale-rip",
        "the fast return takes RIP from RCX although a tracer has changed RIP",
        "Linux, ptrace,x86: force IRET path after a ptrace_stop() (CVE-2014-4699)",
        _changed(rip=_ELSEWHERE),
        _check(1),
    ),
    entry_mutant(
        "sysret-with-stale-flags",
        "the fast return takes RFLAGS from R11 although a tracer has changed RFLAGS",
        _SYSRET,
        _changed(rflags=FIXED | IF | 1),
        _check(2),
    ),
    entry_mutant(
        "sysret-to-32-bit-code",
        "the fast return goes to 64-bit code although the frame has another code segment",
        _SYSRET,
        _changed(cs=layout.USER32_CS),
        _check(3),
    ),
    entry_mutant(
        "sysret-with-non-canonical-rcx",
        "Intel's SYSRET faults at CPL 0, on the user's stack, when RCX is not canonical",
        "CVE-2012-0217, CVE-2014-4699",
        _changed(rip=1 << 47, rcx=1 << 47),
        _check(5),
    ),
    entry_mutant(
        "sysret-loses-rf",
        "the fast return is taken with RF in RFLAGS, which SYSRET clears: a debugger's user hits its breakpoint again",
        _SYSRET,
        _changed(rflags=FIXED | IF | RF, r11=FIXED | IF | RF),
        _check(6),
    ),
    entry_mutant(
        "star-without-rpl",
        "IA32_STAR names the user's segments without RPL 3: AMD's SYSRET loads SS as it stands there",
        "APM Vol. 3, SYSRET",
        Witness("system-call-from-user", profile="amd"),
        Register("star", "SYSRET's selectors without RPL", without=3 << 48),
    ),
)

IRET = (
    entry_mutant(
        "bad-iret-fix-up-dropped",
        "a fault of the IRET to user mode looks like one of the kernel's, while GS is the user's already",
        "CVE-2014-9322",
        Witness("divide-error-from-user", memory=(recorder_changes("do_divide_error", rip=1 << 47),)),
        Edit(Place("error_entry", "je", nth=1)),
    ),
)

RETURNS = (*SYSRET, *IRET)
