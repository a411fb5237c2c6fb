"""Runs of the timetable as they go into the database and come out: plain values, no storage rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Begun:
    """What beginning a run has done: the campaigns that it planned, and, if that was all there was to do, the outcome."""

    campaigns: Sequence[int] = ()
    outcome: str | None = None


@dataclass(frozen=True, slots=True)
class NightlyRunRow:
    """A run of a job of the timetable; `finished_at` and `outcome` are None while its campaigns run."""

    id: int
    name: str
    job: str
    due_at: datetime
    started_at: datetime
    finished_at: datetime | None
    outcome: str | None
    campaigns: tuple[int, ...]
