"""The scheduler: what a step does, and that nothing stops it."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime, timedelta

import pytest
from cluster_builders import a_cluster_campaign, a_result
from redis.exceptions import ConnectionError as RedisIsAway
from rq import Queue
from servers import Server
from sqlalchemy import Engine

from db import work
from db.errors import DatabaseError
from db.queries import campaigns
from workers import scheduler
from workers.growing import AHEAD
from workers.queue import connect, queue
from workers.scheduler import keep_going, step


def finish_next(engine: Engine, campaign: int, number: int) -> None:
    claim = work.claim(engine, campaign, number, "one", 60)
    assert claim is not None
    work.finish(engine, claim.held, a_result(number))


def test_a_campaign_has_slices_ahead_and_no_more_than_it_needs(engine: Engine, slices: Queue) -> None:
    endless, short = a_cluster_campaign(engine, cases=None), a_cluster_campaign(engine, cases=90)

    for number in range(3):
        finish_next(engine, endless, number)
    step(engine, slices)

    assert [row.number for row in work.planned(engine, endless, state="waiting")] == list(range(3, 3 + AHEAD))
    assert [row.arguments["count"] for row in work.planned(engine, short)] == [40, 40, 10]
    assert len(slices) == AHEAD + 3


def test_a_campaign_is_finished_when_all_its_slices_have_ended(engine: Engine, slices: Queue) -> None:
    campaign = a_cluster_campaign(engine, cases=80)
    finish_next(engine, campaign, 0)
    step(engine, slices)
    assert campaigns(engine)[0].finished_at is None

    claim = work.claim(engine, campaign, 1, "one", 60)
    assert claim is not None
    work.give_up(engine, claim.held, "no such core", most=1)
    step(engine, slices)

    assert campaigns(engine)[0].finished_at is not None


def test_a_campaign_of_more_slices_than_are_planned_ahead_is_done_whole(engine: Engine, slices: Queue) -> None:
    campaign = a_cluster_campaign(engine, cases=2 * AHEAD + 1, slice_cases=1)

    for number in range(2 * AHEAD + 1):
        finish_next(engine, campaign, number)
        step(engine, slices)

    assert campaigns(engine)[0].finished_at is not None
    assert len(work.planned(engine)) == 2 * AHEAD + 1


def test_a_slice_whose_lease_ran_out_is_queued_as_its_next_attempt(engine: Engine, slices: Queue, caplog: pytest.LogCaptureFixture) -> None:
    campaign = a_cluster_campaign(engine, cases=40)
    work.claim(engine, campaign, 0, "lost-worker", 60, at=datetime.now(UTC) - timedelta(minutes=5))

    step(engine, slices)

    assert slices.get_job_ids() == [f"slice-{campaign}-0-2"]
    assert "attempt 1: the lease ran out in the hands of worker lost-worker; now waiting" in caplog.text


def test_two_schedulers_queue_everything_once(engine: Engine, slices: Queue, redis: Server) -> None:
    a_cluster_campaign(engine, cases=None)
    other = connect(redis.url)
    both = [threading.Thread(target=lambda each=each: [step(engine, each) for _ in range(5)]) for each in (slices, queue(other))]

    for thread in both:
        thread.start()
    for thread in both:
        thread.join()

    assert len(slices.get_job_ids()) == len(set(slices.get_job_ids())) == AHEAD
    other.close()


def test_servers_that_are_away_are_told_in_the_log_and_asked_again(
    engine: Engine, slices: Queue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stop = threading.Event()
    answers = iter([DatabaseError("postgresql is away"), RedisIsAway("redis is away"), None])

    def next_step(*arguments: object) -> None:
        answer = next(answers)
        if answer is None:
            stop.set()
        else:
            raise answer

    monkeypatch.setattr(scheduler, "step", next_step)
    caplog.set_level(logging.INFO)

    keep_going(engine, slices, stop, seconds=0.01)

    assert [record.message for record in caplog.records] == ["scheduler: postgresql is away", "scheduler: redis is away"]
