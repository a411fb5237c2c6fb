"""Runs of different grain beside each other: steps as one engine shows them, and as another can.

An engine that delivers events itself is asked for its state at boundaries: what it does between two of them, a delivery and the
first instruction of the handler, it shows as one step. The finer steps of the specification are put together to match.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fuzzer.cores.core import Core
from reference.image import Image, Step
from reference.trace import trace


def beside(image: Image, core: Core) -> Iterator[tuple[Step, Step]]:
    """The steps of the specification and of a core that belong together, until one of them ends."""
    if core.delivers_events:
        return joined(by_boundary(trace(image)), by_boundary(core.trace(image)))
    return zip(trace(image), core.trace(image), strict=False)


def joined(spec: Iterator[Step], other: Iterator[Step]) -> Iterator[tuple[Step, Step]]:
    """Steps of two runs at the same boundaries: an engine that takes a debug trap with the instruction before it shows none in between."""
    for step in other:
        expected = next(spec, None)
        while expected is not None and expected.end is None and step.end is None and expected.retired < step.retired:
            expected = next(spec, None)
        if expected is None:
            return
        yield expected, step


def by_boundary(steps: Iterator[Step]) -> Iterator[Step]:
    """The start, then a step for each boundary that is passed, then the end: a delivery is told with the instruction behind it."""
    held: list[Step] = []
    retired = -1
    for step in steps:
        if step.retired > retired or step.end is not None:
            yield _together(held, step)
            held, retired = [], step.retired
        else:
            held.append(step)


def _together(held: list[Step], last: Step) -> Step:
    """`last`, with what was met and delivered on the way to it; what was met first is what is told."""
    steps = (*held, last)
    first = next((step for step in steps if step.raised), last)
    return replace(
        last,
        delivered=tuple(entry for step in steps for entry in step.delivered),
        raised=first.raised,
        rule=first.rule,
        at_fetch=first.at_fetch,
        held_by_engine=any(step.held_by_engine for step in steps),
        asynchronous=any(step.asynchronous for step in steps),
    )
