"""The state a case starts from: registers with those it sets highlighted, events, and memory patches in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from entryfuzz.disassembly import Symbols
from entryfuzz.views import patches, text
from fuzzer.build import build
from fuzzer.case import Case
from fuzzer.targets.registry import TARGETS
from reference.image import Event, EventKind

SHOWN: Final = ("rip", "cs", "rflags", "rsp", "ss", "gs_base", "kernel_gs_base", "fs_base", "cr4", "efer")
"""Registers that matter to every entry; the others are shown where the case sets them."""


def start_state(case: Case) -> RenderableType:
    """Everything the case starts from, except what it leaves as the scenario has it."""
    scenario = TARGETS[case.target].scenario(case.scenario)
    symbols = Symbols(TARGETS[case.target].symbols)
    parts: list[RenderableType] = [
        Text(f"  target {case.target}, scenario {case.scenario} ({scenario.summary}), CPL {scenario.cpl}, profile {case.profile}"),
        _registers(case),
    ]
    parts += [Text(f"{text.OWN} {_event(event)}", style=text.SET) for event in case.events]
    parts += [Text(f"{text.OWN} {line}", style=text.SET) for line in patches.described(case, symbols)]
    parts.append(Text(f"  ({text.OWN} set by the case, the rest is the scenario's)", style=text.QUIET))
    return Group(*parts)


def _registers(case: Case) -> Table:
    own = dict(case.registers)
    values = build(case).registers
    defaults = build(Case(case.target, case.scenario, case.profile)).registers
    table = Table.grid(padding=(0, 3))
    names = [*SHOWN, *(name for name in own if name not in SHOWN)]
    cells = [_register(name, values, defaults, name in own) for name in names]
    for first in range(0, len(cells), 2):
        table.add_row(*cells[first : first + 2])
    return table


def _register(name: str, values: Mapping[str, int], defaults: Mapping[str, int], own: bool) -> Text:
    cell = text.marked(f"{name:<14} {text.register(name, values[name])}", text.OWN, text.SET, own)
    if own and values[name] != defaults[name]:
        cell.append(f"  (scenario: {text.hexadecimal(defaults[name])})", style=text.QUIET)
    return cell


def _event(event: Event) -> str:
    return f"{event_name(event)} becomes pending at boundary {event.boundary}"


def event_name(event: Event) -> str:
    """`interrupt 0x20`, `NMI`, `machine check`."""
    if event.kind is EventKind.INTERRUPT:
        return f"interrupt {event.vector:#x}"
    return "NMI" if event.kind is EventKind.NMI else "machine check"


def arrivals(case: Case) -> Iterator[tuple[int, str]]:
    """Each event of the case by its boundary."""
    for event in case.events:
        yield event.boundary, event_name(event)
