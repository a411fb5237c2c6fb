"""The target `linux4`: entry code of the 4.x kind, and a scenario for each way into it from user and from kernel mode."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace

from fuzzer.targets import layout, tables
from fuzzer.targets.linux4 import image
from fuzzer.targets.linux4.code import entry_code
from fuzzer.targets.linux4.edge_scenarios import THIRD
from fuzzer.targets.linux4.flag_scenarios import FOURTH
from fuzzer.targets.linux4.scenarios import FIRST, SECOND
from fuzzer.targets.linux4.user_code import user_pages
from fuzzer.targets.target import Patch, Scenario, Target, patch
from reference.profiles import PROFILES, Profile

_IMAGE = image.load()
SYMBOLS: Mapping[str, int] = _IMAGE.symbols
SCENARIOS = (*FIRST, *SECOND, *THIRD, *FOURTH)


def _idt() -> dict[int, bytes]:
    gates = {gate.vector: tables.gate(SYMBOLS[gate.symbol], ist=gate.ist, dpl=gate.dpl) for gate in image.ALL_GATES}
    gates[layout.END_VECTOR] = tables.gate(layout.KERNEL_CODE.start, ist=layout.IST_END, dpl=3)
    return gates


def _with_entry_points(scenario: Scenario) -> Scenario:
    registers = {
        "lstar": SYMBOLS["system_call"],
        "cstar": SYMBOLS["entry_SYSCALL_compat"],
        "sysenter_eip": SYMBOLS["entry_SYSENTER_compat"],
        "sysenter_esp": layout.ENTRY_STACK.end,
        **scenario.registers,
    }
    return replace(scenario, registers=registers)


def _alternatives(profile: Profile) -> Iterator[Patch]:
    """What the kernel writes over itself, and sets up, for what it finds in a processor and chooses to do."""
    for each in _IMAGE.alternatives:
        if getattr(profile, each.feature):
            offset = each.address - layout.KERNEL_TEXT.start
            yield patch(layout.KERNEL_TEXT, offset, each.code)
            if offset < layout.ENTRY_TEXT_LOW.size:
                yield patch(layout.ENTRY_TEXT_LOW, offset, each.code)
    if profile.pti:
        yield patch(layout.PERCPU, layout.TSS_OFFSET + 4, struct.pack("<Q", layout.ENTRY_STACK.end))
        # User code cannot run on the kernel's tables: a way out that forgets to switch them faults at once.
        for offset, entry in tables.user_half().items():
            yield Patch("page_tables", offset, struct.pack("<Q", entry | tables.NO_EXECUTE))


TARGET = Target(
    name="linux4",
    summary="Linux entry code as it was around 4.x: exceptions, interrupts, NMI, system calls of 64-bit and 32-bit code",
    pages={
        **tables.blank_pages(),
        **tables.system_pages(image.percpu_image(), _idt()),
        **tables.region_pages(layout.KERNEL_TEXT, _IMAGE.text, fill=0xCC),
        **tables.region_pages(layout.ENTRY_TEXT_LOW, _IMAGE.text[: layout.ENTRY_TEXT_LOW.size], fill=0xCC),
        **tables.region_pages(layout.KERNEL_CODE, b"\xf4", fill=0xCC),
        **{frame: page for region, data in user_pages().items() for frame, page in tables.region_pages(region, data, 0xCC).items()},
    },
    scenarios=tuple(_with_entry_points(scenario) for scenario in SCENARIOS),
    symbols=SYMBOLS,
    alternatives={name: tuple(_alternatives(profile)) for name, profile in PROFILES.items()},
    isolates=True,
    code=entry_code(_IMAGE),
)
