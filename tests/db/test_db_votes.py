"""A verdict is stored whole with its votes; a new one takes the place of the old."""

from dataclasses import replace

import pytest
from db_builders import a_bucket, a_campaign, a_case, a_finding, a_slice
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from db import queries, votes
from db.store import save_slice, start_campaign
from db.vote_records import NewVerdict, VoteRecord

SIGNATURE = "swapgs/gs_base"
BUCKET = a_bucket(SIGNATURE).id
VERDICT = NewVerdict(
    bucket_id=BUCKET,
    verdict="engine-defect",
    why="bochs does what the specification says",
    expected="#GP(0)",
    case_digest=a_case().digest,
    votes=(
        VoteRecord("unicorn", "2.1.4", "with the accused", "completes"),
        VoteRecord("bochs", "2.7", "with the specification", "#GP(0)"),
    ),
)


@pytest.fixture
def filled(engine: Engine) -> Engine:
    save_slice(engine, start_campaign(engine, a_campaign()), a_slice(0, [a_finding(SIGNATURE), a_finding("another", b"\x02")]))
    return engine


def test_a_verdict_comes_back_with_its_votes_in_the_order_of_the_engines(filled: Engine) -> None:
    votes.save_verdict(filled, VERDICT)

    stored = votes.verdict(filled, BUCKET)

    assert stored is not None
    assert (stored.verdict, stored.why, stored.expected) == (VERDICT.verdict, VERDICT.why, VERDICT.expected)
    assert [vote.engine for vote in stored.votes] == ["bochs", "unicorn"]
    assert set(stored.votes) == set(VERDICT.votes)


def test_nobody_has_voted_on_a_new_bucket(filled: Engine) -> None:
    assert votes.verdict(filled, BUCKET) is None
    assert {row.verdict for row in queries.buckets(filled)} == {None}


def test_a_second_vote_takes_the_place_of_the_first(filled: Engine) -> None:
    votes.save_verdict(filled, VERDICT)
    votes.save_verdict(filled, replace(VERDICT, verdict="disputed", votes=VERDICT.votes[:1]))

    stored = votes.verdict(filled, BUCKET)

    assert stored is not None
    assert (stored.verdict, len(stored.votes)) == ("disputed", 1)


def test_buckets_are_found_by_their_verdict(filled: Engine) -> None:
    votes.save_verdict(filled, VERDICT)

    assert [row.id for row in queries.buckets(filled, verdict="engine-defect")] == [BUCKET]
    assert queries.buckets(filled, verdict="disputed") == []
    assert {row.id: row.verdict for row in queries.buckets(filled)}[BUCKET] == "engine-defect"


def test_a_verdict_on_a_bucket_that_is_not_there_is_refused_and_leaves_nothing(filled: Engine) -> None:
    with pytest.raises(IntegrityError):
        votes.save_verdict(filled, replace(VERDICT, bucket_id="0" * 12))

    assert votes.verdict(filled, "0" * 12) is None
