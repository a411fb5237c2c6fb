"""The end of a run on each side, beside each other, with what differs marked."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from entryfuzz.views import text
from entryfuzz.views.words import word_name

Observed = Mapping[str, Any]
"""An observation as `fuzzer.observation_json.to_json` gives it."""

ALWAYS: Final = ("rip", "cs", "rflags", "rsp", "ss", "gs_base", "kernel_gs_base", "cr2")
"""Registers that are shown even where nothing happened to them."""
_UNCHANGED: Final = "unchanged"


@dataclass(frozen=True, slots=True)
class EndStates:
    """The specification's observation and those of cores, by the names of their columns."""

    target: str
    start: Mapping[str, int]
    spec: Observed
    cores: Mapping[str, Observed]
    differing: Mapping[str, Collection[str]]
    """For each core, the fields that differ after all tolerances."""
    frames: Mapping[str, str] = field(default_factory=dict)


def end_states(states: EndStates) -> Table:
    """One row for each field that differs or moved, one column for each side."""
    table = Table(box=None, pad_edge=False, header_style=text.HEADING)
    for column in ("", "specification", *states.cores):
        table.add_column(column, no_wrap=True)
    sides: Sequence[Observed] = [states.spec, *states.cores.values()]
    _add(table, states, "end", "end", [str(side["end"]) + (f": {side['detail']}" if side.get("detail") else "") for side in sides])
    _add(table, states, "first exception", "fault", [str(side["fault"] or "none") for side in sides], by_value=True)
    for name in _registers(states):
        values = [side["registers"].get(name) for side in sides]
        shown = ["" if value is None else text.register(name, int(value, 16)) for value in values]
        _add(table, states, name, name, shown)
    alike = 0
    for place in _places(sides):
        words = [side["memory"].get(place) for side in sides]
        if len(set(words)) == 1:
            alike += 1
            continue
        name = word_name(place, states.frames, states.target)
        shown = [_UNCHANGED if word is None else text.register(name, int(word, 16)) for word in words]
        _add(table, states, f"{place}  {name}".rstrip(), f"memory:{place}", shown)
    if alike:
        table.add_row(Text(f"  {alike} words of memory changed alike", style=text.QUIET))
    return table


def _add(table: Table, states: EndStates, label: str, key: str, shown: Sequence[str], by_value: bool = False) -> None:
    """A row; a core's value is marked where the field is among the differences."""
    cells = [Text(shown[0])]
    for value, name in zip(shown[1:], states.cores, strict=True):
        differs = value != shown[0] if by_value else key in states.differing[name]
        cells.append(text.marked(value, text.MARK, text.DIFFERS, differs))
    any_differs = any(cell.style for cell in cells[1:])
    table.add_row(text.marked(label, text.MARK, text.DIFFERS, any_differs), *cells)


def _registers(states: EndStates) -> Iterator[str]:
    sides = (states.spec, *states.cores.values())
    for name, start in states.start.items():
        values = {side["registers"].get(name) for side in sides if side["registers"]}
        if values and (name in ALWAYS or values != {f"{start:#x}"}):
            yield name


def _places(sides: Sequence[Observed]) -> list[str]:
    places = {place for side in sides for place in side["memory"]}
    return sorted(places, key=lambda place: (place.rpartition("+")[0], int(place.rpartition("+")[2], 16)))
