"""The faults: what is done to the cluster, and when."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import psutil
from chaos_audit import HANG, runs
from chaos_cluster import LEASE, WORKERS, Cluster, no_room, wait_until
from redis import Redis

from db.work import LEASED, MOST_ATTEMPTS

LONG_OUTAGE = 30.0
LATEST = 0.85
"""The last faults come while this part of the slices is done: after the end there is nothing left to disturb."""
LOST_SPOOL = "lost, so it will be run again"
VICTIM_SECONDS = 30.0
DISK_TRIES = 5


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: when a part of the campaign is done, and a little later."""

    after: float
    delay: float
    kind: str
    worker: str


class Chaos:
    """Does the faults of a plan to a cluster, and counts those that met something."""

    def __init__(self, cluster: Cluster, random: Random) -> None:
        self.cluster, self.random = cluster, random
        self.done: Counter[str] = Counter()
        self.missed: list[str] = []
        """Faults that found no victim."""

    def do(self, fault: Fault) -> None:
        """One fault, to its end: a server that was stopped is there again."""
        time.sleep(fault.delay)
        before = self.done.total()
        FAULTS[fault.kind](self, fault)
        if self.done.total() == before:
            self.missed.append(fault.kind)

    def worker(self, fault: Fault) -> None:
        """SIGKILL of a worker."""
        self._spare(fault.worker)
        self.cluster.kill(fault.worker)
        self._count(fault)

    def scheduler(self, fault: Fault) -> None:
        """SIGKILL of the scheduler."""
        self.cluster.kill("scheduler")
        self._count(fault)

    def horse(self, fault: Fault) -> None:
        """SIGKILL of the process of a job."""
        self._kill(fault, self.cluster.horse)

    def engine(self, fault: Fault) -> None:
        """SIGKILL of the process in which the engine runs."""
        self._kill(fault, self._engine)

    def flush(self, fault: Fault) -> None:
        """Redis emptied."""
        with Redis.from_url(self.cluster.redis.url) as client:
            client.flushall()
        self._count(fault)

    def redis(self, fault: Fault) -> None:
        """Redis killed, away for a while, and there again with nothing in it."""
        self.cluster.redis.stop(signal.SIGKILL)
        time.sleep(self.random.uniform(0.5, 5))
        self.cluster.redis.start()
        self._count(fault)

    def postgres(self, fault: Fault) -> None:
        """PostgreSQL away for some seconds, after a shutdown or, as after a crash, without one."""
        self.cluster.postgres.stop(self.random.choice((signal.SIGINT, signal.SIGQUIT)))
        time.sleep(self.random.uniform(1, 8))
        self.cluster.postgres.start()
        self._count(fault)

    def outage(self, fault: Fault) -> None:
        """PostgreSQL away for half a minute, and a worker killed in the middle of it."""
        self._spare(fault.worker)
        self.cluster.postgres.stop()
        time.sleep(LONG_OUTAGE / 2)
        self.cluster.kill(fault.worker)
        time.sleep(LONG_OUTAGE / 2)
        self.cluster.postgres.start()
        self.done["worker"] += 1
        self._count(fault)

    def disk(self, fault: Fault) -> None:
        """No room in the spool folder while PostgreSQL is away, until a result was lost by it."""
        for _ in range(DISK_TRIES):
            if self._loses_a_result():
                self.done["full disk"] += 1
                return

    def _loses_a_result(self) -> bool:
        """Once; what is not at work when PostgreSQL goes has nothing to lose, and what hangs stops when its lease ends."""
        wait_until(lambda: any(self._engine(name) for name in WORKERS), VICTIM_SECONDS)
        said = self.cluster.log().count(LOST_SPOOL)
        with no_room(self.cluster.spool):
            self.cluster.postgres.stop()
            lost = wait_until(lambda: self.cluster.log().count(LOST_SPOOL) > said, LEASE)
        self.cluster.postgres.start()
        return lost

    def _kill(self, fault: Fault, of: Callable[[str], psutil.Process | None]) -> None:
        """Kill a process of the fault's worker once there is one, or of the other worker."""
        order = sorted(WORKERS, key=lambda name: name != fault.worker)

        def killed() -> bool:
            self.cluster.revive()
            for name in order:
                self._spare(name)
                victim = of(name)
                if victim is not None:
                    time.sleep(self.random.uniform(0, 1.5))
                    if _killed(victim):
                        self._count(fault)
                        return True
            return False

        wait_until(killed, VICTIM_SECONDS)

    def _engine(self, name: str) -> psutil.Process | None:
        """The engine's process, but not while it hangs: two kills in the same case are, rightly, put down to the case."""
        found = self.cluster.engine_of(name)
        hanging = {run.pid for run in runs(self.cluster.account) if run.what == HANG}
        return found if found is not None and found.pid not in hanging else None

    def _spare(self, name: str) -> None:
        """Wait while the worker has a slice that has one attempt left: a slice that was lost five times is given up, as it should be."""

        def in_danger() -> bool:
            return any(row.worker == name and row.state == LEASED and row.attempt >= MOST_ATTEMPTS - 1 for row in self.cluster.planned())

        wait_until(lambda: not in_danger(), 2 * VICTIM_SECONDS)

    def _count(self, fault: Fault) -> None:
        self.done[fault.kind] += 1


FAULTS: dict[str, Callable[[Chaos, Fault], None]] = {
    "worker": Chaos.worker,
    "horse": Chaos.horse,
    "engine": Chaos.engine,
    "flush": Chaos.flush,
    "redis": Chaos.redis,
    "outage": Chaos.outage,
    "disk": Chaos.disk,
    "postgres": Chaos.postgres,
    "scheduler": Chaos.scheduler,
}
_ONCE = ("outage", "disk", "scheduler")
"""The first two last for long, the third does little harm: they come once."""


def plan(random: Random, count: int) -> list[Fault]:
    """So many faults, each kind at least once if there is room, at random times of the campaign."""
    more = [kind for kind in FAULTS if kind not in _ONCE]
    kinds = [*FAULTS][:count] + [random.choice(more) for _ in range(count - len(FAULTS))]
    random.shuffle(kinds)
    moments = sorted(random.uniform(0, LATEST) for _ in kinds)
    return [Fault(after, random.uniform(0, 3), kind, random.choice(WORKERS)) for after, kind in zip(moments, kinds, strict=True)]


def _killed(victim: psutil.Process) -> bool:
    """Whether it lived until now."""
    try:
        if victim.status() == psutil.STATUS_ZOMBIE:
            return False
        victim.kill()
    except psutil.NoSuchProcess:
        return False
    return True
