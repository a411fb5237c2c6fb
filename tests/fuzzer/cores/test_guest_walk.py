"""A walk asks an engine for no more ticks than the harness has room for, however far away an event is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fuzzer.build import build
from fuzzer.case import Case
from fuzzer.cores.guest.job import make_job
from fuzzer.cores.guest.mailbox import MOST_WALK
from fuzzer.cores.guest.memory import Result
from fuzzer.cores.guest.walk import Arrivals, Wanted
from fuzzer.cores.guest.watch import Watches
from reference.image import End, Event, EventKind


def test_an_event_that_is_far_away_is_looked_for_as_far_as_a_run_goes() -> None:
    image = build(Case("linux4", "divide-error-from-user", "intel", events=(Event(60_000, EventKind.NMI, 2),)))
    job = make_job(image, Watches().of(image))
    asked: list[int] = []

    def lost(wanted: Sequence[Wanted]) -> Iterator[Result | End]:
        asked.extend(tick + count for _, tick, count in wanted)
        return iter([End.CORE_HUNG] * len(wanted))

    (placed,) = Arrivals(lost).placed([job])

    assert placed.events == ()
    assert 0 < max(asked) <= MOST_WALK
