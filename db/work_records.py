"""Planned work and workers as they go into the database and come out: plain values, no storage rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from db.records import CampaignRow, Json


class Measured(Protocol):
    """The result of a slice, whatever its mode found: which slice it was and how many cases it ran."""

    @property
    def number(self) -> int:
        """The number of the slice."""
        ...

    @property
    def cases(self) -> int:
        """How many cases were run."""
        ...


@dataclass(frozen=True, slots=True)
class NewWork:
    """A slice to be done: how (`mode`), and what that mode needs to know."""

    number: int
    mode: str
    arguments: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class Held:
    """One attempt at a slice. Every write about it carries this; it is worth nothing once somebody has claimed the slice again."""

    campaign_id: int
    number: int
    attempt: int
    worker: str

    def __str__(self) -> str:
        return f"slice {self.number} of campaign {self.campaign_id}, attempt {self.attempt}"


@dataclass(frozen=True, slots=True)
class Claim:
    """A slice that was just claimed."""

    held: Held
    mode: str
    arguments: Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class PlannedRow:
    """A planned slice as it stands."""

    campaign_id: int
    number: int
    mode: str
    arguments: Mapping[str, Json]
    state: str
    attempt: int
    lease_until: datetime | None
    worker: str | None
    reason: str | None
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class OpenCampaign:
    """An unfinished campaign of the cluster: `planned` slices so far, of which `waiting` wait and `unfinished` wait or are being done."""

    campaign: CampaignRow
    planned: int
    waiting: int
    unfinished: int


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A worker: `campaign_id` and `number` name the slice it is doing, None while it waits; `cases` counts those it has stored."""

    name: str
    started_at: datetime
    seen_at: datetime
    cases: int
    campaign_id: int | None
    number: int | None


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """What a cluster does: workers heard of lately, slices by state, cases per second of the last minutes, buckets."""

    workers: tuple[WorkerRow, ...]
    slices: Mapping[str, int]
    campaigns: int
    cases_per_second: float
    buckets: int
    new_buckets: int
    failures: tuple[PlannedRow, ...]
