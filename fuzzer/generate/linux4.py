"""Cases for the target `linux4`: events at every boundary of its paths, and machine states that its entries must survive."""

from __future__ import annotations

import struct
from functools import cache
from random import Random

from fuzzer.build import build
from fuzzer.case import Case, canonical
from fuzzer.generate import values
from fuzzer.generate.machine import arrange_machine, random_event
from fuzzer.targets import layout
from fuzzer.targets.linux4 import image
from fuzzer.targets.registry import TARGETS
from fuzzer.targets.target import Patch, Scenario, default_cr4, patch
from reference.image import GPRS, Event, EventKind
from reference.profiles import PROFILES, Cr4
from reference.run import run


def generate(rng: Random, profile: str) -> Case:
    """One case: a scenario, events along its path, and at times other registers, a changed return frame, or a changed machine."""
    scenario = rng.choice(TARGETS["linux4"].scenarios)
    registers: dict[str, int] = {}
    memory: tuple[Patch, ...] = ()
    for name in GPRS:
        if name != "rsp" and rng.random() < 0.5:
            registers[name] = values.general(rng, scenario.cpl)
    if rng.random() < 0.3:
        registers["rsp"] = values.stack_pointer(rng, scenario.cpl)
    if scenario.cpl == 3 and rng.random() < 0.3:
        registers["gs_base"] = values.address(rng)
    if rng.random() < 0.3:
        arranged, memory = arrange_machine(rng, PROFILES[profile], scenario.cpl)
        registers = {**arranged, **registers}
    if "cr4" in registers:
        registers["cr4"] |= default_cr4(PROFILES[profile]) & Cr4.FSGSBASE  # the entry code was patched for it
    if rng.random() < 0.3:
        memory = (*memory, changes(rng, scenario))
    return canonical(Case("linux4", scenario.name, profile, tuple(registers.items()), memory, _events(rng, scenario, profile)))


def _events(rng: Random, scenario: Scenario, profile: str) -> tuple[Event, ...]:
    """The events that a scenario is named for, at times others; arrival points anywhere on the path so far."""
    length = path_length(scenario.name, profile)
    events = [_moved(rng, event, length) for event in scenario.events]
    while len(events) < 3 and rng.random() < (0.35 if events else 0.6):
        events.append(random_event(rng, length + (110 if events else 0)))
    return tuple(events)


def _moved(rng: Random, event: Event, length: int) -> Event:
    """An event of the scenario, mostly at another boundary; an interrupt often with another vector."""
    boundary = event.boundary if rng.random() < 0.2 else rng.randrange(min(length, 14) + 1)
    if event.kind is EventKind.INTERRUPT and rng.random() < 0.5:
        return Event(boundary, event.kind, rng.randrange(0x20, 0x30))
    return Event(boundary, event.kind, event.vector)


@cache
def path_length(scenario: str, profile: str) -> int:
    """Boundaries of a scenario's path when nothing arrives."""
    return run(build(Case("linux4", scenario, profile))).retired


def changes(rng: Random, scenario: Scenario) -> Patch:
    """What a handler writes into the pt_regs it was given, as ptrace and sigreturn do: mostly into the return frame.

    A scenario whose own handler sends the run on keeps that change and gets others beside it.
    """
    own = next((piece.data for piece in scenario.memory if piece.region == layout.CONTROL.name and not piece.offset), b"")
    fields = rng.sample(("rip", "cs", "rflags", "rsp", "ss", "rax", "rdi", "r11"), rng.randrange(1, 4))
    pairs = own[_PAIRS:] + b"".join(struct.pack("<QQ", image.PT_REGS[field], _field_value(rng, field)) for field in fields)
    handler = struct.unpack_from("<Q", own, 8)[0] if own else rng.choice((0, 0, *image.HANDLERS.values()))
    return patch(layout.CONTROL, 0, struct.pack("<QQQQ", 0, handler, len(pairs) // 16, 0) + pairs)


_PAIRS = image.CONTROL_FIELDS["changes"]


def _field_value(rng: Random, field: str) -> int:
    if field == "cs":
        return values.code_selector(rng)
    if field == "ss":
        return values.data_selector(rng)
    if field == "rflags":
        return values.rflags(rng)
    if field == "rsp":
        return values.stack_pointer(rng, rng.choice((0, 3)))
    if field == "rip":
        return layout.USER_CODE.start + 0x40 if rng.random() < 0.5 else values.address(rng)
    return values.general(rng, 3)
