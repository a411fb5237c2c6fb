"""What trying somebody's own target found: for people and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from entryfuzz.checking import Broken, Diverging, Report
from entryfuzz.disassembly import Symbols
from entryfuzz.trying import Stuck
from entryfuzz.views import text
from entryfuzz.views.contract import breach, breach_json
from entryfuzz.views.listings import table


def report(found: Report) -> Iterator[RenderableType]:
    """For people."""
    target = found.added.own.target
    yield Text(f"{target.name}: {target.summary}" if target.summary else target.name, style=text.HEADING)
    yield Text(f"kept in {found.added.place}, so that every command knows it")
    for reason in found.added.own.left_out:
        yield Text(f"left out: {reason}", style=text.QUIET)
    yield text.heading("Paths")
    yield _paths(found)
    for reason, count in sum((each.not_modelled for each in found.results), Counter[str]()).most_common():
        yield Text(f"not modelled, so not compared: {_cases(count)}, {reason}", style=text.QUIET)
    if found.stuck:
        yield text.heading("Runs that do not come back")
        yield from (_stuck(each, file) for each, file in found.stuck)
    yield text.heading(_contract_heading(found))
    symbols = Symbols(target.symbols)
    yield from (_broken(each, file, symbols) for each, file in found.broken)
    if found.divergences:
        count = sum(each.hits for each in found.divergences)
        yield text.heading(f"{found.plan.core} differs from the specification in {_cases(count)}: mistakes of the engine, not of this code")
        yield from map(_divergence, found.divergences)


def _paths(found: Report) -> Table:
    columns = ("boundaries", "runs", "not modelled", "contract broken", "core differs")
    result = table("path", "profile", *columns, right=columns)
    for each in found.results:
        numbers = (each.boundaries, each.runs, sum(each.not_modelled.values()), each.contract_violations, each.divergent)
        result.add_row(each.scenario, each.profile, *map(str, numbers))
    return result


def _contract_heading(found: Report) -> str:
    runs = sum(each.runs for each in found.results)
    tried = f"{runs} runs with {', '.join(found.plan.kinds) or 'no events'} in {found.seconds:.1f} s"
    if not found.broken:
        return f"The contract holds: {tried}"
    promises = len({each.violation.promise for each, _ in found.broken})
    return f"The contract is broken: {promises} promise{'s' if promises > 1 else ''}; {tried}"


def _broken(each: Broken, file: Path, symbols: Symbols) -> RenderableType:
    paths = ", ".join(f"{scenario} ({', '.join(profiles)})" for scenario, profiles in each.paths.items())
    seen = ("seen in", f"{_cases(each.hits)} of {paths}")
    return breach(each.violation, each.case, each.way, symbols, seen, ("replay", f"entryfuzz case run {file} --trace"))


def _stuck(each: Stuck, file: Path) -> RenderableType:
    when = ", ".join(f"{event.kind.value} at boundary {event.boundary}" for event in each.case.events) or "nothing arrives"
    rows = Table.grid(padding=(0, 2))
    rows.add_row("  when", when)
    rows.add_row("  seen in", _cases(each.hits))
    rows.add_row("  replay", f"entryfuzz case run {file} --trace")
    return Group(Text(f"✗ {each.case.scenario} ({each.case.profile}): {each.end.value}", style=text.DIFFERS), rows)


def _divergence(each: Diverging) -> RenderableType:
    rows = Table.grid(padding=(0, 2))
    rows.add_row("  seen in", _cases(each.hits))
    rows.add_row("  replay", f"entryfuzz case run {each.file} --trace")
    return Group(Text(f"≠ {each.title}", style=text.DIFFERS), rows)


def _cases(count: int) -> str:
    return f"{count} case{'' if count == 1 else 's'}"


def report_json(found: Report) -> dict[str, Any]:
    """For programs."""
    target, symbols = found.added.own.target, Symbols(found.added.own.target.symbols)
    return {
        "target": target.name,
        "folder": str(found.added.place),
        "scenarios": [scenario.name for scenario in target.scenarios],
        "left_out": list(found.added.own.left_out),
        "profiles": list(found.plan.profiles),
        "events": list(found.plan.kinds),
        "core": found.plan.core,
        "paths": len(found.results),
        "boundaries": sum(each.boundaries for each in found.results),
        "runs": sum(each.runs for each in found.results),
        "merged": sum(each.merged for each in found.results),
        "not_modelled": sum(sum(each.not_modelled.values()) for each in found.results),
        "contract_violations": sum(each.contract_violations for each in found.results),
        "divergences": sum(each.divergent for each in found.results),
        "seconds": round(found.seconds, 3),
        "broken": [_broken_json(each, file, symbols) for each, file in found.broken],
        "stuck": [
            {"scenario": each.case.scenario, "profile": each.case.profile, "end": each.end.value, "cases": each.hits, "case": str(file)}
            for each, file in found.stuck
        ],
        "differing": [{"title": each.title, "cases": each.hits, "case": str(each.file)} for each in found.divergences],
    }


def _broken_json(each: Broken, file: Path, symbols: Symbols) -> dict[str, Any]:
    return {
        **breach_json(each.violation, each.way, symbols),
        "scenario": each.case.scenario,
        "profile": each.case.profile,
        "cases": each.hits,
        "paths": {scenario: list(profiles) for scenario, profiles in each.paths.items()},
        "case": str(file),
    }
