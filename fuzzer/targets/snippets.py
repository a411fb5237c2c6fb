"""The target `snippets`: a few instructions at CPL 0 or 3, and handlers that only end the run or return.

What an engine gets wrong in one instruction shows here without any entry code around it. Each exception has a handler of its
own address, so RIP at the end tells the vector and the frame stays in memory as it was pushed; interrupts and NMIs return.
"""

from __future__ import annotations

from fuzzer.targets import layout, tables
from fuzzer.targets.target import Scenario, Target

END = bytes([0xCD, layout.END_VECTOR])
IRETQ = bytes([0x48, 0xCF])
SLOT = 16
"""Bytes between two handlers: vector n is handled at KERNEL_TEXT + 16 n."""

_IST = {1: layout.IST_DEBUG, 2: layout.IST_NMI, 8: layout.IST_DOUBLE_FAULT, 18: layout.IST_MACHINE_CHECK}
_OPEN = (3, 4)
"""Vectors that user mode may raise by INT3 and INTO."""


def handler_address(vector: int) -> int:
    """Where the handler of a vector stands."""
    return layout.KERNEL_TEXT.start + vector * SLOT


def _returns(vector: int) -> bool:
    """Events from outside return to what they interrupted; exceptions end the run."""
    return vector == 2 or vector >= 32


def _handlers() -> bytes:
    return b"".join((IRETQ if _returns(vector) else END).ljust(SLOT, b"\xcc") for vector in range(256))


def _idt() -> dict[int, bytes]:
    gates = {
        vector: tables.gate(handler_address(vector), ist=_IST.get(vector, 0), dpl=3 if vector in _OPEN else 0) for vector in range(256)
    }
    gates[layout.END_VECTOR] = tables.gate(handler_address(layout.END_VECTOR), ist=layout.IST_END, dpl=3)
    return gates


SCENARIOS = (
    Scenario("user", "instructions at CPL 3", 3, {}),
    Scenario("kernel", "instructions at CPL 0, on the thread stack, GS the kernel's", 0, {}),
    Scenario(
        "kernel-user-gs",
        "instructions at CPL 0 before SWAPGS: GS is still the user's",
        0,
        {"gs_base": 0x41_0800, "kernel_gs_base": layout.PERCPU.start},
    ),
    Scenario("user-edge", "instructions on the last page below the canonical hole", 3, {"rip": layout.USER_EDGE.end - 64}),
)

TARGET = Target(
    name="snippets",
    summary="1 to 8 generated instructions on GS, MSRs, segments, stacks, flags and returns",
    pages={
        **tables.blank_pages(),
        **tables.region_pages(layout.USER_CODE, fill=0xCC),
        **tables.region_pages(layout.USER_EDGE, fill=0xCC),
        **tables.region_pages(layout.KERNEL_CODE, fill=0xCC),
        **tables.system_pages(b"", _idt()),
        **tables.region_pages(layout.KERNEL_TEXT, _handlers(), fill=0xCC),
    },
    scenarios=SCENARIOS,
    symbols={f"handler_{vector:#04x}": handler_address(vector) for vector in range(256)},
)

CODE_REGIONS = {"user": layout.USER_CODE, "kernel": layout.KERNEL_CODE, "kernel-user-gs": layout.KERNEL_CODE, "user-edge": layout.USER_EDGE}
"""Where a scenario's instructions stand."""
