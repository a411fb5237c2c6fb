"""Planned work: one claimer at a time, and only the last attempt may write."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from db_builders import a_bucket, a_campaign, a_finding, a_slice
from sqlalchemy import Engine
from test_db_processes import in_two_processes

from db.cluster import forget_lost_workers, forget_worker, see_worker, status
from db.engine import open_database
from db.queries import buckets, campaign_totals
from db.store import finish_campaign
from db.work import StaleAttempt, claim, expire, finish, give_up, open_campaigns, plan, planned, renew, start_planned
from db.work_records import Claim, Held, NewWork

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
LEASE = 60.0
SLICES = 40


def works(count: int = 1) -> list[NewWork]:
    return [NewWork(number, "random", {"target": "snippets", "seed": 2**64 - 1}) for number in range(count)]


@pytest.fixture
def campaign(engine: Engine) -> int:
    see_worker(engine, "one", NOW, at=NOW)
    return start_planned(engine, a_campaign(), works(), at=NOW)


def claimed(engine: Engine, campaign: int, worker: str = "one", at: datetime = NOW) -> Held:
    found = claim(engine, campaign, 0, worker, LEASE, at=at)
    assert found is not None
    return found.held


def state(engine: Engine, campaign: int) -> str:
    return planned(engine, campaign)[0].state


def test_a_claim_says_what_to_do(engine: Engine, campaign: int) -> None:
    found = claim(engine, campaign, 0, "one", LEASE, at=NOW)

    assert found == Claim(Held(campaign, 0, 1, "one"), "random", {"target": "snippets", "seed": 2**64 - 1})
    (row,) = planned(engine, campaign)
    assert (row.state, row.worker, row.lease_until) == ("leased", "one", NOW + timedelta(seconds=LEASE))


def test_a_slice_is_claimed_once(engine: Engine, campaign: int) -> None:
    claimed(engine, campaign)

    assert claim(engine, campaign, 0, "two", LEASE) is None
    assert claim(engine, campaign, 99, "two", LEASE) is None, "nor one that is not planned"


def test_a_planned_slice_is_planned_once(engine: Engine, campaign: int) -> None:
    claimed(engine, campaign)

    plan(engine, campaign, works(2))

    assert [row.state for row in planned(engine, campaign)] == ["leased", "waiting"]


def test_a_finished_slice_and_what_it_found_are_stored_together(engine: Engine, campaign: int) -> None:
    finish(engine, claimed(engine, campaign), a_slice(0, [a_finding()]), at=LATER)

    assert state(engine, campaign) == "done"
    assert campaign_totals(engine, campaign).cases == 1000
    assert [row.hits for row in buckets(engine)] == [1]
    assert status(engine, at=LATER).workers[0].cases == 1000


def test_the_same_attempt_may_finish_again_when_the_answer_was_lost(engine: Engine, campaign: int) -> None:
    held = claimed(engine, campaign)

    for _ in range(2):
        finish(engine, held, a_slice(0, [a_finding()], {"swapgs/gs_base": 7}), at=NOW)

    assert [row.hits for row in buckets(engine)] == [7]
    assert status(engine, at=NOW).workers[0].cases == 1000


STALE_WRITES: dict[str, Callable[[Engine, Held], None]] = {
    "renew": lambda engine, held: renew(engine, held, LEASE),
    "finish": lambda engine, held: finish(engine, held, a_slice(0, [a_finding("stale")])),
    "give-up": lambda engine, held: give_up(engine, held, "stale"),
}


@pytest.mark.parametrize("write", STALE_WRITES.values(), ids=STALE_WRITES)
@pytest.mark.parametrize("ended", [False, True], ids=["another-has-it", "another-has-done-it"])
def test_a_stale_attempt_is_refused_and_leaves_nothing(
    engine: Engine, campaign: int, write: Callable[[Engine, Held], None], ended: bool
) -> None:
    stale = claimed(engine, campaign)
    expire(engine, at=LATER)
    second = claimed(engine, campaign, "two", LATER)
    if ended:
        finish(engine, second, a_slice(0, [a_finding("mine")]), at=LATER)
    before = planned(engine, campaign)

    with pytest.raises(StaleAttempt, match="slice 0 of campaign 1, attempt 1: refused"):
        write(engine, stale)

    assert planned(engine, campaign) == before
    assert [row.signature for row in buckets(engine)] == (["mine"] if ended else [])


def test_an_attempt_whose_lease_ran_out_may_still_finish_before_anybody_claims_the_slice(engine: Engine, campaign: int) -> None:
    held = claimed(engine, campaign)
    expire(engine, at=LATER)

    finish(engine, held, a_slice(0, [a_finding()]), at=LATER)

    assert state(engine, campaign) == "done"
    assert claim(engine, campaign, 0, "two", LEASE) is None


def test_a_result_of_another_slice_is_our_bug(engine: Engine, campaign: int) -> None:
    with pytest.raises(ValueError, match="the result is of slice 3"):
        finish(engine, claimed(engine, campaign), a_slice(3))


def test_a_failure_while_storing_leaves_the_slice_leased_and_nothing_stored(engine: Engine, campaign: int) -> None:
    held = claimed(engine, campaign)

    with pytest.raises(Exception, match="by"):
        finish(engine, held, a_slice(0, [a_finding(bucket=a_bucket(by="nobody"))]))

    assert state(engine, campaign) == "leased"
    assert (campaign_totals(engine, campaign).slices, buckets(engine)) == (0, [])


def test_a_lease_that_is_renewed_does_not_run_out(engine: Engine, campaign: int) -> None:
    held = claimed(engine, campaign)

    renew(engine, held, LEASE, at=LATER)

    assert expire(engine, at=LATER + timedelta(seconds=LEASE - 1)) == []
    (row,) = expire(engine, at=LATER + timedelta(seconds=LEASE + 1))
    assert (row.state, row.reason) == ("waiting", "the lease ran out in the hands of worker one")


@pytest.mark.parametrize("way", ["given-up", "run-out"])
def test_a_slice_that_failed_too_often_has_failed_for_ever(engine: Engine, campaign: int, way: str) -> None:
    states = []
    for round_ in range(3):
        at = NOW + timedelta(hours=round_)
        held = claimed(engine, campaign, at=at)
        if way == "given-up":
            give_up(engine, held, "no such core", most=3, at=at)
        else:
            expire(engine, most=3, at=at + timedelta(minutes=5))
        states.append(state(engine, campaign))

    assert states == ["waiting", "waiting", "failed"]
    assert claim(engine, campaign, 0, "one", LEASE) is None
    with pytest.raises(StaleAttempt):
        finish(engine, held, a_slice(0))
    (failure,) = status(engine, at=NOW).failures
    assert failure.reason == {"given-up": "no such core", "run-out": "the lease ran out in the hands of worker one"}[way]


def claim_all(barrier: object, which: int, url: str, campaign: int) -> None:
    engine = open_database(url)
    barrier.wait()  # type: ignore[attr-defined]
    for number in range(SLICES):
        found = claim(engine, campaign, number, f"worker {which}", LEASE)
        if found is not None:
            finish(engine, found.held, a_slice(number, [a_finding("both"), a_finding(f"{number}")]))
    engine.dispose()


def test_two_claimers_get_each_slice_once(engine: Engine, url: str) -> None:
    campaign = start_planned(engine, a_campaign(), works(SLICES))

    in_two_processes(claim_all, url, campaign)

    rows = planned(engine, campaign)
    assert {(row.state, row.attempt) for row in rows} == {("done", 1)}
    assert buckets(engine)[0].hits == SLICES


def test_open_campaigns_are_those_with_planned_slices_that_have_no_end(engine: Engine, campaign: int) -> None:
    other = start_planned(engine, a_campaign(seed=2**64 - 1), works(3))
    claim(engine, other, 1, "one", LEASE)

    rows = open_campaigns(engine)

    assert [(row.campaign.id, row.planned, row.waiting, row.unfinished) for row in rows] == [(campaign, 1, 1, 1), (other, 3, 2, 3)]
    finish_campaign(engine, campaign)
    assert [row.campaign.id for row in open_campaigns(engine)] == [other]


def test_status_adds_up(engine: Engine, campaign: int) -> None:
    see_worker(engine, "idle", NOW, at=LATER)
    plan(engine, campaign, works(3))
    finish(engine, claimed(engine, campaign), a_slice(0, [a_finding("old")]), at=LATER - timedelta(hours=25))
    found = claim(engine, campaign, 1, "one", LEASE, at=LATER)
    assert found is not None
    finish(engine, found.held, a_slice(1, [a_finding("new")]), at=LATER)

    now = status(engine, at=LATER)

    assert now.slices == {"waiting": 1, "leased": 0, "done": 2, "failed": 0}
    assert (now.buckets, now.new_buckets, now.campaigns) == (2, 1, 1)
    assert [(row.name, row.number) for row in now.workers] == [("idle", None), ("one", None)]
    assert now.cases_per_second == pytest.approx(1000 / 300)


def test_a_worker_is_shown_while_it_is_heard_of(engine: Engine) -> None:
    see_worker(engine, "one", NOW, at=NOW)
    see_worker(engine, "two", NOW, at=LATER)

    assert [row.name for row in status(engine, at=LATER).workers] == ["two"]
    forget_worker(engine, "two")
    forget_lost_workers(engine, at=NOW + timedelta(days=2))
    assert status(engine, at=NOW).workers == ()


def test_a_worker_that_starts_anew_counts_from_zero(engine: Engine, campaign: int) -> None:
    finish(engine, claimed(engine, campaign), a_slice(0), at=NOW)

    see_worker(engine, "one", LATER, at=LATER)

    assert [(row.cases, row.started_at) for row in status(engine, at=LATER).workers] == [(0, LATER)]
