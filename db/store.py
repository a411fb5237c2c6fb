"""Every write. Each function is one short transaction and may be called again after a failure."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Connection, Engine, bindparam, case, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from db.base import Base, UtcDateTime
from db.errors import DatabaseError, place
from db.models import Bucket, BucketHits, BucketTarget, Campaign, Case, Finding, Slice
from db.records import NewBucket, NewCampaign, NewCase, NewFinding, SliceResult, bucket_id
from db.store_status import note_met, note_status
from db.transactions import writing

FINDINGS_PER_BUCKET_AND_CAMPAIGN = 10


def start_campaign(engine: Engine, new: NewCampaign, *, at: datetime | None = None) -> int:
    """Store a campaign that begins now (or at `at`) and return its number."""
    with writing(engine) as connection:
        return put_campaign(connection, new, at or datetime.now(UTC))


def put_campaign(connection: Connection, new: NewCampaign, at: datetime) -> int:
    """The same within a transaction."""
    row = {
        "created_at": at,
        "targets": list(new.targets),
        "core": new.core,
        "core_version": new.core_version,
        "profiles": list(new.profiles),
        "seed": str(new.seed),
        "slice_cases": new.slice_cases,
        "arguments": dict(new.arguments),
    }
    return connection.execute(insert(Campaign).values(row).returning(Campaign.id)).scalar_one()


def save_slice(engine: Engine, campaign_id: int, result: SliceResult, *, at: datetime | None = None) -> None:
    """Store all a slice found, whole or not at all; a slice that is stored already changes nothing.

    Of the findings, at most ten per bucket and campaign are kept: the first slices' and, within a slice, the smallest cases'.
    """
    with writing(engine) as connection:
        put_slice(connection, campaign_id, result, at or datetime.now(UTC))


def put_slice(connection: Connection, campaign_id: int, result: SliceResult, at: datetime) -> None:
    """The same within a transaction."""
    # The steps stand in one order for everybody, each sorted by its key: two slices can wait for each other, never in a circle.
    slice_id = _insert_slice(connection, campaign_id, result)
    if slice_id is None or not result.hits:
        return
    _save_buckets(connection, result, at)
    note_met(connection, campaign_id, {finding.bucket.id: finding.core_version for finding in result.findings}, at)
    _save_hits(connection, slice_id, result.hits)
    _save_targets(connection, result.findings)
    kept = _keep(result.findings, _stored_findings(connection, campaign_id))
    _save_cases(connection, kept)
    _save_findings(connection, campaign_id, kept, at)


def finish_campaign(engine: Engine, campaign_id: int, *, at: datetime | None = None) -> None:
    """Mark a campaign as finished; the first time counts."""
    finished_at = func.coalesce(Campaign.finished_at, at or datetime.now(UTC))
    with writing(engine) as connection:
        changed = connection.execute(update(Campaign).where(Campaign.id == campaign_id).values(finished_at=finished_at))
        if changed.rowcount == 0:
            raise DatabaseError(f"campaign {campaign_id}: not in {place(engine.url)}; list the campaigns to see their numbers")


def set_status(engine: Engine, bucket_id: str, status: str, *, at: datetime | None = None) -> None:
    """Give a bucket, named by its whole id, a new status by hand."""
    with writing(engine) as connection:
        changed = connection.execute(update(Bucket).where(Bucket.id == bucket_id).values(status=status))
        if changed.rowcount == 0:
            raise DatabaseError(f"bucket {bucket_id}: not in {place(engine.url)}; list the buckets to see their ids")
        note_status(connection, bucket_id, status, "", "by hand", None, at or datetime.now(UTC))


def _insert_slice(connection: Connection, campaign_id: int, result: SliceResult) -> int | None:
    """The new slice's id, or None if it is stored already."""
    row = {
        "campaign_id": campaign_id,
        "number": result.number,
        "cases": result.cases,
        "seconds": result.seconds,
        "not_modelled": dict(result.not_modelled),
        "tolerated": dict(result.tolerated),
        "crashes": result.crashes,
    }
    statement = insert_new(connection, Slice).values(row).returning(Slice.id)
    return connection.execute(statement).scalar()


def _save_buckets(connection: Connection, result: SliceResult, at: datetime) -> None:
    # The first description of a signature stays, as it does in the database.
    buckets: dict[str, NewBucket] = {}
    for finding in result.findings:
        buckets.setdefault(finding.bucket.id, finding.bucket)
    keys = sorted(buckets)
    # Not "on conflict do update": that watches one constraint, and PostgreSQL then fails on the other (signature) in a race.
    connection.execute(insert_new(connection, Bucket), [_bucket_values(buckets[key], at) for key in keys])

    # Updating also locks the row until the end, so the count in `_stored_findings` holds: no two slices fill one place.
    seen = bindparam("seen", type_=UtcDateTime())
    last_seen = case((Bucket.last_seen < seen, seen), else_=Bucket.last_seen)
    # Adding is exact although it is done again after a failure: a slice comes here once, with its rows of the ledger.
    hits = Bucket.hits + bindparam("more", type_=BigInteger())
    statement = update(Bucket).where(Bucket.id == bindparam("key")).values(last_seen=last_seen, hits=hits)
    more = {bucket_id(signature): count for signature, count in result.hits.items()}
    connection.execute(statement, [{"key": key, "seen": at, "more": more[key]} for key in keys])


