"""The matrix of a sweep on a terminal: a strip of letters for each path and event, or a path boundary by boundary beside its code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from rich.console import RenderableType
from rich.text import Text

from db.sweep_records import totals
from entryfuzz.sweeping import ShownSweep, places
from entryfuzz.views import listings, text
from entryfuzz.views.sweeps import counts, totals_json
from fuzzer.sweep.outcomes import Outcome

if TYPE_CHECKING:
    from db.sweep_records import SweptPath

STYLES: Final = {
    Outcome.DELIVERED: "black on green",
    Outcome.MERGED: "white on dark_green",
    Outcome.DEFERRED: "white on blue",
    Outcome.NEVER: "white on grey37",
    Outcome.NOT_MODELLED: "black on yellow",
    Outcome.DIVERGENT: "bold white on red",
    Outcome.BROKEN: "bold white on magenta",
    Outcome.UNTRIED: "dim",
}
WORDS: Final = {
    Outcome.DELIVERED: "delivered, the rest run to its end",
    Outcome.MERGED: "delivered and merged: back where it came, the rest is known",
    Outcome.DEFERRED: "deferred to a later boundary",
    Outcome.NEVER: "never taken: the run ended first, or one of its kind was waiting",
    Outcome.NOT_MODELLED: "not modelled",
    Outcome.DIVERGENT: "divergent: the core differs",
    Outcome.BROKEN: "the contract is broken",
    Outcome.UNTRIED: "nothing to try",
}


def overview(shown: ShownSweep) -> Iterator[RenderableType]:
    """A strip for each path and event, one letter per boundary."""
    yield Text(head(shown))
    yield legend()
    table = listings.table("scenario", "profile", "event", "boundaries from the first to the last")
    for path in shown.swept:
        for number, (kind, row) in enumerate(path.cells.items()):
            table.add_row(*((path.scenario, path.profile) if number == 0 else ("", "")), kind, strip_of(row))
    yield table


def paths(shown: ShownSweep) -> Iterator[RenderableType]:
    """Each path boundary by boundary: the instruction that comes next, and what became of each event that arrived there."""
    yield Text(head(shown))
    yield legend()
    for path in shown.swept:
        yield text.heading(f"{path.scenario} on {path.profile}: {path.boundaries} boundaries, {found(path)}")
        code = places(shown.target, path)
        if not code:
            yield Text(CHANGED, style=text.SET)
        table = listings.table("k", *path.cells, "at", "instruction", right=("k",))
        for boundary in range(path.boundaries):
            place = code[boundary] if boundary < len(code) else None
            cells = [_cell(row[boundary], width=len(kind)) for kind, row in path.cells.items()]
            table.add_row(str(boundary), *cells, *((place.name, place.text) if place else ("", "")))
        yield table


CHANGED: Final = "the target has changed since it was swept: its instructions cannot be told"


def head(shown: ShownSweep) -> str:
    """Which sweep this is, and how much of it."""
    campaign, of = shown.sweep.campaign, shown.sweep.paths
    state = "" if campaign.finished_at else ", interrupted: the same command continues it"
    return (
        f"sweep {shown.sweep.id} of {shown.target} on {campaign.core} {campaign.core_version}: {counts(totals(shown.swept))} of {of}{state}"
    )


def found(path: SweptPath) -> str:
    """What was found on a path, in words."""
    parts = [f"{path.divergences:,} of {path.runs:,} runs diverge"] if path.divergences else []
    if path.contract_violations:
        parts.append(f"{path.contract_violations:,} break the contract")
    return ", ".join(parts) or f"{path.runs:,} runs, nothing found"


def legend() -> Text:
    """The letters and what they mean."""
    result = Text()
    for outcome in Outcome:
        result.append_text(_cell(outcome.value))
        result.append(f" {WORDS[outcome]}   ")
    return result


def strip_of(row: str) -> Text:
    """Letters in colour."""
    result = Text()
    for letter, run in groupby(row):
        result.append("".join(run), style=STYLES[Outcome(letter)])
    return result


def _cell(letter: str, width: int = 1) -> Text:
    return Text(letter.center(width), style=STYLES[Outcome(letter)])


def sweep_json(shown: ShownSweep, code: bool) -> dict[str, Any]:
    """The matrix for programs; with `code`, each path has its instructions."""
    campaign = shown.sweep.campaign
    return {
        "sweep": shown.sweep.id,
        "campaign": campaign.id,
        "target": shown.target,
        "core": campaign.core,
        "core_version": campaign.core_version,
        "finished": campaign.finished_at is not None,
        "events": list(campaign.arguments["events"]),
        "second": list(campaign.arguments["second"]),
        "depth": campaign.arguments["depth"],
        "legend": {outcome.value: outcome.name.lower().replace("_", "-") for outcome in Outcome},
        **totals_json(totals(shown.swept)),
        "seconds": sum(path.seconds for path in shown.swept),
        "paths_swept": [_path_json(shown, path, code) for path in shown.swept],
    }


def _path_json(shown: ShownSweep, path: SweptPath, code: bool) -> dict[str, Any]:
    result: dict[str, Any] = {
        "scenario": path.scenario,
        "profile": path.profile,
        "boundaries": path.boundaries,
        "runs": path.runs,
        "merged": path.merged,
        "contract_violations": path.contract_violations,
        "divergences": path.divergences,
        "seconds": path.seconds,
        "cells": dict(path.cells),
        "outcomes": {kind: dict(Counter(row)) for kind, row in path.cells.items()},
    }
    if code:
        known = places(shown.target, path)
        result["code"] = [{"address": f"{place.address:#x}", "at": place.name, "instruction": place.text} for place in known]
    return result
