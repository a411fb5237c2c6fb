"""The queue: what is in it comes from the database, and what a job may do from a list."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Timer

import pytest
from cluster_builders import a_cluster_campaign
from redis import Redis
from rq import Queue, SimpleWorker
from rq.job import Job
from rq.serializers import JSONSerializer
from servers import redis_server
from sqlalchemy import Engine

from db.work import claim, expire, planned
from workers.queue import CLAIM_SECONDS, RUN_SLICE, QueueError, allowing, connect, connect_when_up, enqueue_missing


def work_off(slices: Queue, done: list[tuple[object, ...]]) -> None:
    """Run everything in the queue in this process, as a worker that may only note what it is told."""
    worker = SimpleWorker(
        [slices.name],
        connection=slices.connection,
        job_class=allowing({RUN_SLICE: lambda *told: done.append(told)}),
        serializer=JSONSerializer,
    )
    worker.work(burst=True, logging_level="CRITICAL")


def test_waiting_slices_are_queued_once(engine: Engine, slices: Queue) -> None:
    campaign = a_cluster_campaign(engine)
    waiting = planned(engine, state="waiting")

    assert enqueue_missing(slices, waiting) == [f"slice-{campaign}-{number}-1" for number in range(3)]
    assert enqueue_missing(slices, waiting) == []

    done: list[tuple[object, ...]] = []
    work_off(slices, done)
    assert done == [(campaign, 0), (campaign, 1), (campaign, 2)]


def test_what_redis_forgot_is_queued_again(engine: Engine, slices: Queue) -> None:
    a_cluster_campaign(engine)
    waiting = planned(engine, state="waiting")
    enqueue_missing(slices, waiting)

    slices.connection.flushall()

    assert len(enqueue_missing(slices, waiting)) == 3


def test_a_job_that_was_taken_and_never_claimed_its_slice_is_queued_again_after_a_while(engine: Engine, slices: Queue) -> None:
    a_cluster_campaign(engine)
    waiting = planned(engine, state="waiting")
    enqueue_missing(slices, waiting)
    slices.connection.lpop(slices.key, 3)

    assert enqueue_missing(slices, waiting) == []
    later = datetime.now(UTC) + timedelta(seconds=CLAIM_SECONDS + 1)
    assert len(enqueue_missing(slices, waiting, now=later)) == 3


def test_the_next_attempt_is_another_job(engine: Engine, slices: Queue) -> None:
    campaign = a_cluster_campaign(engine, cases=40)
    enqueue_missing(slices, planned(engine))
    claim(engine, campaign, 0, "one", 1)
    expire(engine, at=datetime.now(UTC) + timedelta(minutes=1))

    assert enqueue_missing(slices, planned(engine)) == [f"slice-{campaign}-0-2"]


@pytest.mark.parametrize("function", ["os.system", "builtins.eval", "workers.jobs.run_random"])
def test_a_job_that_is_not_on_the_list_does_not_run(slices: Queue, tmp_path: Path, function: str) -> None:
    argument = f"touch {tmp_path}/ran" if function == "os.system" else f"open({str(tmp_path / 'ran')!r}, 'w')"
    job = slices.enqueue(function, argument, job_id="forged")
    done: list[tuple[object, ...]] = []

    work_off(slices, done)

    assert not (tmp_path / "ran").exists()
    assert done == []
    assert job.get_status() == "failed"
    assert "not one of workers.jobs.run_slice; not run" in str(job.latest_result().exc_string)  # type: ignore[union-attr]


@pytest.mark.parametrize("field", ["success_callback_name", "failure_callback_name", "stopped_callback_name"])
def test_a_callback_that_somebody_wrote_into_redis_does_not_run(slices: Queue, field: str) -> None:
    job = slices.enqueue(RUN_SLICE if field.startswith("success") else "os.system", "x", job_id="forged")
    slices.connection.hset(Job.key_for(job.id), field, "workers.queue.there_is_no_such_function")

    work_off(slices, [])

    said = job.latest_result()
    assert said is not None
    assert "there_is_no_such_function" not in str(said.exc_string)


def test_an_object_with_a_method_does_not_run(slices: Queue) -> None:
    job = slices.enqueue(RUN_SLICE, job_id="forged")
    slices.connection.hset(Job.key_for(job.id), "data", JSONSerializer.dumps(["upper", "text", [], {}]))

    work_off(slices, [])

    assert job.get_status() == "failed"


def test_pickles_are_not_loaded(slices: Queue, connection: Redis, tmp_path: Path) -> None:
    import os
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return os.system, (f"touch {tmp_path}/ran",)

    job = slices.enqueue(RUN_SLICE, job_id="forged")
    for field in ("data", "meta"):
        connection.hset(Job.key_for(job.id), field, pickle.dumps(Bomb()))

    work_off(slices, [])

    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://:secret@localhost:1/0", "redis://localhost:1/0: "),
        ("http://localhost", "http://...: not a Redis URL"),
        ("localhost", "localhost://...: not a Redis URL"),
    ],
)
def test_a_redis_that_is_not_there_is_one_line_without_the_password(url: str, said: str) -> None:
    with pytest.raises(QueueError) as refused:
        connect(url)

    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_redis_that_comes_up_late_is_waited_for() -> None:
    late = redis_server()
    starting = Timer(1.5, late.start)
    starting.start()
    try:
        client = connect_when_up(late.url, 30)
        assert client.ping()
        client.close()
    finally:
        starting.join()
        late.stop()
        shutil.rmtree(late.folder)


def test_a_redis_that_stays_away_and_a_url_that_is_none_are_not_waited_for() -> None:
    begun = time.monotonic()

    with pytest.raises(QueueError, match="check that Redis runs"):
        connect_when_up("redis://localhost:1/0", 0.5)
    with pytest.raises(QueueError, match="not a Redis URL"):
        connect_when_up("localhost", 600)

    assert time.monotonic() - begun < 60
