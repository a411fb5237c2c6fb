"""The instructions around a divergence, in the order the specification runs them, with arrivals and the divergent one marked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.table import Table
from rich.text import Text

from entryfuzz.disassembly import Symbols
from entryfuzz.path import Boundary
from entryfuzz.replay import CoreRun
from entryfuzz.views import text
from fuzzer.compare import Difference
from reference.bits import FLAG_NAMES

BEFORE: Final = 8
AFTER: Final = 4
_FIELDS: Final = 6
_SHORT: Final = 24
"""A path of so few boundaries is shown whole."""


@dataclass(frozen=True, slots=True)
class Parting:
    """The boundary at which a core parts from the specification, and what the core did there, in words."""

    number: int
    core: str


def parting(run: CoreRun) -> Parting | None:
    """Where a core parts, if that is known: its own outcome, and the fields that differ from then on."""
    if run.explanation is None:
        return None
    number = run.explanation.step
    outcome = (run.path[number].outcome if 0 <= number < len(run.path) else "") or "completes"
    fields = [_named(difference) for difference in run.explanation.differences]
    more = f" and {len(fields) - _FIELDS} more" if len(fields) > _FIELDS else ""
    return Parting(number, f"{run.core}: {outcome}; other {', '.join(fields[:_FIELDS])}{more}")


def _named(difference: Difference) -> str:
    """A differing field; of RFLAGS, which flags."""
    expected, observed = difference.expected, difference.observed
    if difference.field == "rflags" and isinstance(expected, int) and isinstance(observed, int):
        return f"rflags ({', '.join(name for name, bit in FLAG_NAMES.items() if (expected ^ observed) & bit)})"
    return difference.field.removeprefix("memory:")


def route(path: Sequence[Boundary], arrivals: Iterable[tuple[int, str]], parting: Parting | None, symbols: Symbols) -> Table:
    """One row for each boundary near the parting and near an arrival; gaps are dots."""
    table = Table.grid(padding=(0, 2))
    coming = _rows_of_arrivals(path, arrivals)
    last = -1
    for number in _shown(len(path), parting.number if parting else None, coming):
        if number != last + 1:
            table.add_row("", "", "⋮")
        last = number
        for event in coming.get(number, ()):
            table.add_row("", "", Text(f"── {event} becomes pending here", style=text.SET))
        _add(table, path[number], parting if parting and parting.number == number else None, symbols)
    if path and last < len(path) - 1:
        table.add_row("", "", f"⋮ {len(path) - 1 - last} more")
    for event in coming.get(len(path), ()):
        table.add_row("", "", Text(f"── {event} would become pending after the end", style=text.QUIET))
    return table


def _rows_of_arrivals(path: Sequence[Boundary], arrivals: Iterable[tuple[int, str]]) -> Mapping[int, list[str]]:
    """Before which row each event arrives: the first whose instruction runs with so many retired."""
    rows: dict[int, list[str]] = {}
    for boundary, name in arrivals:
        row = next((number for number, each in enumerate(path) if each.before.retired >= boundary), len(path))
        rows.setdefault(row, []).append(name)
    return rows


def _shown(length: int, divergent: int | None, coming: Iterable[int]) -> list[int]:
    if length <= _SHORT:
        return list(range(length))
    centre = divergent if divergent is not None else length - 1
    shown = {0, *range(centre - BEFORE, centre + AFTER + 1)}
    for row in coming:
        shown.update((row - 1, row, row + 1))
    return sorted(number for number in shown if 0 <= number < length)


def _add(table: Table, boundary: Boundary, parting: Parting | None, symbols: Symbols) -> None:
    style = text.DIFFERS if parting else ""
    table.add_row(
        Text("▶" if parting else " ", style=style),
        Text(f"{boundary.before.retired:>4}", style=text.QUIET),
        Text(symbols.name(boundary.address), style=style),
        Text(boundary.code.hex(" "), style=text.QUIET),
        Text("" if boundary.asynchronous else boundary.text, style=style),
        Text(boundary.outcome, style=style),
    )
    if parting:
        table.add_row("", "", "", "", "", Text(parting.core, style=style))
