"""One event at one boundary of a path, on the specification."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from fuzzer.case import Case
from fuzzer.sweep.events import event_at, with_event
from fuzzer.sweep.merge import is_back, merged
from fuzzer.sweep.outcomes import Outcome
from fuzzer.sweep.path import Path
from fuzzer.sweep.running import Running
from reference.boot import observe
from reference.image import End, Event, Image, Observation
from reference.linux.contract import Violation


@dataclass(frozen=True, slots=True)
class Trial:
    """What the specification says of a case, and how it was found out."""

    case: Case
    image: Image
    outcome: Outcome
    spec: Observation
    violations: tuple[Violation, ...] = ()
    shared: bool = False
    """The rest of the run was known, or all of it."""
    until: int | None = None
    """The boundary, in retired instructions of this run, at which the handler had returned; None if it did not return."""


def trials(path: Path, kind: str, boundaries: Sequence[int], build: Callable[[Case], Image]) -> Iterator[Trial | None]:
    """An event of `kind` at each of `boundaries`, which descend; None where the path has this event already.

    An event that has to wait is, one boundary on, in the state of the one that arrives there: that one has been tried before.
    """
    later: Trial | None = None
    for boundary in boundaries:
        event = event_at(kind, boundary)
        if event in path.case.events:
            later = None
            yield None
            continue
        case = with_event(path.case, event)
        later = _try(path, event, case, build(case), later)
        yield later


def _try(path: Path, event: Event, case: Case, image: Image, later: Trial | None) -> Trial:
    start = path.starts[event.boundary]
    run = start.fork()
    run.hurry()
    run.arrive(event)
    taken = _wait(run, event, patience=1 if later else path.image.limit)
    if later and run.end is None and run.waits_for(event):
        waited = Outcome.DEFERRED if later.outcome in _TAKEN else later.outcome
        return Trial(case, image, waited, later.spec, later.violations, True, later.until)
    spec, until = _run_on(run, path, taken)
    shared = spec is not None
    spec = spec or observe(run.m, image, run.end or End.DID_NOT_END, run.detail)
    return Trial(case, image, _outcome(event, taken, spec, shared), spec, run.violations[len(start.violations) :], shared, until)


def _outcome(event: Event, taken: int | None, spec: Observation, shared: bool) -> Outcome:
    if spec.end is End.NOT_MODELLED:
        return Outcome.NOT_MODELLED
    if taken is None:
        return Outcome.NEVER
    if taken != event.boundary:
        return Outcome.DEFERRED
    return Outcome.MERGED if shared else Outcome.DELIVERED


_TAKEN: Final = (Outcome.DELIVERED, Outcome.MERGED, Outcome.DEFERRED)
_BETWEEN: Final = -1
"""A boundary that no schedule names: a fault has been delivered, and no instruction has run since."""


def _wait(run: Running, event: Event, patience: int) -> int | None:
    """Run until `event` is taken, but not longer than `patience` instructions; tell at which boundary it was, None if it was not."""
    m = run.m
    last = event.boundary + patience
    here, fresh, delivered = _BETWEEN, True, 0
    while run.end is None and run.waits_for(event):
        if m.retired >= last:
            return None
        fresh, here, delivered = m.retired != here, m.retired, len(m.deliveries)
        run.step()
    if run.end is not None or len(m.deliveries) == delivered:
        return None
    return here if fresh else _BETWEEN


def _run_on(run: Running, path: Path, taken: int | None) -> tuple[Observation | None, int | None]:
    """Run to the end, or until the rest is known: what it ends with then, and when the handler had returned."""
    start = None if taken is None else path.starts.get(taken)
    until = spec = None
    while run.end is None and spec is None:
        run.step()
        if start and until is None and run.end is None and is_back(run.m, start.m):
            until = run.m.retired
            spec = merged(path, taken or 0, run)
    return spec, until
