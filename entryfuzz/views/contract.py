"""Broken promises of entry code: which one, by which instruction, and what had arrived where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from entryfuzz.disassembly import Symbols
from entryfuzz.path import Boundary
from entryfuzz.views import text
from fuzzer.case import Case
from reference.faults import vector_name
from reference.linux.contract import PROMISES, Violation


def breach(violation: Violation, case: Case, way: Sequence[Boundary], symbols: Symbols, *rows: tuple[str, str]) -> RenderableType:
    """One broken promise for people; `way` is the run of the case, `rows` are added at the end."""
    promise = next(each for each in PROMISES if each.name == violation.promise)
    grid = Table.grid(padding=(0, 2))
    grid.add_row("  found", violation.text)
    grid.add_row("  at", _at(violation, way, symbols))
    for arrival in arrivals(way):
        what = ", ".join(vector_name(delivery.vector) for delivery in arrival.after.delivered)
        before = f"{symbols.name(arrival.address)}: {arrival.text}"
        grid.add_row("  when", f"{what} at boundary {arrival.before.retired} of {case.scenario}, before {before}")
    for name, value in rows:
        grid.add_row(f"  {name}", value)
    return Group(Text(f"✗ {promise.name}: {promise.text}", style=text.DIFFERS), grid)


def breach_json(violation: Violation, way: Sequence[Boundary], symbols: Symbols) -> dict[str, Any]:
    """The same for programs."""
    instruction = breaking(violation, way)
    return {
        "promise": violation.promise,
        "text": violation.text,
        "boundary": violation.boundary,
        "at": symbols.name(violation.rip),
        "instruction": instruction.text if instruction else None,
        "arrivals": [
            {"boundary": each.before.retired, "at": symbols.name(each.address), "instruction": each.text} for each in arrivals(way)
        ],
    }


def arrivals(way: Sequence[Boundary]) -> Iterator[Boundary]:
    """Where events from outside were delivered."""
    return (each for each in way if each.asynchronous)


def breaking(violation: Violation, way: Sequence[Boundary]) -> Boundary | None:
    """The instruction at which the promise broke."""
    at = (each for each in reversed(way) if each.address == violation.rip and each.before.retired <= violation.boundary)
    return next(at, None)


def _at(violation: Violation, way: Sequence[Boundary], symbols: Symbols) -> str:
    instruction = breaking(violation, way)
    return f"{symbols.name(violation.rip)}: {instruction.text}" if instruction else symbols.name(violation.rip)
