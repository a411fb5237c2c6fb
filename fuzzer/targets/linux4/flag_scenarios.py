"""Scenarios of `linux4` whose interrupted code has flags, or a GS base, that an entry must not be misled by. Appended, never reordered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fuzzer.targets.linux4.control import change
from fuzzer.targets.linux4.edge_scenarios import THIRD
from fuzzer.targets.linux4.scenarios import FIRST, QUIET, SECOND, user
from fuzzer.targets.linux4.user_code import LONG
from fuzzer.targets.target import Scenario
from reference.bits import AC, DF, NT

_USERS = QUIET | DF | AC | NT
"""What POPF gives to user mode: string instructions run backwards, user pages are open to the kernel, IRET would switch tasks."""
_KERNELS = QUIET | DF | AC
"""Kernel code that copies backwards, or between STAC and CLAC."""

_BY_NAME = {scenario.name: scenario for scenario in (*FIRST, *SECOND, *THIRD)}
_FROM_USER = ("interrupt", "apic-timer", "nmi", "mce", "int3", "divide-error", "page-fault", "system-call", "int80")
_FROM_KERNEL = ("interrupt", "nmi", "mce", "int3", "page-fault")
_FROM_USER32 = ("int80", "sysenter", "system-call")


def _with_flags() -> Iterator[Scenario]:
    for origin, names, flags in (("user", _FROM_USER, _USERS), ("kernel", _FROM_KERNEL, _KERNELS), ("user32", _FROM_USER32, _USERS)):
        for name in names:
            plain = _BY_NAME[f"{name}-from-{origin}"]
            which = "DF and AC" if origin == "kernel" else "DF, AC and NT"
            registers = {**plain.registers, "rflags": flags}
            yield replace(plain, name=f"{name}-flags-from-{origin}", summary=f"{plain.summary}; {which} are set", registers=registers)


def _with_negative_gs() -> Iterator[Scenario]:
    sent_on = change("do_invalid_op", rip=LONG.resume("wrgsbase"))
    yield user("system-call-negative-gs", "SYSCALL with a GS base that looks like the kernel's, written by WRGSBASE", "wrgsbase", sent_on)


FOURTH = (*_with_flags(), *_with_negative_gs())
