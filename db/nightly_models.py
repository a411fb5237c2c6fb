"""The tables of what happens by itself, night after night: runs of the timetable, replays, and the life of a bucket."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base


class NightlyRun(Base):
    """A job of the timetable at one due time. That the row is unique is all that keeps two schedulers from running it twice."""

    __tablename__ = "nightly_run"
    __table_args__ = (UniqueConstraint("name", "due_at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    job: Mapped[str]
    due_at: Mapped[datetime]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    outcome: Mapped[str | None]


class NightlyCampaign(Base):
    """A campaign that a run has planned: a sweep needs one for each target and core."""

    __tablename__ = "nightly_campaign"
    __table_args__ = (Index(None, "run_id"),)

    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaign.id"), primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("nightly_run.id"))


class BucketReplay(Base):
    """The last replay of a bucket's examples on one version of its core: how many showed it, did not, or could not tell."""

    __tablename__ = "bucket_replay"

    bucket_id: Mapped[str] = mapped_column(ForeignKey("bucket.id"), primary_key=True)
    core_version: Mapped[str] = mapped_column(primary_key=True)
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaign.id"))
    shown: Mapped[int]
    gone: Mapped[int]
    untold: Mapped[int]
    replayed_at: Mapped[datetime]
    # When any replay on this version has last shown it: a later one that does not, does not take that back.
    shown_at: Mapped[datetime | None]


class StatusChange(Base):
    """A line in the life of a bucket: the status that it got, or was left with, and why."""

    __tablename__ = "status_change"
    __table_args__ = (Index(None, "bucket_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    bucket_id: Mapped[str] = mapped_column(ForeignKey("bucket.id"))
    status: Mapped[str]
    core_version: Mapped[str]
    why: Mapped[str]
    campaign_id: Mapped[int | None] = mapped_column(ForeignKey("campaign.id"))
    at: Mapped[datetime]
