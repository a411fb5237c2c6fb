"""The stacks of a manifest as addresses: in the code's own data, or on pages of the machine with nothing mapped around them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Final

from fuzzer.targets import layout
from fuzzer.targets.layout import Region
from fuzzer.targets.own.manifest import Manifest, StackEntry
from fuzzer.targets.own.placement import window_at
from fuzzer.targets.own.program import Program
from fuzzer.targets.own.symbols import Names
from reference.linux.entry_code import Stack, StackKind

_SPARE: Final = (
    layout.IRQ_STACK,
    layout.NMI_STACK,
    layout.DOUBLE_FAULT_STACK,
    layout.MACHINE_CHECK_STACK,
    layout.DEBUG_STACKS,
)
"""Pages for stacks other than the thread's, in the order in which they are given."""


def place_stacks(entries: Iterable[StackEntry], program: Program) -> dict[str, Stack]:
    """Every stack by name; CaseError where one has no room or lies in another."""
    spare = list(_SPARE)
    stacks = {entry.name: _own(entry, program) if entry.top else _given(entry, spare) for entry in entries}
    fields = {entry.name: entry.field for entry in entries}
    for first, second in combinations(stacks.values(), 2):
        if first.start < second.end and second.start < first.end:
            fields[second.name].refuse(
                f"{second.start:#x}-{second.end - 1:#x} overlaps the stack {first.name}; move one or make it smaller"
            )
    return stacks


def _own(entry: StackEntry, program: Program) -> Stack:
    assert entry.top is not None
    top = Names(program, {}).place(entry.top)
    if window_at(top - entry.size, entry.size) is None:
        entry.top.refuse(
            f"{top - entry.size:#x}-{top - 1:#x} lies outside of the code's data; leave top out, and the machine gives a stack"
        )
    return Stack(entry.name, entry.kind, top - entry.size, top)


def _given(entry: StackEntry, spare: list[Region]) -> Stack:
    if entry.kind is StackKind.THREAD:
        region = layout.THREAD_STACK
    else:
        region = next((each for each in spare if each.size >= entry.size), layout.THREAD_STACK)
        if region is layout.THREAD_STACK:
            entry.field.refuse(f"the machine has no stack of {entry.size:#x} bytes left to give; put it into your data and name its top")
        spare.remove(region)
    if entry.size > region.size:
        entry.field.refuse(
            f"the machine's thread stack has {region.size:#x} bytes; make it smaller, or put it into your data and name its top"
        )
    return Stack(entry.name, entry.kind, region.end - entry.size, region.end)


def tss(manifest: Manifest, stacks: Mapping[str, Stack]) -> bytes:
    """RSP0 and the interrupt stack table that the manifest asks for (SDM Vol. 3A, Figure 8-11)."""
    data = bytearray(layout.TSS_LIMIT + 1)
    for entry in manifest.stacks:
        if entry.kind is StackKind.THREAD:
            struct.pack_into("<Q", data, 4, stacks[entry.name].end)
        if entry.ist is not None:
            struct.pack_into("<Q", data, 28 + 8 * entry.ist, stacks[entry.name].end)
    struct.pack_into("<Q", data, 28 + 8 * manifest.end_slot, layout.END_STACK.end)
    struct.pack_into("<H", data, 0x66, layout.TSS_LIMIT + 1)
    return bytes(data)
