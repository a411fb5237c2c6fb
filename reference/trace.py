"""Running a machine one boundary at a time, for explaining where another run parts from it."""

from __future__ import annotations

from collections.abc import Iterator

from reference.boot import boot, observe
from reference.delivery import Ended
from reference.faults import Fault, NotModelled, Shutdown, exception_name
from reference.image import End, Image, Step
from reference.machine import Machine
from reference.run import step

ONE_ITERATION = -1
"""As the machine's limit: REP hands over after every iteration."""


def trace(image: Image) -> Iterator[Step]:
    """Run `image` to its end, a step for each boundary and one for the start; the last says how the run ended.

    An initial state that is outside the model gives no steps.
    """
    try:
        m = boot(image)
    except (Fault, NotModelled):
        return  # `run` tells why
    m.limit = ONE_ITERATION
    yield _view(m, image, 0)
    end: End | None = None
    while end is None:
        known, retired, m.last_fault, m.fault_at_fetch = len(m.deliveries), m.retired, None, False
        end, detail = _advance(m, image.limit)
        yield _view(m, image, known, end, detail, asynchronous=m.retired == retired and m.last_fault is None)


def _advance(m: Machine, limit: int) -> tuple[End | None, str]:
    """Pass one boundary; how the run ended, if it did, and why."""
    if m.retired >= limit or len(m.deliveries) >= limit:
        return End.DID_NOT_END, ""
    try:
        return (None if step(m) else End.HALTED), ""
    except Ended:
        return End.ENDED, ""
    except Shutdown:
        return End.SHUTDOWN, ""
    except NotModelled as reason:
        return End.NOT_MODELLED, reason.what


def _view(m: Machine, image: Image, known: int, end: End | None = None, detail: str = "", asynchronous: bool = False) -> Step:
    seen = observe(m, image, End.DID_NOT_END)
    fault = m.last_fault
    return Step(
        retired=m.retired,
        registers=seen.registers,
        memory=seen.memory,
        delivered=tuple(m.deliveries[known:]),
        raised=exception_name(fault.vector, fault.error_code) if fault else "",
        rule=fault.rule if fault else "",
        at_fetch=m.fault_at_fetch,
        asynchronous=asynchronous,
        undefined=seen.undefined,
        code_bits=32 if m.compatibility else 64,
        end=end,
        detail=detail,
    )
