"""Fuzzing on several machines: planning campaigns, running a worker or the scheduler, and how all of it stands."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from entryfuzz.database import opened
from entryfuzz.errors import Mistake
from entryfuzz.logs import log_to_stderr
from entryfuzz.output import console

if TYPE_CHECKING:
    from rq import Queue
    from sqlalchemy import Engine

    from db.work_records import ClusterStatus
    from workers.report import Tell

_WATCH_SECONDS = 2.0
_SERVER_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Order:
    """A campaign for a cluster: until so many cases have run, or for ever."""

    targets: tuple[str, ...]
    cores: tuple[str, ...]
    profiles: tuple[str, ...]
    seed: int
    cases: int | None
    slice_cases: int
    mode: str

    def to_json(self) -> dict[str, Any]:
        """The same for programs."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Watched:
    """How a process that runs for long is watched: the format of its log, and where its metrics are served, if they are."""

    log_format: str
    metrics_host: str
    metrics_port: int | None


def enqueue_campaign(database: str, order: Order) -> int:
    """Store the campaign and its first slices, and return its number. A core has to be where the workers are, not here."""
    from db.engine import open_database
    from db.records import NewCampaign
    from fuzzer.cores.registry import CORES
    from workers.scheduler import start_cluster_campaign

    versions = [CORES[name].available()[0] or "" for name in order.cores]
    new = NewCampaign(
        targets=order.targets,
        core=", ".join(order.cores),
        core_version=", ".join(versions),
        profiles=order.profiles,
        seed=order.seed,
        slice_cases=order.slice_cases,
        arguments={"cases": order.cases, "cores": list(order.cores), "cluster": True, "mode": order.mode},
    )
    engine = open_database(database)
    try:
        return start_cluster_campaign(engine, new)
    finally:
        engine.dispose()


def work(database: str, redis: str, name: str | None, spool: Path, lease: float, burst: bool, watched: Watched) -> None:
    """Be a worker until a signal asks to stop; Mistake if it ends otherwise, or if results could not be kept where they should be."""
    from workers.jobs import Site
    from workers.worker import run_worker

    log_to_stderr(watched.log_format)
    try:
        spool.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Mistake(f"{spool}: {error.strerror}; name a folder that can be written with --spool") from None
    if not os.access(spool, os.W_OK):
        raise Mistake(f"{spool}: cannot be written; name another folder with --spool")
    called = name or f"{socket.gethostname()}-{secrets.token_hex(3)}"
    with _told(watched, spool) as tell:
        ended = run_worker(Site(database, spool, called, lease, tell), redis, burst=burst)
    if not ended:
        raise Mistake(f"worker {called}: lost its queue; the log above says why; start it again")


@contextmanager
def _told(watched: Watched, spool: Path) -> Iterator[Tell]:
    """Who is told what a worker does."""
    if watched.metrics_port is None:
        from workers.report import tell_nobody

        yield tell_nobody
        return
    from workers.metrics import Exporter

    exporter = Exporter(watched.metrics_host, watched.metrics_port, spool)
    try:
        yield exporter.tell
    finally:
        exporter.close()


def schedule(database: str, redis: str, config: Path | None, webhook: str | None, watched: Watched) -> None:
    """Be the scheduler, with the jobs of a timetable or without, until a signal asks to stop."""
    from db.engine import open_when_up
    from entryfuzz.nightly import timetable
    from workers.queue import connect_when_up, queue
    from workers.scheduler import keep_going
    from workers.webhook import telling

    jobs = () if config is None else timetable(config)
    log_to_stderr(watched.log_format)
    stop = Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: stop.set())
    engine = open_when_up(database, _SERVER_SECONDS)
    # It comes round every few seconds, so its client need not be patient.
    connection = connect_when_up(redis, _SERVER_SECONDS, tries=3)
    try:
        slices = queue(connection)
        with telling(engine, webhook):
            keep_going(engine, slices, stop, jobs, after_step=_look(watched, engine, slices))
    finally:
        connection.close()
        engine.dispose()


def _look(watched: Watched, engine: Engine, slices: Queue) -> Callable[[], None]:
    """What looks after each step how the cluster stands."""
    if watched.metrics_port is None:
        return lambda: None
    from workers.metrics import SchedulerMetrics

    return SchedulerMetrics(watched.metrics_host, watched.metrics_port, engine, slices).look


def cluster_status(database: str) -> ClusterStatus:
    """How the cluster stands now."""
    from db.cluster import status

    with opened(database) as engine:
        return status(engine)


def watch_status(database: str) -> None:
    """Show how the cluster stands, again and again, until interrupted."""
    from rich.console import Group
    from rich.live import Live

    from db.cluster import status
    from entryfuzz.views import cluster

    with opened(database) as engine, Live(console=console(error=False), auto_refresh=False) as live:
        while True:
            live.update(Group(*cluster.status(status(engine))), refresh=True)
            time.sleep(_WATCH_SECONDS)


def upgrade_database(database: str, seconds: float) -> str:
    """Bring the tables up to date, waiting for the server, and say what they are now."""
    from db.engine import open_when_up
    from db.errors import place
    from db.migrations import HEAD

    engine = open_when_up(database, seconds)
    engine.dispose()
    return f"{place(engine.url)}: up to date, schema {HEAD}"
