"""Every read. Lists come in a fixed order, so that two people see the same page."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Engine, Row, Select, false, func, literal, select
from sqlalchemy.orm import InstrumentedAttribute

from db.base import UtcDateTime
from db.errors import DatabaseError
from db.models import Bucket, BucketHits, BucketTarget, Campaign, Case, Finding, Slice, Verdict
from db.records import BucketRow, CampaignRow, CampaignTotals, CaseRow, FindingRow
from db.transactions import reading

CANDIDATES_SHOWN = 5
HEX_DIGITS = frozenset("0123456789abcdef")


def buckets(
    engine: Engine,
    *,
    area: str | None = None,
    kind: str | None = None,
    core: str | None = None,
    profile: str | None = None,
    target: str | None = None,
    since: datetime | None = None,
    status: str | None = None,
    verdict: str | None = None,
    limit: int | None = None,
) -> list[BucketRow]:
    """The buckets that fit everything asked for, most hits first; `since` asks for those seen at that moment or later."""
    asked: list[tuple[object, ColumnElement[bool]]] = [
        (area, Bucket.area == area),
        (kind, Bucket.kind == kind),
        (core, Bucket.core == core),
        (profile, Bucket.profile == profile),
        (target, Bucket.id.in_(select(BucketTarget.bucket_id).where(BucketTarget.target == target))),
        (since, Bucket.last_seen >= literal(since, UtcDateTime())),
        (status, Bucket.status == status),
        (verdict, Bucket.id.in_(select(Verdict.bucket_id).where(Verdict.verdict == verdict))),
    ]
    conditions = [condition for value, condition in asked if value is not None]
    return bucket_rows(engine, bucket_query(Bucket.hits).where(*conditions).limit(limit))


def bucket(engine: Engine, id_prefix: str) -> BucketRow | None:
    """The bucket whose id begins like this, None without one; DatabaseError if there are several."""
    query = _starting_with(Bucket.id, bucket_query(Bucket.hits), id_prefix)
    found = bucket_rows(engine, query)
    _refuse_several("bucket", id_prefix, [row.id for row in found])
    return found[0] if found else None


def findings(engine: Engine, bucket_id: str, limit: int | None = None) -> list[FindingRow]:
    """The kept examples of a bucket, smallest case first."""
    query = (
        select(*_FINDING, *_CASE)
        .join(Case, Finding.case_digest == Case.digest)
        .where(Finding.bucket_id == bucket_id)
        .order_by(func.length(Case.data), Case.digest, Finding.id)
        .limit(limit)
    )
    with reading(engine) as connection:
        return [_finding_row(row) for row in connection.execute(query)]


def case(engine: Engine, digest_prefix: str) -> CaseRow | None:
    """The case whose digest begins like this, None without one; DatabaseError if there are several."""
    query = _starting_with(Case.digest, select(*_CASE).order_by(Case.digest), digest_prefix)
    with reading(engine) as connection:
        found = [_case_row(row) for row in connection.execute(query.limit(CANDIDATES_SHOWN + 1))]
    _refuse_several("case", digest_prefix, [row.digest for row in found])
    return found[0] if found else None


def campaigns(engine: Engine, *, limit: int | None = None) -> list[CampaignRow]:
    """The campaigns, newest first."""
    query = select(*Campaign.__table__.columns).order_by(Campaign.id.desc()).limit(limit)
    with reading(engine) as connection:
        return [campaign_row(row) for row in connection.execute(query)]


def campaign_totals(engine: Engine, campaign_id: int) -> CampaignTotals:
    """What the stored slices of a campaign add up to; all zero before the first."""
    query = select(*Slice.__table__.columns).where(Slice.campaign_id == campaign_id).order_by(Slice.number)
    with reading(engine) as connection:
        slices = connection.execute(query).all()
    return CampaignTotals(
        slices=len(slices),
        cases=sum(row.cases for row in slices),
        seconds=sum(row.seconds for row in slices),
        not_modelled=_merged(row.not_modelled for row in slices),
        tolerated=_merged(row.tolerated for row in slices),
        crashes=sum(row.crashes for row in slices),
    )


def campaign_buckets(engine: Engine, campaign_id: int) -> list[BucketRow]:
    """The buckets a campaign hit, most hits first; `hits` are this campaign's, everything else is the bucket's."""
    hit = (
        select(BucketHits.bucket_id, func.sum(BucketHits.hits).label("hits"))
        .join(Slice)
        .where(Slice.campaign_id == campaign_id)
        .group_by(BucketHits.bucket_id)
        .subquery()
    )
    return bucket_rows(engine, bucket_query(hit.c.hits).join(hit, hit.c.bucket_id == Bucket.id))


# Labelled, for a table of findings beside it; the digest stands in both and is taken once.
_CASE = [column.label(f"case_{column.name}") for column in Case.__table__.columns]
_FINDING = [column for column in Finding.__table__.columns if column.name != "case_digest"]


def bucket_query(hits: ColumnElement[int] | InstrumentedAttribute[int]) -> Select[Any]:
    """All buckets, most of these hits first, with the targets and the verdict."""
    targets = (
        select(func.aggregate_strings(BucketTarget.target, "\n"))
        .where(BucketTarget.bucket_id == Bucket.id)
        .scalar_subquery()
        .label("targets")
    )
    verdict = select(Verdict.verdict).where(Verdict.bucket_id == Bucket.id).scalar_subquery().label("verdict")
    columns = [column for column in Bucket.__table__.columns if column.name != "hits"]
    return select(*columns, hits.label("hits"), targets, verdict).select_from(Bucket).order_by(hits.desc(), Bucket.id)


def bucket_rows(engine: Engine, query: Select[Any]) -> list[BucketRow]:
    """The answers to a query of that kind."""
    with reading(engine) as connection:
        return [_bucket_row(row) for row in connection.execute(query)]


def _bucket_row(row: Row[Any]) -> BucketRow:
    fields = dict(row._mapping)
    # PostgreSQL adds integers up to a Decimal.
    fields["hits"] = int(fields["hits"])
    fields["targets"] = tuple(sorted((fields["targets"] or "").splitlines()))
    return BucketRow(**fields)


def _case_row(row: Row[Any]) -> CaseRow:
    return CaseRow(
        digest=row.case_digest,
        data=row.case_bytes,
        target=row.case_target,
        scenario=row.case_scenario,
        profile=row.case_profile,
        instance=row.case_instance,
    )


def _finding_row(row: Row[Any]) -> FindingRow:
    return FindingRow(
        id=row.id,
        bucket_id=row.bucket_id,
        case=_case_row(row),
        core=row.core,
        core_version=row.core_version,
        campaign_id=row.campaign_id,
        spec=row.spec,
        observed=row.observed,
        differences=row.differences,
        found_at=row.found_at,
    )


def campaign_row(row: Row[Any]) -> CampaignRow:
    """A campaign from a row that has all its columns."""
    fields = {column.name: row._mapping[column] for column in Campaign.__table__.columns}
    fields["targets"] = tuple(fields["targets"])
    fields["profiles"] = tuple(fields["profiles"])
    fields["seed"] = int(fields["seed"])
    return CampaignRow(**fields)


def _merged(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum for each name, names in alphabetical order."""
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))


def _starting_with(column: Any, query: Select[Any], prefix: str) -> Select[Any]:
    # Not everything people type is hex, and PostgreSQL refuses some of it as text.
    if not HEX_DIGITS.issuperset(prefix.lower()):
        return query.where(false())
    return query.where(column.startswith(prefix.lower()))


def _refuse_several(thing: str, prefix: str, found: Sequence[str]) -> None:
    if len(found) > 1:
        shown = ", ".join(found[:CANDIDATES_SHOWN])
        more = ", ..." if len(found) > CANDIDATES_SHOWN else ""
        raise DatabaseError(f"{thing} {prefix!r}: several begin like this: {shown}{more}; give more digits")
