"""Votes and verdicts: what is written of them and what is read. A new verdict on a bucket takes the place of the old one."""

from datetime import UTC, datetime

from sqlalchemy import Engine, delete, insert, select

from db.models import Verdict, Vote
from db.transactions import reading, writing
from db.vote_records import NewVerdict, VerdictRow, VoteRecord


def save_verdict(engine: Engine, new: NewVerdict, *, at: datetime | None = None) -> None:
    """Store a verdict and its votes, whole or not at all; the bucket and the case must be stored already."""
    row = {
        "bucket_id": new.bucket_id,
        "verdict": new.verdict,
        "why": new.why,
        "expected": new.expected,
        "case_digest": new.case_digest,
        "judged_at": at or datetime.now(UTC),
    }
    votes = [
        {"bucket_id": new.bucket_id, "engine": vote.engine, "version": vote.version, "stance": vote.stance, "outcome": vote.outcome}
        for vote in new.votes
    ]
    with writing(engine) as connection:
        connection.execute(delete(Vote).where(Vote.bucket_id == new.bucket_id))
        connection.execute(delete(Verdict).where(Verdict.bucket_id == new.bucket_id))
        connection.execute(insert(Verdict).values(row))
        if votes:
            connection.execute(insert(Vote), votes)


def verdict(engine: Engine, bucket_id: str) -> VerdictRow | None:
    """The verdict on a bucket, named by its whole id; None where nobody has voted. Votes come in the order of their engines."""
    with reading(engine) as connection:
        row = connection.execute(select(*Verdict.__table__.columns).where(Verdict.bucket_id == bucket_id)).one_or_none()
        if row is None:
            return None
        votes = connection.execute(
            select(Vote.engine, Vote.version, Vote.stance, Vote.outcome).where(Vote.bucket_id == bucket_id).order_by(Vote.engine)
        ).all()
    return VerdictRow(**row._mapping, votes=tuple(VoteRecord(**vote._mapping) for vote in votes))
