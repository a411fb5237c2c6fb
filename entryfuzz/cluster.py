"""Fuzzing on several machines: planning campaigns, running a worker or the scheduler, and how all of it stands."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from entryfuzz.database import opened
from entryfuzz.errors import Mistake
from entryfuzz.output import console

if TYPE_CHECKING:
    from db.work_records import ClusterStatus

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

    def to_json(self) -> dict[str, Any]:
        """The same for programs."""
        return asdict(self)


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
        arguments={"cases": order.cases, "cores": list(order.cores), "cluster": True},
    )
    engine = open_database(database)
    try:
        return start_cluster_campaign(engine, new)
    finally:
        engine.dispose()


def work(database: str, redis: str, name: str | None, spool: Path, lease: float, burst: bool) -> None:
    """Be a worker until a signal asks to stop; Mistake if it ends otherwise, or if results could not be kept where they should be."""
    from workers.jobs import Site
    from workers.worker import run_worker

    _log_to_stderr()
    try:
        spool.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Mistake(f"{spool}: {error.strerror}; name a folder that can be written with --spool") from None
    if not os.access(spool, os.W_OK):
        raise Mistake(f"{spool}: cannot be written; name another folder with --spool")
    called = name or f"{socket.gethostname()}-{secrets.token_hex(3)}"
    if not run_worker(Site(database, spool, called, lease), redis, burst=burst):
        raise Mistake(f"worker {called}: lost its queue; the log above says why; start it again")


def schedule(database: str, redis: str) -> None:
    """Be the scheduler until a signal asks to stop."""
    from db.engine import open_when_up
    from workers.queue import connect_when_up, queue
    from workers.scheduler import keep_going

    _log_to_stderr()
    stop = Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: stop.set())
    engine = open_when_up(database, _SERVER_SECONDS)
    # It comes round every few seconds, so its client need not be patient.
    connection = connect_when_up(redis, _SERVER_SECONDS, tries=3)
    try:
        keep_going(engine, queue(connection), stop)
    finally:
        connection.close()
        engine.dispose()


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


def _log_to_stderr() -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
