"""The tables. Storage only: what goes in and comes out is in `records`."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, CheckConstraint, ForeignKey, Index, LargeBinary, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base as Base
from db.base import UtcDateTime as UtcDateTime
from db.nightly_models import BucketReplay as BucketReplay
from db.nightly_models import NightlyCampaign as NightlyCampaign
from db.nightly_models import NightlyRun as NightlyRun
from db.nightly_models import StatusChange as StatusChange
from db.records import KINDS


class Campaign(Base):
    """One fuzzing run: a seed, and what it ran on."""

    __tablename__ = "campaign"

    id: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    targets: Mapped[list[str]]
    core: Mapped[str]
    core_version: Mapped[str]
    profiles: Mapped[list[str]]
    # Decimal text: a seed of 64 bits does not fit into the signed integers of either database.
    seed: Mapped[str]
    slice_cases: Mapped[int]
    arguments: Mapped[dict[str, Any]]


class Slice(Base):
    """A finished piece of a campaign. Its row exists once everything it found is stored, never before."""

    __tablename__ = "slice"
    __table_args__ = (UniqueConstraint("campaign_id", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaign.id"))
    number: Mapped[int]
    cases: Mapped[int] = mapped_column(BigInteger)
    seconds: Mapped[float]
    not_modelled: Mapped[dict[str, int]]
    tolerated: Mapped[dict[str, int]]
    crashes: Mapped[int]


class Case(Base):
    """The bytes of a case under their digest, and what they decode to."""

    __tablename__ = "case"

    digest: Mapped[str] = mapped_column(primary_key=True)
    data: Mapped[bytes] = mapped_column("bytes", LargeBinary)
    target: Mapped[str]
    scenario: Mapped[str]
    profile: Mapped[str]
    instance: Mapped[str]


class Bucket(Base):
    """Findings with one cause, under one signature."""

    __tablename__ = "bucket"
    __table_args__ = (
        UniqueConstraint("signature"),
        CheckConstraint(f"kind IN {KINDS}", name="kind"),
        CheckConstraint("\"by\" IN ('engine', 'adapter', 'entry code')", name="by"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    signature: Mapped[str]
    kind: Mapped[str]
    area: Mapped[str]
    core: Mapped[str]
    profile: Mapped[str]
    by: Mapped[str]
    cause: Mapped[str]
    rule: Mapped[str]
    expected: Mapped[str]
    observed: Mapped[str]
    title: Mapped[str]
    status: Mapped[str] = mapped_column(default="open")
    # The last version that did not show it any more, and since when that is known; a bucket that has come back keeps them.
    fixed_version: Mapped[str | None]
    fixed_at: Mapped[datetime | None]
    first_seen: Mapped[datetime]
    last_seen: Mapped[datetime]
    # The sum of the ledger and the number of rows in `finding`, kept in the transactions that change these: a list that counted a
    # million findings would take half a second. Whoever deletes findings calls `store.count_findings`.
    hits: Mapped[int] = mapped_column(BigInteger, server_default="0")
    findings: Mapped[int] = mapped_column(BigInteger, server_default="0")


class BucketHits(Base):
    """The ledger: how often one slice hit one bucket. A bucket's hits are the sum, exact after any number of retries."""

    __tablename__ = "bucket_hits"
    __table_args__ = (Index(None, "bucket_id"),)

    slice_id: Mapped[int] = mapped_column(ForeignKey("slice.id"), primary_key=True)
    bucket_id: Mapped[str] = mapped_column(ForeignKey("bucket.id"), primary_key=True)
    hits: Mapped[int] = mapped_column(BigInteger)


class BucketTarget(Base):
    """A target a bucket was seen in. A table of its own, because only some findings are kept."""

    __tablename__ = "bucket_target"

    bucket_id: Mapped[str] = mapped_column(ForeignKey("bucket.id"), primary_key=True)
    target: Mapped[str] = mapped_column(primary_key=True)


