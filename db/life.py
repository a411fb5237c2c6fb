"""The life of a bucket: open, fixed by a version of its core, met again. Every change leaves a line in `status_change`."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, func, select, update

from db.life_records import ReplayedCase, ReplayFound, ReplayRow, Status, StatusChangeRow
from db.models import Bucket, BucketReplay, Finding, StatusChange
from db.records import SliceResult, bucket_id
from db.store import insert_new, put_slice
from db.store_status import note_met, note_status
from db.transactions import reading

OF_ENGINES = ("divergence", "crash", "hang")
"""Kinds of buckets that another version of an engine can mend; a broken contract is the entry code's."""


def put_replay(connection: Connection, campaign: int, found: ReplayFound, at: datetime) -> None:
    """Store a slice of a replay within a transaction: how each bucket fared, and what becomes of it. Hits count no replays."""
    empty = SliceResult(found.number, found.cases, found.seconds, {}, {}, found.crashes, {}, [])
    put_slice(connection, campaign, empty, at)
    cases: dict[str, list[ReplayedCase]] = {}
    for each in found.replayed:
        cases.setdefault(each.bucket_id, []).append(each)
    shown = {bucket_id(each.shows) for each in found.replayed if each.shows}
    status = _locked(connection, shown | cases.keys())

    _put_fares(connection, campaign, found, {key: cases[key] for key in sorted(cases) if key in status}, at)
    note_met(connection, campaign, dict.fromkeys(sorted(shown & status.keys()), found.core_version), at)
    for key in sorted(cases.keys() & status.keys() - shown):
        if status[key] != Status.FIXED and _all_gone(connection, key, cases[key]):
            _end(connection, campaign, key, status[key], found.core_version, at)


def _locked(connection: Connection, keys: Collection[str]) -> dict[str, str]:
    """The status of each bucket there is; none of them gets an example or another status before this transaction ends."""
    ordered = sorted(keys)
    for key in ordered:
        connection.execute(update(Bucket).where(Bucket.id == key).values(status=Bucket.status))
    return dict(connection.execute(select(Bucket.id, Bucket.status).where(Bucket.id.in_(ordered))).all())


def _put_fares(connection: Connection, campaign: int, found: ReplayFound, cases: Mapping[str, list[ReplayedCase]], at: datetime) -> None:
    for key, replayed in cases.items():
        shown = sum(each.told and bool(each.shows) and bucket_id(each.shows) == key for each in replayed)
        untold = sum(not each.told for each in replayed)
        fare: dict[str, Any] = {
            "campaign_id": campaign,
            "shown": shown,
            "gone": len(replayed) - shown - untold,
            "untold": untold,
            "replayed_at": at,
        }
        if shown:
            fare["shown_at"] = at
        row = {"bucket_id": key, "core_version": found.core_version}
        connection.execute(insert_new(connection, BucketReplay).values(row | fare))
        mine = (BucketReplay.bucket_id == key, BucketReplay.core_version == found.core_version)
        connection.execute(update(BucketReplay).where(*mine).values(fare))


def _all_gone(connection: Connection, key: str, replayed: Iterable[ReplayedCase]) -> bool:
    """Whether every stored example was run, and told that it does not show the bucket."""
    stored = set(connection.execute(select(Finding.case_digest).where(Finding.bucket_id == key)).scalars())
    gone = {each.case_digest for each in replayed if each.told and not (each.shows and bucket_id(each.shows) == key)}
    return bool(stored) and stored <= gone


def _end(connection: Connection, campaign: int, key: str, status: str, version: str, at: datetime) -> None:
    """Call it fixed; or, if this very version is known to have shown it, only say so: then it is not the version that made the change."""
    found = set(connection.execute(select(Finding.core_version).where(Finding.bucket_id == key)).scalars())
    replays = select(BucketReplay.core_version).where(BucketReplay.bucket_id == key, BucketReplay.shown_at.is_not(None))
    if version in found | set(connection.execute(replays).scalars()):
        why = f"not shown any more by {version}, which had shown it: not deterministic, or the specification or the adapter has changed"
        note_status(connection, key, status, version, why, campaign, at)
        return
    values = {"status": Status.FIXED.value, "fixed_version": version, "fixed_at": at}
    connection.execute(update(Bucket).where(Bucket.id == key).values(values))
    note_status(connection, key, Status.FIXED, version, f"none of its examples shows it on {version}", campaign, at)


def replayable(engine: Engine) -> list[tuple[str, str, int]]:
    """The buckets that say something of an engine: id, core, and how many examples are kept; by core and id."""
    query = (
        select(Bucket.id, Bucket.core, func.count(Finding.case_digest.distinct()))
        .join(Finding, Finding.bucket_id == Bucket.id)
        .where(Bucket.kind.in_(OF_ENGINES))
        .group_by(Bucket.id, Bucket.core)
        .order_by(Bucket.core, Bucket.id)
    )
    with reading(engine) as connection:
        return list(connection.execute(query).all())


def status_changes(engine: Engine, key: str) -> list[StatusChangeRow]:
    """The life of a bucket, named by its whole id, oldest first; empty while it has always been open."""
    columns = [StatusChange.status, StatusChange.core_version, StatusChange.why, StatusChange.campaign_id, StatusChange.at]
    query = select(*columns).where(StatusChange.bucket_id == key).order_by(StatusChange.id)
    with reading(engine) as connection:
        return [StatusChangeRow(**row._mapping) for row in connection.execute(query)]


def replays(engine: Engine, key: str) -> list[ReplayRow]:
    """The last replay of a bucket on each version, oldest first."""
    query = select(*BucketReplay.__table__.columns).where(BucketReplay.bucket_id == key)
    with reading(engine) as connection:
        rows = connection.execute(query.order_by(BucketReplay.replayed_at, BucketReplay.core_version)).all()
    return [ReplayRow(**row._mapping) for row in rows]
