"""The status of buckets within a transaction that stores something else."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from db.life_records import Status
from db.models import Bucket, StatusChange


def note_met(connection: Connection, campaign: int, met: Mapping[str, str], at: datetime) -> None:
    """Call every bucket that was fixed regressed, of those that were met; `met` has the version that showed each."""
    again = (
        update(Bucket)
        .where(Bucket.id.in_(met), Bucket.status == Status.FIXED.value)
        .values(status=Status.REGRESSED.value)
        .returning(Bucket.id, Bucket.fixed_version)
    )
    for row in sorted(connection.execute(again).all()):
        why = f"shown again by {met[row.id]}, after {row.fixed_version} had not"
        note_status(connection, row.id, Status.REGRESSED, met[row.id], why, campaign, at)


def note_status(connection: Connection, key: str, status: str, version: str, why: str, campaign: int | None, at: datetime) -> None:
    """Add a line to the life of a bucket, unless it would say the last one again."""
    line = {"status": str(status), "core_version": version, "why": why}
    last = (
        select(StatusChange.status, StatusChange.core_version, StatusChange.why)
        .where(StatusChange.bucket_id == key)
        .order_by(StatusChange.id.desc())
        .limit(1)
    )
    known = connection.execute(last).one_or_none()
    if known is None or dict(known._mapping) != line:
        connection.execute(insert(StatusChange).values(line | {"bucket_id": key, "campaign_id": campaign, "at": at}))
