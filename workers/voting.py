"""Votes on many buckets: ballots spread over processes, verdicts stored as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine

from db import queries, votes
from db.records import BucketRow
from db.vote_records import NewVerdict
from fuzzer.cores.registry import CORES
from workers.ballots import Ballot
from workers.pool import Pool

VOTED_ON = ("divergence", "crash", "hang")
"""Kinds of buckets that say something of an engine; a broken contract is the entry code's."""


@dataclass(frozen=True, slots=True)
class VoteSettings:
    """Which buckets to vote on, and which engines have a vote."""

    buckets: Sequence[BucketRow]
    cores: tuple[str, ...]
    jobs: int


def run_votes(engine: Engine, settings: VoteSettings, on_verdict: Callable[[NewVerdict], None]) -> None:
    """Vote on each bucket by its smallest case and store the verdicts; the number of processes changes none of them."""
    ballots = list(_ballots(engine, settings))
    if not ballots:
        return
    with Pool[NewVerdict](min(settings.jobs, len(ballots)), settings.cores) as pool:
        for verdict in pool.run(iter(ballots)):
            votes.save_verdict(engine, verdict)
            on_verdict(verdict)


def _ballots(engine: Engine, settings: VoteSettings) -> Iterator[Ballot]:
    """A ballot for each bucket that has an example, of an engine that is here."""
    for number, bucket in enumerate(settings.buckets):
        examples = queries.findings(engine, bucket.id, limit=1)
        if bucket.kind in VOTED_ON and bucket.core in settings.cores and examples:
            case = examples[0].case
            yield Ballot(
                number=number,
                bucket_id=bucket.id,
                signature=bucket.signature,
                core=bucket.core,
                by=bucket.by,
                rule=bucket.rule,
                observed=bucket.observed,
                case_digest=case.digest,
                data=case.data,
            )


def voters() -> tuple[str, ...]:
    """The cores whose engines are installed here."""
    return tuple(name for name, info in CORES.items() if info.available()[0] is not None)
