"""What trying somebody's own target found: broken promises, runs that do not end, divergences of the core; each with a case file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from pathlib import Path

from entryfuzz.added import CASES, Added
from entryfuzz.disassembly import Symbols
from entryfuzz.isolation import Lost
from entryfuzz.output import note
from entryfuzz.path import Boundary, walk
from entryfuzz.replay import find_core, replay
from entryfuzz.trying import Plan, Stuck, Tried, tried
from fuzzer.build import builder
from fuzzer.case import Case
from fuzzer.case_json import dump
from fuzzer.cores.core import CoreError
from fuzzer.sweep.result import Breach, PathResult
from fuzzer.targets.target import Target
from reference.linux.contract import Violation
from reference.trace import trace


@dataclass(frozen=True)
class Broken:
    """One promise, broken by one instruction: the first case that shows it, and how many do."""

    violation: Violation
    case: Case
    hits: int
    paths: Mapping[str, tuple[str, ...]]
    """The profiles of each scenario in which it is broken."""
    target: Target

    @cached_property
    def way(self) -> list[Boundary]:
        """The run of the case, boundary by boundary."""
        image = builder(self.target)(self.case)
        return walk(image, trace(image), Symbols(self.target.symbols))


def broken(target: Target, found: Iterable[PathResult]) -> list[Broken]:
    """What the paths found, each promise once for each instruction that breaks it, most hits first."""
    groups: dict[tuple[str, int], list[tuple[PathResult, Breach]]] = {}
    for result in found:
        for breach in result.breaches:
            groups.setdefault((breach.violation.promise, breach.violation.rip), []).append((result, breach))
    return sorted((_broken(target, group) for group in groups.values()), key=lambda each: -each.hits)


def _broken(target: Target, group: Sequence[tuple[PathResult, Breach]]) -> Broken:
    """One of several alike; the case with the fewest events stands for them."""
    simplest = min((breach for _, breach in group), key=lambda each: len(each.case.events))
    profiles: dict[str, list[str]] = {}
    for result, _ in group:
        profiles.setdefault(result.scenario, []).append(result.profile)
    hits = sum(breach.hits for _, breach in group)
    return Broken(simplest.violation, simplest.case, hits, {name: tuple(each) for name, each in profiles.items()}, target)


@dataclass(frozen=True, slots=True)
class Diverging:
    """One cause for which the core differs: the first case that shows it, and how many do."""

    title: str
    case: Case
    hits: int
    file: Path = Path()


def diverging(plan: Plan, found: Iterable[PathResult]) -> list[Diverging]:
    """What the core does otherwise, each cause once, most hits first; every case runs again to tell its cause."""
    groups: dict[str, Diverging] = {}
    for result in found:
        for each in result.divergences:
            (run,) = replay(each.case, [find_core(plan.core)]).runs
            title = run.signature.title if run.signature else "not seen again"
            old = groups.get(title) or Diverging(title, each.case, 0)
            groups[title] = replace(old, hits=old.hits + each.hits)
    return sorted(groups.values(), key=lambda each: -each.hits)


@dataclass(frozen=True, slots=True)
class Report:
    """All of it: broken promises and divergences, each with its case file."""

    added: Added
    plan: Plan
    results: Sequence[PathResult]
    broken: Sequence[tuple[Broken, Path]]
    divergences: Sequence[Diverging]
    stuck: Sequence[tuple[Stuck, Path]]
    seconds: float

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong with the entry code."""
        return not self.broken and not self.stuck


def check_with_progress(added: Added, plan: Plan) -> Report:
    """Try it, a line on stderr for each path, and write a case file for everything that was found."""
    began = time.monotonic()
    found: list[Tried] = []
    total = len(plan.target.scenarios) * len(plan.profiles)
    try:
        for each in tried(plan):
            found.append(each)
            result = each.result
            note(f"{len(found)}/{total} {result.scenario} ({result.profile}): {result.runs} runs, {result.contract_violations} broken")
    except Lost as lost:
        raise CoreError(f"{plan.core}: {lost} after {len(found)} of {total} paths; the target is kept in {added.place}") from None
    seconds, swept = time.monotonic() - began, [each.result for each in found]
    promises = [(each, _write(added, each.violation.promise, each.case)) for each in broken(plan.target, swept)]
    divergences = [replace(each, file=_write(added, "core", each.case)) for each in diverging(plan, swept)]
    stuck = [(each.stuck, _write(added, "stuck", each.stuck.case)) for each in found if each.stuck]
    return Report(added, plan, swept, promises, divergences, stuck, seconds)


def store(plan: Plan, database: str) -> None:
    """Keep what is found in a database too: the same again as a sweep, which can be shown, resumed and listed."""
    from entryfuzz.sweeping import sweep_with_progress
    from fuzzer.sweep.sweep import SECOND
    from workers.sweeping import SweepSettings

    scenarios = tuple(scenario.name for scenario in plan.target.scenarios)
    found = sweep_with_progress(
        SweepSettings(plan.target.name, scenarios, plan.profiles, plan.kinds, SECOND, plan.depth, plan.core, jobs=1, database=database)
    )
    note(f"stored as sweep {found.sweep_id}: entryfuzz divergences list --target {plan.target.name} --db {database}")


def _write(added: Added, name: str, case: Case) -> Path:
    """A case file, to be run again by `entryfuzz case run`."""
    folder = added.place / CASES
    number = next(number for number in count(1) if not (folder / f"{name}-{number}.json").exists())
    file = folder / f"{name}-{number}.json"
    file.write_text(json.dumps(dump(case), indent=1) + "\n", encoding="utf-8")
    return file
