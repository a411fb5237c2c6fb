"""What keeps a cluster going: campaigns have slices ahead, lost slices wait again, and what waits is in the queue.

Everything it knows is in the database. It may be stopped and started at any time, and two of them do no harm.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from threading import Event

from redis.exceptions import RedisError
from rq import Queue
from sqlalchemy import Engine

from db import cluster, store, work
from db.errors import DatabaseError
from db.nightly import end_runs
from db.records import CampaignRow, NewCampaign
from db.work_records import OpenCampaign
from workers.about import about, about_attempt
from workers.growing import AHEAD, works_ahead
from workers.nightly import begin_due
from workers.queue import enqueue_missing
from workers.timetable import Entry

log = logging.getLogger(__name__)

STEP_SECONDS = 2.0


def start_cluster_campaign(engine: Engine, new: NewCampaign) -> int:
    """Store a campaign whose cores and budget are in its arguments, with its first slices, and return its number."""
    works = works_ahead(new, range(AHEAD))
    return work.start_planned(engine, new, works)


def keep_going(
    engine: Engine,
    queue: Queue,
    stop: Event,
    timetable: Sequence[Entry] = (),
    *,
    seconds: float = STEP_SECONDS,
    after_step: Callable[[], None] = lambda: None,
) -> None:
    """Do a step every few seconds until `stop` is set; a server that is away is told in the log, and asked again."""
    while not stop.is_set():
        try:
            step(engine, queue, timetable)
            after_step()
        except (DatabaseError, RedisError) as error:
            log.warning("scheduler: %s", " ".join(str(error).split()))
        stop.wait(seconds)


def step(engine: Engine, queue: Queue, timetable: Sequence[Entry] = (), *, at: datetime | None = None) -> None:
    """Look once at everything that may have to be done. The database comes first: without Redis, leases still run out."""
    now = at or datetime.now(UTC)
    for row in work.expire(engine):
        with about_attempt(row):
            log.warning("slice %d of campaign %d, attempt %d: %s; now %s", row.number, row.campaign_id, row.attempt, row.reason, row.state)
    for run in begin_due(engine, timetable, now):
        log.info("nightly %s of %s: %s", run.name, run.due_at.isoformat(), run.outcome or f"planned as campaigns {run.campaigns}")
    for each in work.open_campaigns(engine):
        _plan_ahead(engine, each, now)
    for run in end_runs(engine, at=now):
        log.info("nightly %s of %s: %s", run.name, run.due_at.isoformat(), run.outcome)
    cluster.forget_lost_workers(engine)
    added = enqueue_missing(queue, work.planned(engine, state=work.WAITING))
    if added:
        log.info("scheduler: queued %s", ", ".join(added))


def _plan_ahead(engine: Engine, each: OpenCampaign, now: datetime) -> None:
    campaign = each.campaign
    over = _is_over(campaign, now)
    unfinished = each.unfinished - (work.withdraw(engine, campaign.id) if over else 0)
    works = [] if over else works_ahead(campaign, range(each.planned, each.planned + max(AHEAD - each.waiting, 0)))
    if works:
        work.plan(engine, campaign.id, works)
    elif not unfinished:
        store.finish_campaign(engine, campaign.id)
        with about(campaign=campaign.id):
            log.info("campaign %d: finished", campaign.id)


def _is_over(campaign: CampaignRow, now: datetime) -> bool:
    """Whether the time of a campaign is up: what nobody has begun by then is not done."""
    until = campaign.arguments.get("until")
    return until is not None and now >= datetime.fromisoformat(until)
