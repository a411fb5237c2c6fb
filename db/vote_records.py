"""Votes as they go into the database and come out: plain values, no storage rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class VoteRecord:
    """What one engine did with the case of a bucket."""

    engine: str
    version: str
    stance: str
    outcome: str


@dataclass(frozen=True, slots=True)
class NewVerdict:
    """The verdict on a bucket, with the votes that it follows from, the accused's first."""

    bucket_id: str
    verdict: str
    why: str
    expected: str
    """What the specification does at the step that was voted on."""
    case_digest: str
    votes: Sequence[VoteRecord]


@dataclass(frozen=True, slots=True)
class VerdictRow:
    """A stored verdict."""

    bucket_id: str
    verdict: str
    why: str
    expected: str
    case_digest: str
    judged_at: datetime
    votes: tuple[VoteRecord, ...]
