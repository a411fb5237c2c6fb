"""A case: everything that one run is about, as a value, as bytes that always decode, and its identity."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from fuzzer.legal import RULES, legal_event, legal_register
from fuzzer.targets.registry import TARGETS, number, numbered
from fuzzer.targets.tables import REGIONS
from fuzzer.targets.target import Patch
from reference.image import REGISTER_INDEX, Event, EventKind
from reference.profiles import PROFILES

MAX_EVENTS: Final = 4
MAX_PATCHES: Final = 32
MAX_PATCH_BYTES: Final = 255


@dataclass(frozen=True, slots=True)
class Case:
    """A scenario of a target on a CPU profile, and what differs from the scenario's own state.

    `registers` are (name, value) pairs in the order of `REGISTERS`, `memory` is applied in order, `events` are sorted. A case
    made by `canonical` is legal: every register holds what it can hold, every patch lies inside its region.
    """

    target: str
    scenario: str
    profile: str
    registers: tuple[tuple[str, int], ...] = ()
    memory: tuple[Patch, ...] = ()
    events: tuple[Event, ...] = ()

    @property
    def digest(self) -> str:
        """The identity of the case: SHA-256 of its bytes, in hex."""
        return hashlib.sha256(encode(self)).hexdigest()


def canonical(case: Case) -> Case:
    """The legal case nearest to `case`: values cut to what the machine can hold, pieces in order, nothing twice."""
    target = TARGETS[case.target]
    cpl = target.scenario(case.scenario).cpl
    registers = {name: legal_register(name, value, PROFILES[case.profile], cpl) for name, value in case.registers if name in RULES}
    ordered = tuple(sorted(registers.items(), key=lambda item: REGISTER_INDEX[item[0]]))
    memory = tuple(_legal_patch(piece) for piece in case.memory if piece.data)[:MAX_PATCHES]
    events = tuple(sorted(set(map(legal_event, case.events)), key=_event_key)[:MAX_EVENTS])
    return Case(case.target, case.scenario, case.profile, ordered, memory, events)


def _legal_patch(piece: Patch) -> Patch:
    size = REGIONS[piece.region].size
    offset = piece.offset % size
    return Patch(piece.region, offset, piece.data[: min(MAX_PATCH_BYTES, size - offset)])


def _event_key(event: Event) -> tuple[int, str, int]:
    return event.boundary, event.kind.value, event.vector


_PROFILES: Final = tuple(PROFILES)
_REGISTERS: Final = tuple(RULES)
_REGIONS: Final = tuple(REGIONS)
_KINDS: Final = tuple(EventKind)
_REGISTER, _MEMORY, _EVENT = range(3)


def encode(case: Case) -> bytes:
    """The bytes of a canonical case: three bytes that choose target, scenario and profile, then one record per difference."""
    scenarios = [scenario.name for scenario in TARGETS[case.target].scenarios]
    head = bytes([number(case.target), scenarios.index(case.scenario), _PROFILES.index(case.profile)])
    records = [struct.pack("<BBQ", _REGISTER, _REGISTERS.index(name), value) for name, value in case.registers]
    for piece in case.memory:
        records.append(struct.pack("<BBHB", _MEMORY, _REGIONS.index(piece.region), piece.offset, len(piece.data)) + piece.data)
    for event in case.events:
        records.append(struct.pack("<BHBB", _EVENT, event.boundary, _KINDS.index(event.kind), event.vector))
    return head + b"".join(records)


def decode(data: bytes) -> Case:
    """The case that any bytes mean: choices are taken modulo their number, what is missing at the end is 0."""
    target = numbered(_byte(data, 0))
    scenarios = TARGETS[target].scenarios
    scenario = scenarios[_byte(data, 1) % len(scenarios)].name
    profile = _PROFILES[_byte(data, 2) % len(_PROFILES)]
    registers: list[tuple[str, int]] = []
    memory: list[Patch] = []
    events: list[Event] = []
    for record in _records(data[3:]):
        if isinstance(record, Patch):
            memory.append(record)
        elif isinstance(record, Event):
            events.append(record)
        else:
            registers.append(record)
    return canonical(Case(target, scenario, profile, tuple(registers), tuple(memory), tuple(events)))


def _byte(data: bytes, index: int) -> int:
    return data[index] if index < len(data) else 0


def _records(data: bytes) -> Iterator[Patch | Event | tuple[str, int]]:
    position = 0
    while position < len(data):
        tag = data[position] % 3
        field = data[position + 1 : position + 10].ljust(9, b"\0")
        if tag == _REGISTER:
            yield _REGISTERS[field[0] % len(_REGISTERS)], int.from_bytes(field[1:9], "little")
            position += 10
        elif tag == _EVENT:
            boundary, kind, vector = struct.unpack_from("<HBB", field)
            yield Event(boundary, _KINDS[kind % len(_KINDS)], vector)
            position += 5
        else:
            region, offset, length = struct.unpack_from("<BHB", field)
            yield Patch(_REGIONS[region % len(_REGIONS)], offset, data[position + 5 : position + 5 + length])
            position += 5 + length
