"""One change of a case: each function here changes one thing and leaves the rest; what comes out need not be canonical yet."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random
from typing import Final, TypeVar

from fuzzer.case import MAX_EVENTS, MAX_PATCH_BYTES, Case
from fuzzer.generate import linux4, values
from fuzzer.generate.machine import arrange_machine, random_event
from fuzzer.guided.scope import Scope
from fuzzer.guided.splice import spliced
from fuzzer.legal import KERNEL_SELECTORS, RULES
from fuzzer.targets.registry import TARGETS
from fuzzer.targets.snippets import CODE_REGIONS
from fuzzer.targets.tables import REGIONS
from fuzzer.targets.target import Patch, default_cr4
from reference.bits import MASK64
from reference.image import GPRS, Event, EventKind
from reference.profiles import PROFILES, Profile

_T = TypeVar("_T")
Change = Callable[[Random, Case, Scope], Case]
Value = Callable[[Random, Profile, int], int]
"""A value worth trying, for a profile and a privilege level."""


def _with(draw: Callable[[Random], int]) -> Value:
    return lambda rng, profile, cpl: draw(rng)


_VALUES: Final[Mapping[str, Value]] = {
    **dict.fromkeys(GPRS, lambda rng, profile, cpl: values.general(rng, cpl)),
    "rsp": lambda rng, profile, cpl: values.stack_pointer(rng, cpl),
    "rflags": _with(values.rflags),
    **dict.fromkeys(("es", "ds", "fs", "gs", "ss", "ldtr"), _with(lambda rng: rng.choice(KERNEL_SELECTORS))),
    "cr0": _with(values.cr0),
    "cr4": lambda rng, profile, cpl: values.cr4(rng, default_cr4(profile)),
    "efer": _with(values.efer),
    "dr7": _with(values.dr7),
    "star": _with(lambda rng: values.selector(rng) << 48 | values.selector(rng) << 32),
    "sysenter_cs": _with(values.selector),
    "sfmask": _with(lambda rng: rng.getrandbits(22)),
    "idtr_limit": _with(lambda rng: 16 * rng.randrange(0x30) + rng.choice((14, 15))),
}
"""By register; every other one takes an address."""


def _cpl(case: Case) -> int:
    return TARGETS[case.target].scenario(case.scenario).cpl


def set_register(rng: Random, case: Case, scope: Scope) -> Case:
    """A register gets a value of its kind."""
    name = rng.choice(tuple(RULES))
    draw = _VALUES.get(name, _with(values.address))
    return replace(case, registers=(*case.registers, (name, draw(rng, PROFILES[case.profile], _cpl(case)) & MASK64)))


def nudge_register(rng: Random, case: Case, scope: Scope) -> Case:
    """A register that the case sets has a bit flipped, or is a little more or less."""
    if not case.registers:
        return set_register(rng, case, scope)
    name, value = rng.choice(case.registers)
    nudged = value ^ 1 << rng.randrange(64) if rng.random() < 0.5 else value + rng.choice((1, -1, 8, -8, 16, -16, 0x1000, -0x1000))
    return replace(case, registers=(*case.registers, (name, nudged & MASK64)))


def drop_register(rng: Random, case: Case, scope: Scope) -> Case:
    """A register is the scenario's again."""
    return replace(case, registers=_without(rng, case.registers))


def _without(rng: Random, pieces: tuple[_T, ...]) -> tuple[_T, ...]:
    if not pieces:
        return pieces
    place = rng.randrange(len(pieces))
    return pieces[:place] + pieces[place + 1 :]


