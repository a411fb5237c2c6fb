"""The result of running one case: for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from entryfuzz.disassembly import Symbols
from entryfuzz.path import Boundary, frame_words
from entryfuzz.replay import CoreRun, Replay, specification_path
from entryfuzz.views import text
from entryfuzz.views.contract import breach, breach_json
from entryfuzz.views.states import EndStates, end_states
from entryfuzz.views.steps import steps, steps_json
from fuzzer.explain import Explanation
from fuzzer.observation_json import differences_to_json, to_json
from fuzzer.signature import Signature
from fuzzer.targets.registry import TARGETS


def verdict(replayed: Replay) -> Iterator[RenderableType]:
    """What came out of a replay, and, where it was traced, every step."""
    case = replayed.case
    yield Text(f"case {case.digest[:16]}: target {case.target}, scenario {case.scenario}, profile {case.profile}")
    for run in replayed.runs:
        yield _core_verdict(replayed, run)
    yield from _contract_verdict(replayed)
    frames = frames_of(replayed)
    for run in replayed.runs:
        if run.path or replayed.path:
            divergent = run.explanation.step if run.explanation else None
            yield text.heading(f"Steps on the specification and on {run.core}")
            symbols = Symbols(TARGETS[case.target].symbols)
            yield steps(replayed.path, run.path, run.core, divergent, symbols, frames, case.target)
    yield text.heading("End states")
    yield end_states(_states(replayed, frames))


def frames_of(replayed: Replay) -> Mapping[str, str]:
    """The names of the words that any side pushed; the specification's where both name one."""
    frames: dict[str, str] = {}
    for run in replayed.runs:
        frames |= frame_words(replayed.image, run.path)
    return frames | frame_words(replayed.image, replayed.path)


def _core_verdict(replayed: Replay, run: CoreRun) -> RenderableType:
    name = f"{run.core} {run.version}"
    if not run.comparison.comparable:
        reasons = [
            f"{who}: {seen.end.value} {seen.detail}".rstrip() for who, seen in (("spec", replayed.spec), (run.core, run.observation))
        ]
        return Text(f"{name}: not compared ({'; '.join(reasons)})")
    tolerated = f" (tolerated: {', '.join(sorted(set(run.comparison.tolerated)))})" if run.comparison.tolerated else ""
    if not run.comparison.differences:
        return Text(f"{name}: no divergence{tolerated}")
    assert run.signature is not None
    return cause(name, run.signature, run.explanation)


def _contract_verdict(replayed: Replay) -> Iterator[RenderableType]:
    """The promises that the entry code breaks."""
    symbols, way = _symbols_and_way(replayed)
    for violation in replayed.violations:
        yield breach(violation, replayed.case, way, symbols)


def _symbols_and_way(replayed: Replay) -> tuple[Symbols, Sequence[Boundary]]:
    symbols = Symbols(TARGETS[replayed.case.target].symbols)
    return symbols, specification_path(replayed.image, replayed.spec, symbols) if replayed.violations else ()


def cause(name: str, signature: Signature, explanation: Explanation | None) -> Table:
    """The cause of a divergence, where it is, and the rule that decides."""
    at = f"step {explanation.step}, {explanation.address:#x}: {explanation.text}" if explanation else "no step of the trace"
    rows = Table.grid(padding=(0, 2))
    rows.add_row("  area", f"{signature.area}, {signature.kind}, by the {signature.by}")
    rows.add_row("  at", at)
    rows.add_row("  rule", signature.rule)
    table = Table.grid()
    table.add_row(Text(f"{name}: {signature.title}", style=text.DIFFERS))
    table.add_row(rows)
    return table


def _states(replayed: Replay, frames: Mapping[str, str]) -> EndStates:
    return EndStates(
        target=replayed.case.target,
        start=replayed.image.registers,
        spec=to_json(replayed.spec, replayed.image),
        cores={run.core: to_json(run.observation, replayed.image) for run in replayed.runs},
        differing={run.core: {each.field for each in run.comparison.differences} for run in replayed.runs},
        frames=frames,
    )


def verdict_json(replayed: Replay) -> dict[str, Any]:
    """The same for programs; with the steps of each side if they were traced."""
    symbols, way = _symbols_and_way(replayed)
    result: dict[str, Any] = {
        "case": replayed.case.digest,
        "spec": to_json(replayed.spec, replayed.image),
        "cores": {run.core: to_json(run.observation, replayed.image) for run in replayed.runs},
        "divergences": [divergence_json(run) for run in replayed.runs if run.comparison.differences],
        "contract": [breach_json(each, way, symbols) for each in replayed.violations],
        "not_compared": [run.core for run in replayed.runs if not run.comparison.comparable],
        "tolerated": {run.core: sorted(set(run.comparison.tolerated)) for run in replayed.runs},
    }
    if replayed.path or any(run.path for run in replayed.runs):
        cores = {run.core: steps_json(run.path) for run in replayed.runs}
        result["trace"] = {"spec": steps_json(replayed.path), "cores": cores}
    return result


def divergence_json(run: CoreRun) -> dict[str, Any]:
    """A divergence of one core: why, where if that is known, and every field that differs at the end."""
    from db.records import bucket_id

    assert run.signature is not None
    sign, explanation = run.signature, run.explanation
    where: dict[str, Any] = {"step": None, "address": None, "instruction": None}
    if explanation is not None:
        where = {"step": explanation.step, "address": f"{explanation.address:#x}", "instruction": explanation.text}
    return {
        "core": run.core,
        "version": run.version,
        "id": bucket_id(sign.text),
        "area": sign.area,
        "kind": sign.kind,
        "by": sign.by,
        "signature": sign.text,
        "title": sign.title,
        "cause": sign.cause,
        "rule": sign.rule,
        "expected": sign.expected,
        "observed": sign.observed,
        **where,
        "differences": differences_to_json(run.comparison.differences),
    }
