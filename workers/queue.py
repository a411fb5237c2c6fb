"""The queue in Redis: names of slices to do, nothing that could not be made again from the database."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from rq import Queue
from rq.exceptions import DuplicateJobError
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import as_text

from db.work_records import PlannedRow

QUEUE = "slices"
RUN_SLICE = "workers.jobs.run_slice"
"""The name of the job in Redis. It is looked up, never imported."""
PATIENT = 200
"""Times that a worker tries to reach Redis again, up to two seconds apart: a restart of Redis costs nothing."""
CLAIM_SECONDS = 30
"""A job that was taken out of the queue has claimed its slice after this time, or never will."""
_SECONDS_KEPT = 600
WAIT_SECONDS = 0.5


class QueueError(Exception):
    """Redis cannot be used as asked: one line with the thing, the place and the way out."""


class NotAllowed(Exception):
    """A job in Redis that names something which no job may do."""


class AllowedJob(Job):
    """A job that can only do what `allowed` names: Redis never says what is imported, and calls nothing else."""

    allowed: ClassVar[Mapping[str, Callable[..., None]]] = {}

    @property
    def func(self) -> Callable[..., None]:
        """What the job does; NotAllowed for everything that is not on the list."""
        name = self.func_name
        if self.instance is not None or name is None or name not in self.allowed:
            raise NotAllowed(f"job {self.id}: {name}: not one of {', '.join(self.allowed)}; not run")
        return self.allowed[name]

    success_callback = failure_callback = stopped_callback = property(lambda self: None)

    def send_webhooks(self, *arguments: object, **options: object) -> None:
        """Nothing is sent anywhere, whatever the job says."""


def allowing(allowed: Mapping[str, Callable[..., None]]) -> type[AllowedJob]:
    """The class of jobs that can do this and nothing else."""
    return type("OnlyAllowedJob", (AllowedJob,), {"allowed": dict(allowed)})


def connect(url: str, *, tries: int = PATIENT) -> Redis:
    """A client that tries again, after a check that Redis answers; QueueError if the URL is none, or nobody answers there."""
    try:
        hasty = Redis.from_url(url, socket_connect_timeout=5, retry=Retry(ExponentialBackoff(cap=1, base=0.1), 3))
    except ValueError as error:
        raise QueueError(f"{url.partition('://')[0]}://...: not a Redis URL ({error}); write redis://host:6379/0") from None
    try:
        hasty.ping()
    except RedisError as error:
        raise QueueError(f"{_place(hasty)}: {' '.join(str(error).split())}; check that Redis runs and that the URL is right") from error
    finally:
        hasty.close()
    return Redis.from_url(url, socket_connect_timeout=5, health_check_interval=30, retry=Retry(ExponentialBackoff(cap=2, base=0.1), tries))


def connect_when_up(url: str, seconds: float, *, tries: int = PATIENT) -> Redis:
    """The same, waiting up to some seconds for a Redis that does not answer yet."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return connect(url, tries=tries)
        except QueueError as error:
            # A URL that is wrong stays wrong; only what the client met on its way can change.
            if not isinstance(error.__cause__, RedisError) or time.monotonic() > deadline:
                raise
            time.sleep(WAIT_SECONDS)


def _place(client: Redis) -> str:
    """The server without its password."""
    options = client.connection_pool.connection_kwargs
    return f"redis://{options.get('host', 'localhost')}:{options.get('port', 6379)}/{options.get('db') or 0}"


def queue(connection: Redis) -> Queue:
    """The queue of slices."""
    return Queue(QUEUE, connection=connection, serializer=JSONSerializer, job_class=AllowedJob)


def job_id(row: PlannedRow) -> str:
    """The name of the job of the next attempt at a slice."""
    return f"slice-{row.campaign_id}-{row.number}-{row.attempt + 1}"


def enqueue_missing(slices: Queue, rows: Iterable[PlannedRow], *, now: datetime | None = None) -> list[str]:
    """Put the waiting slices into the queue that are not in it, and return the names of their jobs.

    A job that a worker has just taken is not in the queue either: for half a minute it counts as there. A slice that is queued twice
    after all is done once, because it is claimed once.
    """
    listed = set(slices.get_job_ids())
    added = []
    for row in rows:
        name = job_id(row)
        if name in listed:
            continue
        touched = _touched(slices.connection, name)
        if touched is not None:
            if (now or datetime.now(UTC)) - touched < timedelta(seconds=CLAIM_SECONDS):
                continue
            # Only an old one goes: its name is what keeps two schedulers from queueing a slice twice.
            slices.connection.delete(Job.key_for(name))
        options: dict[str, Any] = {"timeout": -1, "result_ttl": _SECONDS_KEPT, "failure_ttl": _SECONDS_KEPT, "unique": True}
        try:
            slices.enqueue_call(RUN_SLICE, args=[row.campaign_id, row.number], job_id=name, **options)
        except DuplicateJobError:
            continue  # Another scheduler was faster.
        added.append(name)
    return added


def _touched(connection: Redis, name: str) -> datetime | None:
    """When the job was queued or taken, whichever came last; None of one that is not there."""
    moments = connection.hmget(Job.key_for(name), ["enqueued_at", "started_at"])
    return max((datetime.fromisoformat(as_text(moment)) for moment in moments if moment), default=None)
