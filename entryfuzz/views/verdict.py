"""The result of running one case: for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from entryfuzz.disassembly import Symbols
from entryfuzz.path import frame_words
from entryfuzz.replay import CoreRun, Replay
from entryfuzz.views import text
from entryfuzz.views.states import EndStates, end_states
from entryfuzz.views.steps import steps, steps_json
from fuzzer.compare import Comparison, Difference
from fuzzer.explain import Explanation
from fuzzer.observation_json import to_json
from fuzzer.targets.registry import TARGETS


def verdict(replayed: Replay) -> Iterator[RenderableType]:
    """What came out of a replay, and, where it was traced, every step."""
    case = replayed.case
    yield Text(f"case {case.digest[:16]}: target {case.target}, scenario {case.scenario}, profile {case.profile}")
    for run in replayed.runs:
        yield _core_verdict(replayed, run)
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
    if run.explanation is None:
        return Text(f"{name}: diverges at the end, though step by step both sides agree{tolerated}", style=text.DIFFERS)
    return explanation_table(name, run.explanation)


def explanation_table(name: str, explanation: Explanation) -> Table:
    """The cause of a divergence, the rule that decides and both outcomes."""
    signature = explanation.signature
    table = Table.grid(padding=(0, 2))
    table.add_row(Text(f"{name}: {signature.title}", style=text.DIFFERS))
    rows = Table.grid(padding=(0, 2))
    rows.add_row("  area", f"{signature.area}, {signature.kind}, by the {signature.by}")
    rows.add_row("  at", f"step {explanation.step}, {explanation.address:#x}: {explanation.text}")
    rows.add_row("  rule", signature.rule)
    table.add_row(rows)
    return table


def _states(replayed: Replay, frames: Mapping[str, str]) -> EndStates:
    return EndStates(
        target=replayed.case.target,
        start=replayed.image.registers,
        spec=to_json(replayed.spec),
        cores={run.core: to_json(run.observation) for run in replayed.runs},
        differing={run.core: {each.field for each in run.comparison.differences} for run in replayed.runs},
        frames=frames,
    )


def verdict_json(replayed: Replay) -> dict[str, Any]:
    """The same for programs; with the steps of each side if they were traced."""
    result: dict[str, Any] = {
        "case": replayed.case.digest,
        "spec": to_json(replayed.spec),
        "cores": {run.core: to_json(run.observation) for run in replayed.runs},
        "divergences": [divergence_json(run) for run in replayed.runs if run.comparison.differences],
        "not_compared": [run.core for run in replayed.runs if not run.comparison.comparable],
        "tolerated": {run.core: sorted(set(run.comparison.tolerated)) for run in replayed.runs},
    }
    if replayed.path or any(run.path for run in replayed.runs):
        cores = {run.core: steps_json(run.path) for run in replayed.runs}
        result["trace"] = {"spec": steps_json(replayed.path), "cores": cores}
    return result


def divergence_json(run: CoreRun) -> dict[str, Any]:
    """A divergence of one core: where, why, and every field that differs at the end."""
    return {"core": run.core, "version": run.version, **_cause(run.explanation), "differences": differences_json(run.comparison)}


def _cause(explanation: Explanation | None) -> dict[str, Any]:
    from db.records import bucket_id

    if explanation is None:
        return {"id": None, "signature": None}
    signature = explanation.signature
    return {
        "id": bucket_id(signature.text),
        "area": signature.area,
        "kind": signature.kind,
        "by": signature.by,
        "signature": signature.text,
        "title": signature.title,
        "cause": signature.cause,
        "rule": signature.rule,
        "expected": signature.expected,
        "observed": signature.observed,
        "step": explanation.step,
        "address": f"{explanation.address:#x}",
        "instruction": explanation.text,
    }


def differences_json(comparison: Comparison) -> list[dict[str, str]]:
    """Field, expected and observed; numbers as hex."""
    return [_difference(each) for each in comparison.differences]


def _difference(difference: Difference) -> dict[str, str]:
    both = {"expected": difference.expected, "observed": difference.observed}
    return {"field": difference.field, **{side: f"{value:#x}" if isinstance(value, int) else value for side, value in both.items()}}
