"""Every event at every boundary of a path, on the specification with its contract and on a core."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from fuzzer.case import Case
from fuzzer.cores.core import Core
from fuzzer.sweep.judge import Judge
from fuzzer.sweep.outcomes import Outcome, worst
from fuzzer.sweep.path import record
from fuzzer.sweep.result import PathResult
from fuzzer.sweep.trial import Trial, trials
from fuzzer.targets.target import Target
from reference.image import Image

SECOND: Final = ("nmi",)
"""What arrives in the path that a first event opened, if nothing else is said."""
_OPENS: Final = (Outcome.DELIVERED, Outcome.MERGED)
"""An event that waits opens the path of the one that arrives where it is taken."""


def sweep_path(
    target: Target,
    build: Callable[[Case], Image],
    scenario: str,
    profile: str,
    kinds: Sequence[str],
    depth: int,
    core: Core | None,
    second: Sequence[str] = SECOND,
) -> PathResult:
    """Try every kind of event at every boundary of a scenario; at depth 2, a second one everywhere in what each of them opens.

    The scenario's own events are part of the path. Without a core only specification and contract are asked.
    """
    case = Case(target.name, scenario, profile, events=target.scenario(scenario).events)
    image = build(case)
    judge = Judge(core)
    path = record(case, image, target.code)
    if path is None:
        judge.not_modelled["the start of the path"] += 1
        return judge.result(scenario, profile, dict.fromkeys(kinds, ()))
    list(judge.outcomes([Trial(case, image, Outcome.DELIVERED, path.observation, path.violations)]))
    cells: dict[str, tuple[Outcome, ...]] = {}
    for kind in kinds:
        tried = list(trials(path, kind, path.boundaries[::-1], build))[::-1]
        cells[kind] = tuple(judge.outcomes(tried))
        for other in second if depth > 1 else ():
            opened = (_opened(target, build, trial, boundary, other) for boundary, trial in enumerate(tried))
            cells[f"{kind}+{other}"] = tuple(worst(judge.outcomes(each)) for each in opened)
    return judge.result(scenario, profile, cells)


def _opened(target: Target, build: Callable[[Case], Image], first: Trial | None, boundary: int, kind: str) -> Iterator[Trial | None]:
    """A second event of `kind` at every boundary from where the first one was taken to where its handler had returned."""
    if first is None or first.outcome not in _OPENS:
        return
    path = record(first.case, first.image, target.code, boundary, first.until)
    assert path is not None, "it has run before"
    last = path.boundaries[-1] if first.until is None else min(first.until, path.boundaries[-1])
    yield from trials(path, kind, range(last, boundary - 1, -1), build)
