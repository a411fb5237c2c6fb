"""A traced run step by step: what the specification did, and where each core did something else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from entryfuzz.disassembly import Symbols
from entryfuzz.path import Boundary
from entryfuzz.views import text
from entryfuzz.views.words import word_name

SAME: Final = "same"
_SUMMARY: Final = 6
"""Words of memory shown for one step; a REP writes one at a time, a frame has six."""


def changes(boundary: Boundary, frames: Mapping[str, str], target: str) -> str:
    """What one step did, in one text: `raises #SS(0x0); rsp=0x…, [thread_stack+0xfd0 #SS frame: RIP]=0x…`."""
    registers = [f"{name}={text.register(name, value)}" for name, value in boundary.changed_registers().items()]
    words = [_word(place, value, frames, target) for place, value in boundary.changed_words().items()]
    if len(words) > _SUMMARY:
        words[_SUMMARY:] = [f"and {len(words) - _SUMMARY} more words"]
    return "; ".join(filter(None, (boundary.outcome, ", ".join(registers + words))))


def _word(place: str, value: int, frames: Mapping[str, str], target: str) -> str:
    name = word_name(place, frames, target)
    return f"[{place} {name}]={text.register(name, value)}" if name else f"[{place}]={value:#x}"


def steps(
    path: Sequence[Boundary],
    core: Sequence[Boundary],
    name: str,
    divergent: int | None,
    symbols: Symbols,
    frames: Mapping[str, str],
    target: str,
) -> Table:
    """One row for each step of the specification and of a core beside each other; the first that differs is marked."""
    table = Table(box=None, pad_edge=False, header_style=text.HEADING, padding=(0, 2, 0, 0))
    for column in ("", "k", "at", "instruction", "specification", name):
        table.add_column(column, no_wrap=column in ("", "k", "at"), overflow="fold")
    for number, (spec, other) in enumerate(zip_longest(path, core)):
        here = spec or other
        theirs = changes(other, frames, target) if other else "(ended before)"
        ours = changes(spec, frames, target) if spec else "(ended before)"
        if spec and other and other.address != spec.address:
            theirs = f"at {symbols.name(other.address)}: {other.text}: {theirs}"
        style = text.DIFFERS if number == divergent else ""
        table.add_row(
            Text("▶" if number == divergent else " ", style=style),
            Text(str(here.before.retired), style=text.QUIET),
            Text(symbols.name(here.address), style=style),
            Text("(event)" if here.asynchronous else here.text, style=style),
            Text(ours, style=style),
            Text(SAME if theirs == ours else theirs, style=text.QUIET if theirs == ours else style),
        )
    return table


def steps_json(path: Sequence[Boundary]) -> list[dict[str, Any]]:
    """The same for programs: one object for each step of one side."""
    return [
        {
            "retired": each.before.retired,
            "address": f"{each.address:#x}",
            "code": each.code.hex(),
            "instruction": "" if each.asynchronous else each.text,
            "outcome": each.outcome,
            "registers": {name: f"{value:#x}" for name, value in each.changed_registers().items()},
            "memory": {place: f"{value:#x}" for place, value in each.changed_words().items()},
        }
        for each in path
    ]
