"""What is thrown away: examples beyond enough, and the details of what ended long ago. Never a bucket, never a count of hits."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Text, cast, delete, func, or_, select, text, update

from db.models import Bucket, Campaign, Case, Finding, PlannedSlice, Slice, Verdict
from db.store import count_findings


@dataclass(frozen=True, slots=True)
class Thrown:
    """How much was thrown away; `folded` are slices whose details went into their campaign's first."""

    findings: int
    cases: int
    folded: int
    planned: int


def throw_away(connection: Connection, examples: int, before: datetime) -> Thrown:
    """Keep so many examples of each bucket and version of its core, the smallest, and no details from before a moment; all within a
    transaction."""
    if connection.dialect.name == "postgresql":
        # Who stores an example first stores its case, if it is not there: nobody may find one there that is about to go. The bucket comes
        # before that, here as there, so that nobody waits for somebody who waits for him.
        locked = (Bucket.__table__, Case.__table__, Verdict.__table__)
        tables = ", ".join(connection.dialect.identifier_preparer.format_table(table) for table in locked)
        connection.execute(text(f"LOCK TABLE {tables} IN SHARE ROW EXCLUSIVE MODE"))
    findings = _findings(connection, examples)
    return Thrown(findings, _cases(connection) if findings else 0, _fold(connection, before), _planned(connection, before))


def _findings(connection: Connection, examples: int) -> int:
    # By version: which versions have shown a bucket is what says that another one has mended it.
    order = (func.length(Case.data), Case.digest, Finding.id)
    place = func.row_number().over(partition_by=(Finding.bucket_id, Finding.core_version), order_by=order).label("place")
    ranked = select(Finding.id, place).join(Case, Finding.case_digest == Case.digest).subquery()
    statement = delete(Finding).where(Finding.id.in_(select(ranked.c.id).where(ranked.c.place > examples))).returning(Finding.bucket_id)
    thrown = connection.execute(statement).scalars().all()
    count_findings(connection, set(thrown))
    return len(thrown)


def _cases(connection: Connection) -> int:
    """Throw away the cases that nothing refers to any more."""
    found = select(Finding.id).where(Finding.case_digest == Case.digest).exists()
    voted_on = select(Verdict.bucket_id).where(Verdict.case_digest == Case.digest).exists()
    return connection.execute(delete(Case).where(~found, ~voted_on)).rowcount


def _fold(connection: Connection, before: datetime) -> int:
    """Add up what each slice of an old campaign did not model and tolerated in its first one: the campaign's sums stay."""
    some = or_(cast(Slice.not_modelled, Text) != "{}", cast(Slice.tolerated, Text) != "{}")
    old = select(Slice.campaign_id).join(Campaign).where(Campaign.finished_at < before, some).group_by(Slice.campaign_id)
    campaigns = connection.execute(old.having(func.count() > 1)).scalars().all()
    return sum(_fold_one(connection, campaign) for campaign in campaigns)


def _fold_one(connection: Connection, campaign: int) -> int:
    query = select(Slice.id, Slice.not_modelled, Slice.tolerated).where(Slice.campaign_id == campaign).order_by(Slice.number)
    first, *others = connection.execute(query).all()
    rows = [first, *others]
    sums = {"not_modelled": _sum([row.not_modelled for row in rows]), "tolerated": _sum([row.tolerated for row in rows])}
    connection.execute(update(Slice).where(Slice.campaign_id == campaign).values(not_modelled={}, tolerated={}))
    connection.execute(update(Slice).where(Slice.id == first.id).values(sums))
    return len(others)


def _sum(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))


def _planned(connection: Connection, before: datetime) -> int:
    ended = select(Campaign.id).where(Campaign.finished_at < before)
    over = (PlannedSlice.state.in_(["done", "failed"]), PlannedSlice.changed_at < before, PlannedSlice.campaign_id.in_(ended))
    return connection.execute(delete(PlannedSlice).where(*over)).rowcount
