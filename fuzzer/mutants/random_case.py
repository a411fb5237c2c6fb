"""Plain random cases for entry code: any way in, anything that user mode can set, events at random boundaries.

The states keep what the contract assumes of the world around the entry code, so a broken promise is the entry code's fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Final

from fuzzer.case import Case, canonical
from fuzzer.generate import values
from fuzzer.mutants.survival import fatal
from fuzzer.mutants.witness import recorder_changes
from fuzzer.targets import layout
from fuzzer.targets.target import Patch, Scenario, Target, default_registers
from reference.bits import AC, ARITHMETIC, DF, FIXED, ID, IF, NT, RF
from reference.image import GPRS, Event, EventKind
from reference.profiles import PROFILES, Cr4

EVENTS: Final = 3
LATEST: Final = 240
"""An event comes at most so many boundaries after the start: the longest paths."""
_SHORT: Final = 16
_FLAG: Final = 0.2
_CHANGED: Final = 0.5
_OWN: Final = 0.8
_INTERRUPTS: Final = range(0x20, 0x30)


def random_case(rng: Random, target: Target, profiles: Sequence[str]) -> Case:
    """One case; what kernel code has in its registers is left to the scenario."""
    scenario, profile = rng.choice(target.scenarios), rng.choice(profiles)
    registers = _user_registers(rng, scenario, profile) if scenario.cpl == 3 else {}
    case = Case(target.name, scenario.name, profile, tuple(registers.items()))
    undisturbed = scenario.cpl == 3 and not scenario.memory and not scenario.events
    if undisturbed and rng.random() < _CHANGED:
        return canonical(replace(case, memory=(_changed_frame(rng),)))
    return canonical(replace(case, events=_events(rng, scenario)))


def _events(rng: Random, scenario: Scenario) -> tuple[Event, ...]:
    """Mostly the scenario's own, and others up to EVENTS in all; none of them fatal in itself."""
    own = scenario.events if rng.random() < _OWN else ()
    events = (*own, *(_event(rng) for _ in range(rng.randrange(EVENTS + 1 - len(own)))))
    return tuple(event for event in events if event not in fatal(events))


def _user_registers(rng: Random, scenario: Scenario, profile: str) -> dict[str, int]:
    """What a program can have in its registers; those that the scenario needs for what it provokes stay."""
    usual = {**default_registers(PROFILES[profile], scenario.cpl), **scenario.registers}
    registers = {name: values.general(rng, 3) for name in GPRS if name != "rsp" and rng.random() < 0.5}
    if rng.random() < 0.3:
        registers["rsp"] = layout.USER_STACK.end - 8 * rng.randrange(0x20, 0x80)
    if rng.random() < 0.3 and usual["cr4"] & Cr4.FSGSBASE:
        registers["gs_base"] = values.address(rng)
    registers["rflags"] = usual["rflags"] ^ (rng.getrandbits(12) & ARITHMETIC) | _popped_flags(rng)
    return {name: value for name, value in registers.items() if name == "rflags" or name not in scenario.registers}


def _popped_flags(rng: Random) -> int:
    """Flags that POPF sets at any privilege level (SDM Vol. 2B, POPF), but TF: stepping is a scenario's, which knows where to stop."""
    return sum(bit for bit in (DF, AC, NT, ID) if rng.random() < _FLAG)


def _changed_frame(rng: Random) -> Patch:
    """What a tracer or a signal handler writes into the frame of a system call, as ptrace and sigreturn allow."""
    rip = rng.choice((layout.USER_CODE.start + 0x40, layout.USER_EDGE.end, *values.NON_CANONICAL[:1]))
    flags = FIXED | IF | rng.getrandbits(12) & ARITHMETIC | _popped_flags(rng) | (RF if rng.random() < _FLAG else 0)
    fields = {"rip": rip, "rflags": flags, "cs": layout.USER32_CS, "rax": rng.getrandbits(64)}
    written = {name: fields[name] for name in rng.sample(tuple(fields), rng.randrange(1, 3))}
    copies = {copy: written[name] for copy, name in (("rcx", "rip"), ("r11", "rflags")) if name in written and rng.random() < 0.5}
    return recorder_changes("", **written, **copies)


def _event(rng: Random) -> Event:
    boundary = rng.randrange(_SHORT if rng.random() < 0.5 else LATEST)
    kind = rng.choice(tuple(EventKind))
    return Event(boundary, kind, rng.choice(_INTERRUPTS))