def _bucket_values(bucket: NewBucket, at: datetime) -> dict[str, Any]:
    return {
        "id": bucket.id,
        "signature": bucket.signature,
        "kind": bucket.kind,
        "area": bucket.area,
        "core": bucket.core,
        "profile": bucket.profile,
        "by": bucket.by,
        "cause": bucket.cause,
        "rule": bucket.rule,
        "expected": bucket.expected,
        "observed": bucket.observed,
        "title": bucket.title,
        "first_seen": at,
        "last_seen": at,
    }


def _save_hits(connection: Connection, slice_id: int, hits: Mapping[str, int]) -> None:
    ledger = sorted((bucket_id(signature), count) for signature, count in hits.items())
    rows = [{"slice_id": slice_id, "bucket_id": key, "hits": count} for key, count in ledger]
    connection.execute(insert(BucketHits), rows)


def _save_targets(connection: Connection, findings: Iterable[NewFinding]) -> None:
    pairs = sorted({(finding.bucket.id, finding.case.target) for finding in findings})
    connection.execute(insert_new(connection, BucketTarget), [{"bucket_id": bucket, "target": target} for bucket, target in pairs])


def _stored_findings(connection: Connection, campaign_id: int) -> dict[str, int]:
    """How many findings of each bucket this campaign has stored."""
    counted = select(Finding.bucket_id, func.count()).where(Finding.campaign_id == campaign_id).group_by(Finding.bucket_id)
    return dict(connection.execute(counted).all())


def _keep(findings: Iterable[NewFinding], stored: Mapping[str, int]) -> list[NewFinding]:
    """The findings there is room for, smallest case first, in the order of the table's key."""
    candidates: dict[tuple[str, str, str, str], NewFinding] = {}
    for finding in findings:
        candidates.setdefault(_key(finding), finding)

    room: dict[str, int] = {}
    kept = []
    for finding in sorted(candidates.values(), key=lambda finding: (len(finding.case.data), _key(finding))):
        bucket = finding.bucket.id
        left = room.setdefault(bucket, FINDINGS_PER_BUCKET_AND_CAMPAIGN - stored.get(bucket, 0))
        if left > 0:
            room[bucket] = left - 1
            kept.append(finding)
    return sorted(kept, key=_key)


def _key(finding: NewFinding) -> tuple[str, str, str, str]:
    return finding.bucket.id, finding.case.digest, finding.bucket.core, finding.core_version


def _save_cases(connection: Connection, findings: Iterable[NewFinding]) -> None:
    cases = {finding.case.digest: finding.case for finding in findings}
    if cases:
        connection.execute(insert_new(connection, Case), [_case_values(digest, cases[digest]) for digest in sorted(cases)])


def _case_values(digest: str, new: NewCase) -> dict[str, Any]:
    return {
        "digest": digest,
        "bytes": new.data,
        "target": new.target,
        "scenario": new.scenario,
        "profile": new.profile,
        "instance": new.instance,
    }


def _save_findings(connection: Connection, campaign_id: int, findings: Iterable[NewFinding], at: datetime) -> None:
    rows = [
        {
            "bucket_id": finding.bucket.id,
            "case_digest": finding.case.digest,
            "core": finding.bucket.core,
            "core_version": finding.core_version,
            "campaign_id": campaign_id,
            "spec": finding.spec,
            "observed": finding.observed,
            "differences": finding.differences,
            "found_at": at,
        }
        for finding in findings
    ]
    if rows:
        stored = connection.execute(insert_new(connection, Finding).returning(Finding.bucket_id), rows).scalars()
        count_findings(connection, set(stored))


def count_findings(connection: Connection, buckets: Iterable[str]) -> None:
    """Bring the number of findings that stands beside each of these buckets up to date, after some were stored or deleted."""
    counted = select(func.count()).where(Finding.bucket_id == bindparam("key")).scalar_subquery()
    keys = sorted(buckets)
    if keys:
        statement = update(Bucket).where(Bucket.id == bindparam("key")).values(findings=counted)
        connection.execute(statement, [{"key": key} for key in keys])


def insert_new(connection: Connection, table: type[Base]) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that passes over a row which is there already, whichever constraint says so."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()
