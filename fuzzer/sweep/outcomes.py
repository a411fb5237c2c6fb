"""What became of an event at a boundary: one letter each, so that a path is a short string."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum


class Outcome(Enum):
    """From the least to the most remarkable; where several apply, the last one is shown."""

    DELIVERED = "d"
    """Taken at once; what followed was run to its end."""
    MERGED = "m"
    """Taken at once; its handler left the interrupted path as it was, so the rest was not run again."""
    DEFERRED = "w"
    """It waited for a later boundary: interrupts were off, the NMI latch was closed, a shadow was in the way."""
    NEVER = "u"
    """It was not taken at all: the run ended first, or another of its kind was waiting already."""
    NOT_MODELLED = "n"
    """The specification says nothing about what follows."""
    DIVERGENT = "x"
    """The core ended in another state than the specification, or not at all."""
    BROKEN = "c"
    """The entry code broke its contract."""
    UNTRIED = "-"
    """Nothing to try: the schedule has this event already, or there is no boundary for a second one."""


_RANK = {outcome: rank for rank, outcome in enumerate((Outcome.UNTRIED, *(each for each in Outcome if each is not Outcome.UNTRIED)))}


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The most remarkable of several; `UNTRIED` of none."""
    return max(outcomes, key=_RANK.__getitem__, default=Outcome.UNTRIED)


def letters(outcomes: Iterable[Outcome]) -> str:
    """Outcomes as they are stored."""
    return "".join(outcome.value for outcome in outcomes)
