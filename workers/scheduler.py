"""What keeps a cluster going: campaigns have slices ahead, lost slices wait again, and what waits is in the queue.

Everything it knows is in the database. It may be stopped and started at any time, and two of them do no harm.
"""

from __future__ import annotations

import logging
from threading import Event

from redis.exceptions import RedisError
from rq import Queue
from sqlalchemy import Engine

from db import cluster, store, work
from db.errors import DatabaseError
from db.records import CampaignRow, NewCampaign
from db.work_records import NewWork, OpenCampaign
from workers.modes import random_arguments
from workers.queue import enqueue_missing
from workers.slices import cut, plan

log = logging.getLogger(__name__)

STEP_SECONDS = 2.0
AHEAD = 32
"""Slices of a campaign that wait: enough for as many workers to find one while the scheduler is away for two minutes."""


def start_cluster_campaign(engine: Engine, new: NewCampaign) -> int:
    """Store a campaign whose cores and budget are in its arguments, with its first slices, and return its number."""
    works = _works(new, range(AHEAD))
    return work.start_planned(engine, new, works)


def keep_going(engine: Engine, queue: Queue, stop: Event, *, seconds: float = STEP_SECONDS) -> None:
    """Do a step every few seconds until `stop` is set; a server that is away is told in the log, and asked again."""
    while not stop.is_set():
        try:
            step(engine, queue)
        except (DatabaseError, RedisError) as error:
            log.warning("scheduler: %s", " ".join(str(error).split()))
        stop.wait(seconds)


def step(engine: Engine, queue: Queue) -> None:
    """Look once at everything that may have to be done. The database comes first: without Redis, leases still run out."""
    for row in work.expire(engine):
        log.warning("slice %d of campaign %d, attempt %d: %s; now %s", row.number, row.campaign_id, row.attempt, row.reason, row.state)
    for each in work.open_campaigns(engine):
        _plan_ahead(engine, each)
    cluster.forget_lost_workers(engine)
    added = enqueue_missing(queue, work.planned(engine, state=work.WAITING))
    if added:
        log.info("scheduler: queued %s", ", ".join(added))


def _plan_ahead(engine: Engine, each: OpenCampaign) -> None:
    campaign = each.campaign
    works = _works(campaign, range(each.planned, each.planned + max(AHEAD - each.waiting, 0)))
    if works:
        work.plan(engine, campaign.id, works)
    elif not each.unfinished:
        store.finish_campaign(engine, campaign.id)
        log.info("campaign %d: finished", campaign.id)


def _works(campaign: NewCampaign | CampaignRow, numbers: range) -> list[NewWork]:
    """The planned work of these numbers, without those that come after the campaign's end."""
    cases, cores = campaign.arguments["cases"], tuple(campaign.arguments["cores"])
    slices = [plan(campaign.targets, tuple(campaign.profiles), campaign.seed, campaign.slice_cases, number) for number in numbers]
    if cases is not None:
        slices = [part for part in (cut(each, campaign.slice_cases, cases) for each in slices) if part is not None]
    return [random_arguments(each, cores) for each in slices]
