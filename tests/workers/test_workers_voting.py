"""A bucket on which no other engine can be heard by its smallest case is voted on by another of its cases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import pytest

import workers.voting
from db import queries, votes
from db.engine import open_database
from db.vote_records import NewVerdict
from fuzzer.verdict import Verdict
from workers.ballots import Ballot
from workers.local import Settings, run_campaign
from workers.voting import CASES_TRIED, VoteSettings, run_votes


class Deaf:
    """A pool in which other engines are heard only by the cases in `heard`; it notes what it was asked."""

    heard: frozenset[str] = frozenset()
    asked: list[tuple[str, str]]

    def __init__(self, jobs: int, cores: Sequence[str]) -> None:
        Deaf.asked = []

    def __class_getitem__(cls, item: object) -> type[Self]:
        return cls

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def run(self, works: Iterator[Ballot]) -> Iterator[NewVerdict]:
        for ballot in works:
            Deaf.asked.append((ballot.bucket_id, ballot.case_digest))
            verdict = Verdict.ENGINE_DEFECT if ballot.case_digest in self.heard else Verdict.UNHEARD
            yield NewVerdict(ballot.bucket_id, verdict, "because", "completes", ballot.case_digest, ())


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    url = str(tmp_path / "x.db")
    run_campaign(Settings(("snippets",), ("unicorn",), seed=3, cases=500, seconds=None, jobs=1, profiles=("intel",), database=url))
    monkeypatch.setattr(workers.voting, "Pool", Deaf)
    return url


def test_the_first_case_by_which_an_engine_is_heard_decides(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_database(database)
    bucket = next(row for row in queries.buckets(engine) if len(queries.findings(engine, row.id)) > 2)
    cases = [example.case.digest for example in queries.findings(engine, bucket.id)]
    monkeypatch.setattr(Deaf, "heard", frozenset({cases[1], cases[2]}))

    run_votes(engine, VoteSettings([bucket], ("unicorn",), jobs=1), lambda verdict: None)

    stored = votes.verdict(engine, bucket.id)
    assert Deaf.asked == [(bucket.id, case) for case in cases[:2]]
    assert stored is not None
    assert (stored.verdict, stored.case_digest) == (Verdict.ENGINE_DEFECT, cases[1])
    engine.dispose()


def test_a_bucket_by_which_nobody_is_heard_says_so_once(database: str) -> None:
    engine = open_database(database)
    buckets = queries.buckets(engine)
    told: list[str] = []

    run_votes(engine, VoteSettings(buckets, ("unicorn",), jobs=1), lambda verdict: told.append(verdict.bucket_id))

    assert sorted(told) == sorted(row.id for row in buckets)
    assert {row.verdict for row in queries.buckets(engine)} == {Verdict.UNHEARD}
    assert len(Deaf.asked) == sum(min(CASES_TRIED, len(queries.findings(engine, row.id))) for row in buckets)
    engine.dispose()
