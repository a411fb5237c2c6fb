"""Case files: JSON that a person writes by hand, and the case it means. What no machine can hold is refused, never changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from fuzzer.build import build
from fuzzer.case import MAX_EVENTS, MAX_PATCH_BYTES, MAX_PATCHES, Case, canonical
from fuzzer.case_fields import CaseError, Field, parse_number, read_object, suggestion
from fuzzer.case_schema import FIELDS, SCHEMA
from fuzzer.case_tables import Memory, cut, read_descriptors, region_at
from fuzzer.legal import LAST_BOUNDARY, RULES, legal_event, legal_register
from fuzzer.targets import layout
from fuzzer.targets.linux4.image import CONTROL_FIELDS, HANDLERS, MAX_CHANGES, PT_REGS
from fuzzer.targets.registry import TARGETS
from fuzzer.targets.tables import REGIONS
from fuzzer.targets.target import Patch, Target
from reference.image import REGISTERS, Event, EventKind
from reference.profiles import PROFILES

__all__ = ["SCHEMA", "CaseError", "dump", "parse"]

DEFAULT_TARGET: Final = "snippets"
DEFAULT_PROFILE: Final = "intel"
END: Final = bytes([0xCD, layout.END_VECTOR])
_ANY_HANDLER: Final = "any"


def parse(text: str, origin: str) -> Case:
    """The case that a case file means; CaseError in one line, beginning with `origin`, where it means none."""
    root = read_object(text, origin)
    list(root.members(FIELDS))
    target = TARGETS[_choice(root, "target", TARGETS, DEFAULT_TARGET)]
    scenario = _choice(root, "scenario", [each.name for each in target.scenarios], None)
    profile = _choice(root, "profile", PROFILES, DEFAULT_PROFILE)
    plain = Case(target.name, scenario, profile)
    if root.member("note").value is not None:
        root.member("note").text()
    registers = _registers(root, plain)
    start = build(plain)
    rip = dict(registers).get("rip", start.registers["rip"])
    memory = Memory(start.pages)
    _read_code(root, memory, rip)
    _read_memory(root, memory)
    if root.member("descriptors").value is not None:
        read_descriptors(root.member("descriptors"), memory, target)
    _read_changes(root, memory, target)
    if len(memory.patches) > MAX_PATCHES:
        root.refuse(f"{len(memory.patches)} pieces of code, memory, descriptors and changes; a case holds {MAX_PATCHES}: join or drop some")
    return canonical(Case(target.name, scenario, profile, registers, tuple(memory.patches), _events(root)))


def _choice(root: Field, name: str, known: Mapping[str, object] | list[str], default: str | None) -> str:
    field = root.member(name)
    if field.value is None and default is not None:
        return default
    return field.choice(known, name)


def _registers(root: Field, case: Case) -> tuple[tuple[str, int], ...]:
    field = root.member("registers")
    if field.value is None:
        return ()
    profile, cpl = PROFILES[case.profile], TARGETS[case.target].scenario(case.scenario).cpl
    result = []
    for name, entry in field.members():
        if name not in RULES:
            entry.refuse(
                "belongs to the target; a case cannot set it" if name in REGISTERS else f"no such register; {suggestion(name, RULES)}"
            )
        value = entry.number()
        nearest = legal_register(name, value, profile, cpl)
        if nearest != value:
            entry.refuse(f"{value:#x} cannot be held by this register on profile {case.profile} at CPL {cpl}; nearest is {nearest:#x}")
        result.append((name, value))
    return tuple(result)


def _read_code(root: Field, memory: Memory, rip: int) -> None:
    code, end = root.member("code"), root.member("end")
    ends = end.flag() if end.value is not None else True
    if code.value is None:
        if end.value is not None:
            end.refuse('says whether "int 0xf1" follows the code; write code, or leave end out')
        return
    if isinstance(code.value, dict):
        pieces = [(_place(entry, name), entry) for name, entry in code.members()]
    else:
        pieces = [(_place_of(code, rip, f"RIP {rip:#x}"), code)]
    for (region, offset), entry in pieces:
        data = entry.data() + (END if ends else b"")
        _write(entry, memory, region, offset, data, '; the last two are "int 0xf1", which "end": false leaves out' if ends else "")


def _read_memory(root: Field, memory: Memory) -> None:
    field = root.member("memory")
    if field.value is None:
        return
    if isinstance(field.value, list):
        for item in field.items():
            parts = dict(item.members(("at", "bytes")))
            for name in ("at", "bytes"):
                if name not in parts:
                    item.refuse(f'"{name}" is missing; write {{"at": "gdt+0x68", "bytes": "00 00"}}')
            _write(parts["bytes"], memory, *_place(parts["at"], parts["at"].text()), parts["bytes"].data())
        return
    for name, entry in field.members():
        _write(entry, memory, *_place(entry, name), entry.data())


def _write(field: Field, memory: Memory, region: str, offset: int, data: bytes, hint: str = "") -> None:
    if not data:
        field.refuse("no bytes; write some, or leave the field out")
    room = REGIONS[region].size - offset
    if len(data) > room:
        field.refuse(f"{len(data)} bytes from {region}+{offset:#x} end past the region, which has {room} left{hint}")
    for piece in cut(REGIONS[region], offset, data, MAX_PATCH_BYTES):
        memory.add(piece)


def _place(field: Field, text: str) -> tuple[str, int]:
    """The region and offset that `region+0x10`, `region` or a linear address names."""
    name, plus, rest = text.partition("+")
    if name in REGIONS:
        offset = parse_number(rest) if plus else 0
        if offset is None or offset >= REGIONS[name].size:
            field.refuse(f'"{rest}" is not an offset below {REGIONS[name].size:#x}, the size of region {name}')
        return name, offset
    address = parse_number(text)
    if address is None:
        field.refuse(f'"{text}" is neither an address nor a region; {suggestion(name, REGIONS)}')
    return _place_of(field, address, f'"{text}"')


def _place_of(field: Field, address: int, named: str) -> tuple[str, int]:
    region = region_at(address)
    if region is None:
        field.refuse(f"{named} is not an address that the machine maps; see the regions in docs/case-format.md")
    return region.name, address - region.start


def _events(root: Field) -> tuple[Event, ...]:
    field = root.member("events")
    if field.value is None:
        return ()
    events: list[Event] = []
    for item in field.items():
        event = _event(item)
        if event in events:
            item.refuse("the same as an event before it; one is enough")
        events.append(event)
    if len(events) > MAX_EVENTS:
        field.refuse(f"{len(events)} events; a case holds {MAX_EVENTS}")
    return tuple(events)


_VECTORS: Final = {EventKind.NMI: 2, EventKind.MACHINE_CHECK: 18}


def _event(item: Field) -> Event:
    parts = dict(item.members(("boundary", "kind", "vector")))
    kind = EventKind(item.member("kind").choice([each.value for each in EventKind], "kind"))
    boundary = _required(item, parts, "boundary").number(16)
    if boundary > LAST_BOUNDARY:
        parts["boundary"].refuse(f"{boundary} is past the last boundary, {LAST_BOUNDARY}")
    written = kind is EventKind.INTERRUPT or "vector" in parts
    vector = _required(item, parts, "vector").number(8) if written else _VECTORS[kind]
    legal = legal_event(Event(boundary, kind, vector))
    if legal.vector != vector:
        parts["vector"].refuse(f"{vector} is not a vector of {kind.value}; nearest is {legal.vector}")
    return legal


def _required(item: Field, parts: Mapping[str, Field], name: str) -> Field:
    if name not in parts:
        item.refuse(f'"{name}" is missing; write {{"boundary": 0, "kind": "interrupt", "vector": 32}}')
    return parts[name]


def _read_changes(root: Field, memory: Memory, target: Target) -> None:
    """Add to the control page what a handler writes into its pt_regs; the scenario's own changes stay."""
    field = root.member("changes")
    if field.value is None:
        return
    if target.name != "linux4":
        field.refuse("only the handlers of target linux4 change the frame they return to; drop changes or take that target")
    count_at, handler_at, first = (CONTROL_FIELDS[name] for name in ("change_count", "change_handler", "changes"))
    region = layout.CONTROL.name
    places = [memory.word(region, first + 16 * n) for n in range(memory.word(region, count_at))]
    before = len(places)
    for number, item in enumerate(field.items()):
        handler, offset, value = _change(item)
        if (before or number) and handler != memory.word(region, handler_at):
            item.member("handler").refuse(_other_handler(memory.word(region, handler_at), before))
        if offset not in places:
            places.append(offset)
        if len(places) > MAX_CHANGES:
            field.refuse(f"more than {MAX_CHANGES} changes with those of the scenario; drop some")
        place = first + 16 * places.index(offset)
        memory.set_word(region, handler_at, handler)
        memory.set_word(region, place, offset)
        memory.set_word(region, place + 8, value)
    if len(places) != before:
        memory.set_word(region, count_at, len(places))