class Finding(Base):
    """An example of a bucket: the case that shows it, and what both sides said."""

    __tablename__ = "finding"
    __table_args__ = (
        UniqueConstraint("bucket_id", "case_digest", "core", "core_version"),
        Index(None, "campaign_id", "bucket_id"),
        Index(None, "case_digest"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    bucket_id: Mapped[str] = mapped_column(ForeignKey("bucket.id"))
    case_digest: Mapped[str] = mapped_column(ForeignKey("case.digest"))
    core: Mapped[str]
    core_version: Mapped[str]
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaign.id"))
    spec: Mapped[Any] = mapped_column(JSON)
    observed: Mapped[Any] = mapped_column(JSON)
    differences: Mapped[Any] = mapped_column(JSON)
    found_at: Mapped[datetime]


class Sweep(Base):
    """A campaign that tries every boundary instead of chosen ones: its slices are paths."""

    __tablename__ = "sweep"
    __table_args__ = (UniqueConstraint("campaign_id"), Index(None, "key"))

    id: Mapped[int] = mapped_column(primary_key=True)
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaign.id"))
    # The same for two sweeps that would do the same: an unfinished one is continued by it.
    key: Mapped[str]
    paths: Mapped[int]


class SweepPath(Base):
    """A path that was swept whole: for each kind of event one letter per boundary. It is also the slice of this number."""

    __tablename__ = "sweep_path"
    __table_args__ = (UniqueConstraint("sweep_id", "scenario", "profile"),)

    sweep_id: Mapped[int] = mapped_column(ForeignKey("sweep.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    scenario: Mapped[str]
    profile: Mapped[str]
    # The digest of what the path starts from: of another start, the letters say nothing.
    start: Mapped[str]
    boundaries: Mapped[int]
    cells: Mapped[dict[str, str]] = mapped_column(JSON)
    runs: Mapped[int] = mapped_column(BigInteger)
    merged: Mapped[int] = mapped_column(BigInteger)
    contract_violations: Mapped[int] = mapped_column(BigInteger)
    divergences: Mapped[int] = mapped_column(BigInteger)
    seconds: Mapped[float]


class Verdict(Base):
    """Who is wrong about a bucket, from the last vote on it."""

    __tablename__ = "verdict"
    __table_args__ = (Index(None, "verdict"),)

    bucket_id: Mapped[str] = mapped_column(ForeignKey("bucket.id"), primary_key=True)
    verdict: Mapped[str]
    why: Mapped[str]
    expected: Mapped[str]
    case_digest: Mapped[str] = mapped_column(ForeignKey("case.digest"))
    judged_at: Mapped[datetime]


class Vote(Base):
    """What one engine did at the step that a verdict is about."""

    __tablename__ = "vote"

    bucket_id: Mapped[str] = mapped_column(ForeignKey("verdict.bucket_id"), primary_key=True)
    engine: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str]
    stance: Mapped[str]
    outcome: Mapped[str]


class PlannedSlice(Base):
    """A slice that workers of a cluster do: who has it, in which attempt, and how it ended (docs/decisions/0009)."""

    __tablename__ = "planned_slice"
    __table_args__ = (
        CheckConstraint("state IN ('waiting', 'leased', 'done', 'failed')", name="state"),
        Index(None, "state", "campaign_id"),
    )

    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaign.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    mode: Mapped[str]
    arguments: Mapped[dict[str, Any]]
    state: Mapped[str]
    # Raised by every claim, and by nothing else: who holds a lower number holds nothing.
    attempt: Mapped[int]
    lease_until: Mapped[datetime | None]
    worker: Mapped[str | None]
    reason: Mapped[str | None]
    changed_at: Mapped[datetime]


class Worker(Base):
    """A worker of a cluster, as long as it lives: when it was last heard of and what it is doing."""

    __tablename__ = "worker"

    name: Mapped[str] = mapped_column(primary_key=True)
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    cases: Mapped[int] = mapped_column(BigInteger)
    campaign_id: Mapped[int | None]
    number: Mapped[int | None]


class Corpus(Base):
    """A case that reached something new, for guided slices of its target to begin with."""

    __tablename__ = "corpus"
    __table_args__ = (Index(None, "target"),)

    digest: Mapped[str] = mapped_column(primary_key=True)
    target: Mapped[str]
    data: Mapped[bytes] = mapped_column("bytes", LargeBinary)
    reason: Mapped[str]
    first_seen: Mapped[datetime]


class Webhook(Base):
    """Somebody who is told of new buckets, from the moment on at which that was first asked for."""

    __tablename__ = "webhook"

    name: Mapped[str] = mapped_column(primary_key=True)
    since: Mapped[datetime]


class WebhookTold(Base):
    """A bucket that was told. One row for each, not a moment up to which all are told: what is stored late would be older than that."""

    __tablename__ = "webhook_told"

    name: Mapped[str] = mapped_column(ForeignKey("webhook.name"), primary_key=True)
    # No foreign key: a bucket that is thrown away and found again is not new.
    bucket_id: Mapped[str] = mapped_column(primary_key=True)
    told_at: Mapped[datetime]
