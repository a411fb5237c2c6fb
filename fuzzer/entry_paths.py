"""The ways into a kernel's entry code as a table: what the gates say, which handler runs where, and how long each way is."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from fuzzer.build import build
from fuzzer.case import Case
from fuzzer.targets import layout
from fuzzer.targets.linux4 import image
from fuzzer.targets.linux4.image import Gate
from fuzzer.targets.linux4.target import TARGET
from fuzzer.targets.tables import FRAMES
from fuzzer.targets.target import Scenario
from reference.boot import boot
from reference.delivery import Ended
from reference.faults import VECTORS, Vector
from reference.image import Image
from reference.linux.entry_code import Handler
from reference.profiles import PROFILES
from reference.run import run, step

_FAST_CALLS: Final = (
    ("SYSCALL", "system_call", "do_syscall_64", "system-call-from-user", PROFILES),
    ("SYSCALL, 32-bit, AMD", "entry_SYSCALL_compat", "do_fast_syscall_32", "system-call-from-user32", ("amd",)),
    ("SYSENTER, 32-bit, Intel", "entry_SYSENTER_compat", "do_fast_syscall_32", "sysenter-from-user32", [p for p in PROFILES if p != "amd"]),
)
"""Ways in that are no gates: the entry, its handler, a scenario that takes it, and the profiles whose processor has it."""
_SIGN: Final = "RDGSBASE (without FSGSBASE: the sign)"
_GS_TESTS: Final = {0: "CS", 1: f"from user CS, else {_SIGN}", 2: _SIGN}
_PARANOID: Final = {0: "no", 1: "yes", 2: "yes, stays on its stack"}


@dataclass(frozen=True, slots=True)
class EntryPath:
    """One way in. Lengths are instructions of the entry code and the recorder, by profile; empty where nothing takes the way."""

    entry: str
    taken_by: str
    vector: int | None
    gate: str
    dpl: int | None
    ist: int | None
    error_code: bool
    paranoid: str
    gs_test: str
    handler: str
    stacks_from_user: tuple[str, ...]
    stacks_from_kernel: tuple[str, ...]
    from_user: Mapping[str, int]
    from_kernel: Mapping[str, int]
    note: str = ""


def entry_paths() -> list[EntryPath]:
    """Every way into `linux4`: the gates by vector, the interrupt array as one of them, then the fast system calls."""
    code = TARGET.code
    assert code is not None
    handlers = {handler.name: handler for handler in code.handlers.values()}
    array = Gate(image.FIRST_INTERRUPT, "interrupt_0x20 ... interrupt_0xf4")
    gates = sorted((*image.GATES, array), key=lambda gate: gate.vector)
    return [*(_gate_path(gate, handlers) for gate in gates), *_fast_calls(handlers)]


def _gate_path(gate: Gate, handlers: Mapping[str, Handler]) -> EntryPath:
    vector = gate.vector
    exception = vector < image.FIRST_INTERRUPT
    handler = handlers[f"do_{gate.symbol}" if exception else image.INTERRUPT_HANDLERS.get(vector, "do_IRQ")]
    return EntryPath(
        entry=gate.symbol,
        taken_by=VECTORS[vector].name if vector in VECTORS else "" if exception else "INT 0x80" if vector == 0x80 else "interrupt",
        vector=vector,
        gate="interrupt",
        dpl=gate.dpl,
        ist=gate.ist,
        error_code=vector in image.ERROR_CODES,
        paranoid="code of its own" if vector == Vector.NMI else _PARANOID[gate.paranoid],
        gs_test=_GS_TESTS[gate.paranoid],
        handler=handler.name,
        stacks_from_user=handler.stacks_from_user,
        stacks_from_kernel=handler.stacks_from_kernel or (("the interrupted",) if vector != 0x80 else ()),
        from_user=_lengths(_scenarios().get((vector, 3)), PROFILES),
        from_kernel=_lengths(_scenarios().get((vector, 0)), PROFILES),
        note=image.UNRAISED.get(vector, ""),
    )


def _fast_calls(handlers: Mapping[str, Handler]) -> Iterator[EntryPath]:
    for taken_by, entry, handler, scenario, profiles in _FAST_CALLS:
        lengths = _lengths(TARGET.scenario(scenario), profiles)
        stacks = handlers[handler].stacks_from_user
        yield EntryPath(entry, taken_by, None, "none", None, None, False, "no", "none: from user only", handler, stacks, (), lengths, {})


@cache
def _scenarios() -> Mapping[tuple[int, int], Scenario]:
    """By vector and CPL the first scenario in which that event alone is delivered; 32-bit code where no 64-bit code can raise it."""
    found: dict[tuple[int, int], Scenario] = {}
    for scenario in sorted(TARGET.scenarios, key=lambda each: "cs" in each.registers):
        deliveries = run(_image(scenario, "intel")).deliveries
        if len(deliveries) == 1 and not scenario.user_tables:
            found.setdefault((deliveries[0].vector, scenario.cpl), scenario)
    return found


def _lengths(scenario: Scenario | None, profiles: Iterable[str]) -> Mapping[str, int]:
    return {name: _length(scenario, name) for name in profiles} if scenario else {}


def _length(scenario: Scenario, profile: str) -> int:
    """Instructions of the entry code that retire in a scenario; one that is repeated counts once for each time."""
    assert TARGET.code is not None
    m, count = boot(_image(scenario, profile)), 0
    try:
        while True:
            before, retired = m.rip, m.retired
            step(m)
            count += m.retired > retired and any(start <= before < end for start, end in TARGET.code.text)
    except Ended:
        return count


def _image(scenario: Scenario, profile: str) -> Image:
    return build(Case(TARGET.name, scenario.name, profile, events=scenario.events))


def handler_calls() -> dict[str, str]:
    """By scenario, the C handlers that run in the profile `intel`, each with its stack."""
    return {scenario.name: " → ".join(_calls(scenario)) for scenario in TARGET.scenarios}


def _calls(scenario: Scenario) -> Iterator[str]:
    start = _image(scenario, "intel")
    seen = run(start).memory
    log, control = (seen.get(FRAMES[region.name], b"") for region in (layout.LOG, layout.CONTROL))
    (cursor,) = struct.unpack_from("<Q", control) if control else (0,)
    names = {number: name for name, number in image.HANDLERS.items()}
    for record in range(0, cursor, image.RECORD_SIZE):
        handler, rsp = (struct.unpack_from("<Q", log, record + image.RECORD[field])[0] for field in ("handler", "rsp"))
        yield f"`{names[handler]}` ({_stack(rsp)})"


def _stack(rsp: int) -> str:
    assert TARGET.code is not None
    return next(stack.name for stack in TARGET.code.stacks if stack.start < rsp <= stack.end)
