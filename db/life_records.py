"""The life of a bucket as it goes into the database and comes out: plain values, no storage rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Status(StrEnum):
    """Where a bucket is in its life. People may give it other words; a replay changes those as well."""

    OPEN = "open"
    FIXED = "fixed"
    """A version of the core that was not known to show it shows it in none of its examples."""
    REGRESSED = "regressed"
    """It was fixed, and was met again."""


@dataclass(frozen=True, slots=True)
class ReplayedCase:
    """An example of a bucket that was run again: `shows` is the signature that it has now, empty without a divergence.

    `told` is False where the case can say nothing: it is not modelled any more, the core does not take it, or its target is not known.
    """

    bucket_id: str
    case_digest: str
    shows: str
    told: bool = True


@dataclass(frozen=True, slots=True)
class ReplayFound:
    """All that a slice of a replay has to say: every example of some buckets, on one version of one core."""

    number: int
    core: str
    core_version: str
    seconds: float
    crashes: int
    replayed: Sequence[ReplayedCase]

    @property
    def cases(self) -> int:
        """How many cases were run."""
        return len(self.replayed)


@dataclass(frozen=True, slots=True)
class ReplayRow:
    """The last replay of a bucket on one version: how many examples showed it, did not, or could not tell."""

    bucket_id: str
    core_version: str
    campaign_id: int
    shown: int
    gone: int
    untold: int
    replayed_at: datetime
    shown_at: datetime | None


@dataclass(frozen=True, slots=True)
class StatusChangeRow:
    """A line in the life of a bucket: the status that it got, or was left with, and why."""

    status: str
    core_version: str
    why: str
    campaign_id: int | None
    at: datetime
