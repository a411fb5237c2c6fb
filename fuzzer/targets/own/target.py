"""Somebody's own entry code as a Target: memory, scenarios, and what the contract has to know."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from fuzzer.case_fields import CaseError, Field
from fuzzer.targets import layout, tables
from fuzzer.targets.layout import PAGE
from fuzzer.targets.own import placement, recorder
from fuzzer.targets.own.manifest import UNNAMED, HandlerEntry, Manifest
from fuzzer.targets.own.program import Program
from fuzzer.targets.own.scenarios import Ways, ways_in
from fuzzer.targets.own.stacks import place_stacks, tss
from fuzzer.targets.own.symbols import Names
from fuzzer.targets.target import Scenario, Target
from reference.linux.entry_code import EntryCode, Handler


@dataclass(frozen=True, slots=True)
class Own:
    """The target, and the scenarios that could not be made, each with the reason."""

    target: Target
    left_out: tuple[str, ...]


def own_target(manifest: Manifest, program: Program) -> Own:
    """The target that manifest and program mean; CaseError in one line where they contradict each other."""
    names = Names(program, place_stacks(manifest.stacks, program))
    thread = next(names.stacks[entry.name] for entry in manifest.stacks if entry.ist is None and entry.kind.value == "thread")
    handlers = {each.name: names.symbol(each.symbol) for each in manifest.handlers}
    percpu = names.place(manifest.percpu) if manifest.percpu else layout.PERCPU.start
    _check_percpu(manifest, percpu)
    kernel_code = {field.text(): names.symbol(field) for field in manifest.kernel_code}
    numbers = _recorders(manifest, handlers)
    ways = ways_in(manifest, numbers, thread, kernel_code)
    common = {
        **{register: names.symbol(field) for register, field in manifest.entries},
        "sfmask": manifest.sfmask,
        "sysenter_esp": thread.end,
    }
    target = Target(
        name=manifest.name,
        summary=manifest.summary,
        pages=_pages(manifest, names, handlers, ways),
        scenarios=tuple(_in_own_kernel(each, common, percpu) for each in ways.scenarios),
        symbols=_in_code_and_data(program) | handlers,
        code=_entry_code(manifest, names, percpu, handlers, kernel_code),
        kinds=manifest.kinds,
    )
    return Own(target, ways.left_out)


def _in_code_and_data(program: Program) -> dict[str, int]:
    """The symbols that name places: an assembler's constants are symbols too."""
    return {name: address for name, address in program.symbols.items() if placement.window_at(address) in placement.LINKED}


def _in_own_kernel(scenario: Scenario, common: Mapping[str, int], percpu: int) -> Scenario:
    gs_base = {"kernel_gs_base" if scenario.cpl == 3 else "gs_base": percpu}
    return Scenario(scenario.name, scenario.summary, scenario.cpl, {**common, **gs_base, **scenario.registers}, scenario.memory)


def _check_percpu(manifest: Manifest, percpu: int) -> None:
    if manifest.percpu and placement.window_at(percpu) not in (placement.DATA, placement.PERCPU):
        manifest.percpu.refuse(f"{percpu:#x} lies in no memory that can be written; put the per-CPU area into .data or .bss")


def _recorders(manifest: Manifest, handlers: Mapping[str, int]) -> dict[str, int]:
    """The numbers of the handlers that are recorders, by name: linked to one, or replaced by one."""
    numbered = enumerate(manifest.handlers, start=1)
    return {each.name: number for number, each in numbered if each.recorder or recorder.is_stub(handlers[each.name], number)}


def _pages(manifest: Manifest, names: Names, handlers: Mapping[str, int], ways: Ways) -> dict[int, bytes]:
    pages = {
        **tables.blank_pages(),
        **tables.system_pages(b"", _idt(manifest, names)),
        **tables.region_pages(layout.USER_CODE, ways.user_code, fill=0xCC),
        **tables.region_pages(layout.KERNEL_CODE, recorder.kernel_code(len(manifest.handlers), len(manifest.pt_regs)), fill=0xCC),
        **placement.segment_pages(names.program),
        **placement.data_mapping(),
    }
    tss_at = tables.FRAMES["percpu"] * PAGE + layout.TSS_OFFSET
    pages |= placement.write(pages, tss_at, tss(manifest, names.stacks))
    for number, handler in enumerate(manifest.handlers, start=1):
        if handler.recorder and not recorder.is_stub(handlers[handler.name], number):
            pages |= _replaced(pages, handler, handlers[handler.name], recorder.stub_address(number), names.program)
    for place, value in manifest.memory:
        pages |= placement.write(pages, _physical(place, names), struct.pack("<Q", names.value(value)))
    return pages


def _idt(manifest: Manifest, names: Names) -> dict[int, bytes]:
    gates = {
        gate.vector: tables.gate(names.symbol(gate.symbol), ist=gate.ist.number(3), dpl=gate.dpl, type_=gate.type)
        for gate in manifest.gates
    }
    return gates | {layout.END_VECTOR: tables.gate(recorder.END_GATE, ist=manifest.end_slot, dpl=3)}


def _replaced(pages: Mapping[int, bytes], handler: HandlerEntry, address: int, stub: int, program: Program) -> dict[int, bytes]:
    """The code's own handler begins with a jump to ours."""
    size = program.sizes.get(handler.symbol.text(), 0)
    if 0 < size < recorder.JUMP_SIZE:
        handler.symbol.refuse(f"it has {size} bytes, and the jump to the recorder {recorder.JUMP_SIZE}; make it longer")
    window = placement.window_at(address, recorder.JUMP_SIZE)
    if window is not placement.CODE:
        handler.symbol.refuse(f"{address:#x} is not in the code; a handler has to be")
    return placement.write(pages, window.frame * PAGE + address - window.start, recorder.jump(address, stub))


def _physical(place: Field, names: Names) -> int:
    address = names.place(place)
    window = placement.window_at(address, 8)
    if window is None or window is placement.CODE:
        place.refuse(f"{address:#x} is no word of the code's data or of the per-CPU page; name one of those")
    offset = address - window.start
    if window is placement.PERCPU and layout.TSS_OFFSET - 8 < offset <= layout.TSS_OFFSET + layout.TSS_LIMIT:
        place.refuse(f"{address:#x} overlaps the TSS, which [stacks] fills; take another place")
    return window.frame * PAGE + offset


def _entry_code(manifest: Manifest, names: Names, percpu: int, handlers: Mapping[str, int], kernel_code: Mapping[str, int]) -> EntryCode:
    entries: dict[int, Handler] = {}
    for number, each in enumerate(manifest.handlers, start=1):
        address = handlers[each.name]
        if address in entries:
            raise CaseError(f"{manifest.origin}: handlers.{each.name}: {address:#x} is {entries[address].name} already; name it once")
        if placement.window_at(address) is not placement.CODE and not recorder.is_stub(address, number):
            each.symbol.refuse(f"{address:#x} is not in the code; a handler has to be")
        entries[address] = Handler(each.name, each.origin, each.vector, each.stacks_from_user, each.stacks_from_kernel)
    program = names.program
    interrupted = [(address, address + program.extent(name)) for name, address in kernel_code.items()]
    return EntryCode(
        handlers=entries,
        percpu=percpu,
        kernel_cr3=tables.CR3,
        stacks=tuple(names.stacks.values()),
        pt_regs={word: 8 * number for number, word in enumerate(manifest.pt_regs) if word != UNNAMED},
        text=placement.text_ranges(program, recorder.TEXT, interrupted),
        symbols=_in_code_and_data(program),
        bad_return=frozenset(names.place(field) for field in manifest.bad_return),
    )