def _change(item: Field) -> tuple[int, int, int]:
    parts = dict(item.members(("handler", "field", "value")))
    for name in ("field", "value"):
        if name not in parts:
            item.refuse(f'"{name}" is missing; write {{"handler": "do_debug", "field": "rflags", "value": "0x202"}}')
    handler = item.member("handler")
    name = _ANY_HANDLER if handler.value is None else handler.choice((_ANY_HANDLER, *HANDLERS), "handler")
    return HANDLERS.get(name, 0), PT_REGS[parts["field"].choice(PT_REGS, "field of pt_regs")], parts["value"].number()


def _other_handler(number: int, scenarios: int) -> str:
    names = {value: name for name, value in HANDLERS.items()}
    whose = "the scenario" if scenarios else "an earlier change"
    return f"{whose} changes {names.get(number, _ANY_HANDLER)}, and only one handler makes changes; name that one"


def dump(case: Case) -> dict[str, Any]:
    """A case file, as JSON values, that parses back to `case`; the code at RIP stands as `code` where the case begins with it."""
    file: dict[str, Any] = {"target": case.target, "scenario": case.scenario, "profile": case.profile}
    if case.registers:
        file["registers"] = {name: f"{value:#x}" for name, value in case.registers}
    memory = list(case.memory)
    if memory and _is_code(case, memory[0]):
        file |= _dump_code(memory.pop(0).data)
    if memory:
        file["memory"] = _dump_memory(memory)
    if case.events:
        file["events"] = list(_dump_events(case.events))
    return file


def _is_code(case: Case, piece: Patch) -> bool:
    region = REGIONS[piece.region]
    return region.linear is not None and region.linear + piece.offset == build(case).registers["rip"]


def _dump_code(data: bytes) -> dict[str, Any]:
    if data.endswith(END):
        return {"code": data.removesuffix(END).hex(" ")}
    return {"code": data.hex(" "), "end": False}


def _dump_memory(memory: list[Patch]) -> dict[str, str] | list[dict[str, str]]:
    pairs = [(f"{piece.region}+{piece.offset:#x}", piece.data.hex(" ")) for piece in memory]
    if len(dict(pairs)) == len(pairs):
        return dict(pairs)
    return [{"at": place, "bytes": data} for place, data in pairs]


def _dump_events(events: tuple[Event, ...]) -> Iterator[dict[str, Any]]:
    for event in events:
        vector = {"vector": event.vector} if event.kind is EventKind.INTERRUPT else {}
        yield {"boundary": event.boundary, "kind": event.kind.value, **vector}
