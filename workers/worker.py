"""A worker of a cluster: takes slices from the queue, one at a time, each in a process of its own that does not outlive it."""

from __future__ import annotations

import logging
import os
import time
from datetime import UTC, datetime
from functools import partial
from types import FrameType
from typing import Any

from redis.client import Pipeline
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.worker import Worker
from sqlalchemy import Engine

from db import cluster
from db.engine import open_when_up
from db.errors import DatabaseError
from fuzzer.cores.parent import die_with
from workers import spool
from workers.about import about
from workers.jobs import OUTAGE_SECONDS, Site, run_slice
from workers.queue import QUEUE, RUN_SLICE, allowing, connect_when_up
from workers.report import Report

log = logging.getLogger(__name__)

TTL_SECONDS = 30
"""An idle worker comes round in half of this, to be seen and to look after jobs that others left."""
MONITOR_SECONDS = 5
BEAT_SECONDS = 10.0


class SliceWorker(Worker):
    """A worker that shows in the database that it lives, and takes its jobs with it when it is killed."""

    def __init__(self, engine: Engine, site: Site, *, redis: str) -> None:
        self._engine, self._site = engine, site
        self._started_at = datetime.now(UTC)
        self._beaten = float("-inf")
        self._parent = os.getpid()
        self.was_asked_to_stop = False
        super().__init__(
            [QUEUE],
            # Of its own: Redis remembers the name of a worker that was killed for a while, and refuses it to the next one.
            name=f"{site.worker}-{os.urandom(3).hex()}",
            connection=connect_when_up(redis, OUTAGE_SECONDS),
            job_class=allowing({RUN_SLICE: partial(run_slice, site)}),
            serializer=JSONSerializer,
            worker_ttl=TTL_SECONDS,
            maintenance_interval=TTL_SECONDS,
            job_monitoring_interval=MONITOR_SECONDS,
            log_job_description=False,
        )

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        """Runs in the process of the job: nothing runs on when the worker was killed."""
        die_with(self._parent)
        super().main_work_horse(job, queue)

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Called every few seconds, also during a job: tell Redis and the database, and store what waits for the database."""
        super().heartbeat(timeout, pipeline)
        if not self.is_horse and time.monotonic() - self._beaten >= BEAT_SECONDS:
            self._beaten = time.monotonic()
            self._beat()

    def handle_work_horse_killed(self, job: Job, retpid: int, ret_val: int, rusage: object) -> None:
        """Count it: the process itself could not."""
        super().handle_work_horse_killed(job, retpid, ret_val, rusage)  # type: ignore[no-untyped-call]  # As above.
        self._site.tell(Report("killed"))

    def _beat(self) -> None:
        try:
            cluster.see_worker(self._engine, self._site.worker, self._started_at)
            spool.store_kept(self._engine, self._site.spool)
        except DatabaseError as error:
            log.warning("worker %s: %s", self._site.worker, error)

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """The first signal lets the slice finish, a second one does not."""
        # No line in the log from here: the signal may have come in the middle of another line.
        self.was_asked_to_stop = True
        super().request_stop(signum, frame)  # type: ignore[no-untyped-call]  # The library has no types there.


def run_worker(site: Site, redis: str, *, burst: bool = False) -> bool:
    """Work until a signal asks to stop, or with `burst` until the queue is empty; False if it ended otherwise.

    DatabaseError, QueueError: one of the two servers is not there at the start, nor within a minute.
    """
    with about(worker=site.worker):
        return _run_worker(site, redis, burst)


def _run_worker(site: Site, redis: str, burst: bool) -> bool:
    engine = open_when_up(site.database, OUTAGE_SECONDS)
    try:
        spool.store_kept(engine, site.spool)
        worker = SliceWorker(engine, site, redis=redis)
        log.info("worker %s: begun", site.worker)
        options: dict[str, Any] = {"logging_level": "WARNING"}
        worker.work(burst=burst, **options)
        log.info("worker %s: ended", site.worker)
        _leave(engine, site)
        return burst or worker.was_asked_to_stop
    finally:
        engine.dispose()


def _leave(engine: Engine, site: Site) -> None:
    try:
        cluster.forget_worker(engine, site.worker)
    except DatabaseError as error:
        log.warning("worker %s: %s", site.worker, error)
