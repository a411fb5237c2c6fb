"""The matrix of a sweep as one HTML page that needs nothing else: a strip for each path, its code on demand."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING, Final

from entryfuzz.sweeping import Place, ShownSweep, places
from entryfuzz.views.heat_map import CHANGED, WORDS, found, head
from fuzzer.sweep.outcomes import Outcome

if TYPE_CHECKING:
    from db.sweep_records import SweptPath

_COLOURS: Final = {
    Outcome.DELIVERED: ("#8fd19e", "#000"),
    Outcome.MERGED: ("#3f8f56", "#fff"),
    Outcome.DEFERRED: ("#5b8def", "#fff"),
    Outcome.NEVER: ("#8a8a8a", "#fff"),
    Outcome.NOT_MODELLED: ("#e8c547", "#000"),
    Outcome.DIVERGENT: ("#d64545", "#fff"),
    Outcome.BROKEN: ("#a83fbf", "#fff"),
    Outcome.UNTRIED: ("#e4e4e4", "#555"),
}
_CLASSES: Final = {outcome.value: f"o{number}" for number, outcome in enumerate(Outcome)}
_STYLE: Final = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5rem; color: #222; background: #fff }
table { border-collapse: collapse } td, th { padding: 1px 8px; text-align: left; vertical-align: top }
code, td { font-family: ui-monospace, monospace; font-size: 12px } .n { text-align: right; color: #777 }
.strip { display: flex; height: 12px } .strip i { display: block; height: 12px }
.key b, td b { display: inline-block; min-width: 1.2em; padding: 0 3px; text-align: center; font-weight: normal; border-radius: 2px }
.key span { margin-right: 1.2em; white-space: nowrap } summary { cursor: pointer } details { margin: 0 0 .3em }
.row { display: flex; gap: 8px } .kind { flex: 0 0 11em; color: #777 } .found { color: #a00 }
"""
_PIXELS: Final = 5
"""Width of a boundary in a strip."""


def page(shown: ShownSweep) -> str:
    """The whole page."""
    return "\n".join(_lines(shown)) + "\n"


def _lines(shown: ShownSweep) -> Iterator[str]:
    title = escape(head(shown))
    colours = " ".join(
        f".{_CLASSES[outcome.value]} {{ background: {back}; color: {front} }}" for outcome, (back, front) in _COLOURS.items()
    )
    yield f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>'
    yield f"<style>{_STYLE}{colours}</style>\n</head>\n<body>"
    yield f"<h1>{escape(shown.target)}: every event at every boundary</h1>\n<p>{title}</p>"
    yield f'<p class="key">{"".join(_key(outcome) for outcome in Outcome)}</p>'
    yield "<p>A strip has one column for each boundary of the path. Open a path to see the instructions.</p>"
    for path in shown.swept:
        yield from _path(path, places(shown.target, path))
    yield "</body>\n</html>"


def _key(outcome: Outcome) -> str:
    return f'<span><b class="{_CLASSES[outcome.value]}">{outcome.value}</b> {escape(WORDS[outcome])}</span>'


def _path(path: SweptPath, code: list[Place]) -> Iterator[str]:
    mark = ' class="found"' if path.divergences or path.contract_violations else ""
    name = f"<code>{escape(path.scenario)}</code> on {escape(path.profile)}"
    yield f"<details><summary>{name} <span{mark}>{escape(found(path))}</span>"
    yield from (f'<div class="row"><span class="kind">{escape(kind)}</span>{_strip(row)}</div>' for kind, row in path.cells.items())
    yield "</summary>"
    if not code:
        yield f"<p>{escape(CHANGED)}</p>"
    yield f"<table><tr><th>k</th>{''.join(f'<th>{escape(kind)}</th>' for kind in path.cells)}<th>at</th><th>instruction</th></tr>"
    for boundary in range(path.boundaries):
        cells = "".join(f'<td><b class="{_CLASSES[row[boundary]]}">{row[boundary]}</b></td>' for row in path.cells.values())
        place = code[boundary] if boundary < len(code) else None
        text = f"<td>{escape(place.name)}</td><td>{escape(place.text)}</td>" if place else ""
        yield f'<tr><td class="n">{boundary}</td>{cells}{text}</tr>'
    yield "</table></details>"


def _strip(row: str) -> str:
    runs = ((letter, sum(1 for _ in same)) for letter, same in groupby(row))
    return (
        '<span class="strip">'
        + "".join(f'<i class="{_CLASSES[each]}" style="width:{_PIXELS * many}px"></i>' for each, many in runs)
        + "</span>"
    )