def set_memory(rng: Random, case: Case, scope: Scope) -> Case:
    """A word of memory anywhere gets a value."""
    region = rng.choice(tuple(REGIONS.values()))
    offset, size = rng.randrange(region.size // 8) * 8, rng.choice((1, 2, 4, 8, 8, 8))
    return replace(case, memory=(*case.memory, Patch(region.name, offset, _word(rng, case, size))))


def _word(rng: Random, case: Case, size: int) -> bytes:
    return struct.pack("<Q", values.general(rng, _cpl(case)) & MASK64)[:size]


def arrange(rng: Random, case: Case, scope: Scope) -> Case:
    """A gate, a descriptor, a page's rights, a stack or registers that belong together change as one."""
    registers, memory = arrange_machine(rng, PROFILES[case.profile], _cpl(case))
    return replace(case, registers=(*case.registers, *registers.items()), memory=(*case.memory, *memory))


def nudge_memory(rng: Random, case: Case, scope: Scope) -> Case:
    """Memory that the case sets: a bit flipped, a word of it replaced, or its bytes somewhere else in the region."""
    if not case.memory:
        return set_memory(rng, case, scope)
    place = rng.randrange(len(case.memory))
    piece = rng.choice(_NUDGES)(rng, case, case.memory[place])
    return replace(case, memory=(*case.memory[:place], piece, *case.memory[place + 1 :]))


def _flip(rng: Random, case: Case, piece: Patch) -> Patch:
    data = bytearray(piece.data)
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return replace(piece, data=bytes(data))


def _replace_word(rng: Random, case: Case, piece: Patch) -> Patch:
    at = rng.randrange(0, len(piece.data), 8)
    word = _word(rng, case, min(8, len(piece.data) - at))
    return replace(piece, data=piece.data[:at] + word + piece.data[at + len(word) :])


def _move(rng: Random, case: Case, piece: Patch) -> Patch:
    return replace(piece, offset=(piece.offset + rng.choice((1, -1, 8, -8, 16, -16))) % REGIONS[piece.region].size)


def _resize(rng: Random, case: Case, piece: Patch) -> Patch:
    if rng.random() < 0.5 and len(piece.data) > 1:
        return replace(piece, data=piece.data[: rng.randrange(1, len(piece.data))])
    return replace(piece, data=(piece.data + _word(rng, case, 8))[:MAX_PATCH_BYTES])


_NUDGES: Final = (_flip, _replace_word, _replace_word, _move, _resize)


def drop_memory(rng: Random, case: Case, scope: Scope) -> Case:
    """Memory is the scenario's again."""
    return replace(case, memory=_without(rng, case.memory))


def add_event(rng: Random, case: Case, scope: Scope) -> Case:
    """One more event, near another one or anywhere."""
    events = case.events if len(case.events) < MAX_EVENTS else _without(rng, case.events)
    near = rng.choice(case.events).boundary if case.events and rng.random() < 0.5 else 0
    event = random_event(rng, 24 if near or rng.random() < 0.5 else 240)
    kind = EventKind.MACHINE_CHECK if rng.random() < 0.1 else event.kind
    return replace(case, events=(*events, Event(near + event.boundary, kind, event.vector)))


def move_event(rng: Random, case: Case, scope: Scope) -> Case:
    """An event comes earlier or later, mostly by a step or two."""
    return _change_event(rng, case, scope, lambda one: replace(one, boundary=max(0, one.boundary + _distance(rng))))


def _distance(rng: Random) -> int:
    return rng.choice((1, -1, 2, -2)) if rng.random() < 0.7 else rng.randrange(-40, 41)


def retype_event(rng: Random, case: Case, scope: Scope) -> Case:
    """An event becomes one of another kind, or an interrupt of another vector."""
    kind, vector = rng.choice(tuple(EventKind)), rng.randrange(32, 256)
    return _change_event(rng, case, scope, lambda one: Event(one.boundary, kind, vector))


def _change_event(rng: Random, case: Case, scope: Scope, change: Callable[[Event], Event]) -> Case:
    if not case.events:
        return add_event(rng, case, scope)
    place = rng.randrange(len(case.events))
    return replace(case, events=(*case.events[:place], change(case.events[place]), *case.events[place + 1 :]))


def drop_event(rng: Random, case: Case, scope: Scope) -> Case:
    """An event does not come."""
    return replace(case, events=_without(rng, case.events))


def change_scenario(rng: Random, case: Case, scope: Scope) -> Case:
    """Another way into the target, with the events that it is named for; instructions of a snippet go along."""
    scenario = rng.choice(TARGETS[case.target].scenarios)
    if case.scenario not in CODE_REGIONS or scenario.name not in CODE_REGIONS:
        return replace(case, scenario=scenario.name, events=(*scenario.events, *case.events)[:MAX_EVENTS])
    old, new = CODE_REGIONS[case.scenario], CODE_REGIONS[scenario.name]
    memory = tuple(replace(one, region=new.name) if one.region == old.name else one for one in case.memory)
    registers = tuple((name, value - old.start + new.start if name == "rip" else value) for name, value in case.registers)
    return replace(case, scenario=scenario.name, registers=registers, memory=memory)


def change_profile(rng: Random, case: Case, scope: Scope) -> Case:
    """The same on another processor."""
    return replace(case, profile=rng.choice(scope.profiles))


def change_handler(rng: Random, case: Case, scope: Scope) -> Case:
    """What a handler of the entry code does to the registers that it was given, and which handler does it."""
    scenario = TARGETS[case.target].scenario(case.scenario)
    return replace(case, memory=(*case.memory, linux4.changes(rng, scenario)))


def splice(rng: Random, case: Case, scope: Scope) -> Case:
    """Instructions of a snippet are taken out, doubled, or joined by those of a new one."""
    return spliced(rng, case, scope.fresh(rng))


def renew(rng: Random, case: Case, scope: Scope) -> Case:
    """A case that owes nothing to this one."""
    return scope.fresh(rng)


_COMMON: Final[tuple[tuple[int, Change], ...]] = (
    (6, set_register),
    (4, nudge_register),
    (1, drop_register),
    (2, set_memory),
    (4, arrange),
    (5, nudge_memory),
    (1, drop_memory),
    (3, add_event),
    (4, move_event),
    (1, retype_event),
    (1, drop_event),
    (1, change_scenario),
    (2, change_profile),
    (24, renew),
)
"""(weight, change)."""
_OF_TARGET: Final[Mapping[str, tuple[tuple[int, Change], ...]]] = {
    "linux4": (*_COMMON, (4, move_event), (3, change_handler)),
    "snippets": (*_COMMON, (10, splice)),
}


def changes(target: str) -> tuple[tuple[int, Change], ...]:
    """The changes that mean something for a target, with their weights."""
    return _OF_TARGET[target]
