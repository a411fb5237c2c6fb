"""What the recorders of linux4 wrote down in a run of the specification, as values."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from fuzzer.build import build
from fuzzer.case import Case, canonical
from fuzzer.targets import layout, tables
from fuzzer.targets.linux4 import image
from fuzzer.targets.registry import TARGETS
from reference.image import Event, Image, Observation
from reference.profiles import PROFILES
from reference.run import run

LINUX4 = TARGETS["linux4"]
SCENARIOS = {scenario.name: scenario for scenario in LINUX4.scenarios}
NOT_MODELLED = ("iret-to-16-bit-stack",)
"""IRET to a 16-bit stack leaves the upper half of RSP open: the specification stops there."""
MODELLED = tuple(name for name in SCENARIOS if name not in NOT_MODELLED)
PROFILE_NAMES = tuple(PROFILES)
_NAMES = {number: name for name, number in image.HANDLERS.items()}
_STACKS = (
    layout.THREAD_STACK,
    layout.IRQ_STACK,
    layout.NMI_STACK,
    layout.DOUBLE_FAULT_STACK,
    layout.MACHINE_CHECK_STACK,
    layout.ENTRY_STACK,
)


@dataclass(frozen=True)
class Record:
    """One call of a C handler: its name, the words of the record, and the pt_regs it was given."""

    handler: str
    words: Mapping[str, int]
    frame: Mapping[str, int]

    @property
    def stack(self) -> str:
        """The stack that the handler ran on; `debug` and `debug-nested` are the upper and the lower page of the debug stacks."""
        rsp = self.words["rsp"]
        debug = layout.DEBUG_STACKS
        if debug.start < rsp <= debug.end:
            return "debug" if rsp > debug.end - layout.PAGE else "debug-nested"
        return next(region.name.removesuffix("_stack") for region in _STACKS if region.start < rsp <= region.end)


@dataclass(frozen=True)
class Logged:
    """A run and what it logged."""

    image: Image
    observation: Observation
    records: tuple[Record, ...]

    @property
    def calls(self) -> list[tuple[str, str]]:
        """(handler, stack) in the order of the calls."""
        return [(record.handler, record.stack) for record in self.records]


def _page(image_: Image, observation: Observation, region: layout.Region) -> bytes:
    frame = tables.FRAMES[region.name]
    return observation.memory.get(frame, image_.pages[frame])


@cache
def logged(scenario: str, profile: str = "intel", events: tuple[Event, ...] | None = None) -> Logged:
    """A scenario with the events that it is named for, or with others, run on the specification."""
    arriving = SCENARIOS[scenario].events if events is None else events
    machine = build(canonical(Case("linux4", scenario, profile, events=arriving)))
    observation = run(machine)
    log = _page(machine, observation, layout.LOG)
    (cursor,) = struct.unpack_from("<Q", _page(machine, observation, layout.CONTROL))
    assert cursor <= layout.LOG.size, "the log has gone round"
    return Logged(machine, observation, tuple(_record(log, offset) for offset in range(0, cursor, image.RECORD_SIZE)))


def _record(log: bytes, offset: int) -> Record:
    words = {name: struct.unpack_from("<Q", log, offset + place)[0] for name, place in image.RECORD.items()}
    frame = {name: struct.unpack_from("<Q", log, offset + image.RECORD["frame"] + place)[0] for name, place in image.PT_REGS.items()}
    return Record(_NAMES[words["handler"]], words, frame)
