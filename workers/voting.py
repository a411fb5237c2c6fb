"""Votes on many buckets: ballots spread over processes, verdicts stored as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine

from db import queries, votes
from db.records import BucketRow
from db.vote_records import NewVerdict
from fuzzer.cores.registry import CORES
from fuzzer.verdict import Verdict
from workers.ballots import Ballot
from workers.pool import Pool

VOTED_ON = ("divergence", "crash", "hang")
"""Kinds of buckets that say something of an engine; a broken contract is the entry code's."""

CASES_TRIED = 5
"""Cases of a bucket that are taken to other engines, until one of these comes as far as the step that is disputed."""


@dataclass(frozen=True, slots=True)
class VoteSettings:
    """Which buckets to vote on, and which engines have a vote."""

    buckets: Sequence[BucketRow]
    cores: tuple[str, ...]
    jobs: int


def run_votes(engine: Engine, settings: VoteSettings, on_verdict: Callable[[NewVerdict], None]) -> None:
    """Vote on each bucket by its smallest case, or by another where no other engine came as far as that, and store the verdicts.

    The number of processes changes none of them.
    """
    left = {bucket.id: _ballots(engine, settings, number, bucket) for number, bucket in enumerate(settings.buckets)}
    left = {bucket: ballots for bucket, ballots in left.items() if ballots}
    if not left:
        return
    with Pool[NewVerdict](min(settings.jobs, len(left)), settings.cores) as pool:
        while left:
            for verdict in pool.run(iter([ballots.pop(0) for ballots in left.values()])):
                if verdict.verdict == Verdict.UNHEARD and left[verdict.bucket_id]:
                    continue
                del left[verdict.bucket_id]
                votes.save_verdict(engine, verdict)
                on_verdict(verdict)


def _ballots(engine: Engine, settings: VoteSettings, number: int, bucket: BucketRow) -> list[Ballot]:
    """Ballots on a bucket, the smallest case first; none where it has no example, or is of an engine that is not here."""
    if bucket.kind not in VOTED_ON or bucket.core not in settings.cores:
        return []
    return [
        Ballot(
            number=number,
            bucket_id=bucket.id,
            signature=bucket.signature,
            core=bucket.core,
            by=bucket.by,
            rule=bucket.rule,
            observed=bucket.observed,
            case_digest=example.case.digest,
            data=example.case.data,
        )
        for example in queries.findings(engine, bucket.id, limit=CASES_TRIED)
    ]


def voters() -> tuple[str, ...]:
    """The cores whose engines are installed here."""
    return tuple(name for name, info in CORES.items() if info.available()[0] is not None)
