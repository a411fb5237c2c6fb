"""A whole cluster: the program's own processes, a real Redis and a real PostgreSQL, and what happens to them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from redis import Redis
from servers import Server

from db.cluster import status
from db.engine import open_database
from db.queries import campaign_buckets, campaigns
from db.work import planned
from reference.profiles import PROFILES
from workers.local import Settings, run_campaign

pytestmark = pytest.mark.slow

SEED = 11
CASES = 1000
PATIENCE = 90.0


class Cluster:
    """Processes of the program, all with the same servers."""

    def __init__(self, database: str, redis: str, folder: Path) -> None:
        self.engine, self._folder = open_database(database), folder
        self._environment = os.environ | {"ENTRYFUZZ_DB": database, "ENTRYFUZZ_REDIS": redis, "ENTRYFUZZ_SPOOL": str(folder / "spool")}
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with open(self._folder / f"{arguments[0]}.log", "ab") as log:
            process = subprocess.Popen([sys.executable, "-m", "entryfuzz", *arguments], env=self._environment, stderr=log)
        self._started.append(process)
        return process

    def ask(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "entryfuzz", *arguments]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, check=True).stdout

    def enqueue(self, slice_cases: int) -> int:
        options = ["--target", "snippets", "--seed", str(SEED), "--cases", str(CASES), "--slice-cases", str(slice_cases)]
        return int(self.ask("enqueue", *options))

    def until(self, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not happened():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.1)

    def states(self) -> list[str]:
        return [row.state for row in planned(self.engine)]

    def finished(self) -> bool:
        return all(row.finished_at is not None for row in campaigns(self.engine))

    def found(self, campaign: int) -> dict[str, int]:
        return {row.id: row.hits for row in campaign_buckets(self.engine, campaign)}

    def log(self) -> str:
        return "\n".join(file.read_text() for file in sorted(self._folder.glob("*.log")))

    def end(self) -> None:
        for process in self._started:
            for each in [*psutil.Process(process.pid).children(recursive=True), process] if process.poll() is None else []:
                each.kill()
            process.wait()
        self.engine.dispose()


@pytest.fixture
def cluster(database: str, redis: Server, connection: Redis, tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(database, redis.url, tmp_path)
    yield cluster
    cluster.end()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """The buckets and hits of the same campaign on one machine."""
    database = str(tmp_path_factory.mktemp("alone") / "local.db")
    return {
        row.id: row.hits
        for row in run_campaign(Settings(("snippets",), ("unicorn",), SEED, CASES, None, 1, tuple(PROFILES), database)).buckets
    }


def test_two_workers_find_what_the_local_campaign_finds_and_leave_when_they_are_asked_to(cluster: Cluster, alone: dict[str, int]) -> None:
    campaign = cluster.enqueue(slice_cases=220)
    running = [cluster.start("scheduler"), cluster.start("worker", "--name", "one"), cluster.start("worker", "--name", "two")]

    cluster.until(cluster.finished)
    cluster.until(lambda: {row.name for row in status(cluster.engine).workers} == {"one", "two"})
    told = json.loads(cluster.ask("status", "--json"))
    for process in running:
        process.send_signal(signal.SIGTERM)

    assert cluster.found(campaign) == alone
    assert told["slices"] == {"waiting": 0, "leased": 0, "done": 5, "failed": 0}
    assert sum(worker["cases"] for worker in told["workers"]) == CASES
    assert told["buckets"] == told["new_buckets"] == len(cluster.found(campaign))
    assert [process.wait(20) for process in running] == [0, 0, 0]
    assert status(cluster.engine).workers == ()


def test_a_redis_that_is_emptied_and_started_again_in_the_middle_loses_nothing(
    cluster: Cluster, redis: Server, connection: Redis, alone: dict[str, int]
) -> None:
    campaign = cluster.enqueue(slice_cases=125)
    cluster.start("scheduler")
    cluster.start("worker")

    cluster.until(lambda: cluster.states().count("done") >= 2)
    connection.flushall()
    cluster.until(lambda: cluster.states().count("done") >= 4)
    redis.stop(signal.SIGKILL)
    time.sleep(3)
    redis.start()
    cluster.until(cluster.finished)

    assert set(cluster.states()) == {"done"}
    assert cluster.found(campaign) == alone


def test_a_postgresql_that_is_away_when_a_slice_is_done_gets_it_when_it_is_back(
    cluster: Cluster, postgres: Server, tmp_path: Path, alone: dict[str, int]
) -> None:
    campaign = cluster.enqueue(slice_cases=500)
    cluster.start("scheduler")
    cluster.start("worker")

    cluster.until(lambda: "leased" in cluster.states())
    postgres.stop()
    cluster.until(lambda: any((tmp_path / "spool").glob("*.json")))
    postgres.start()
    cluster.until(cluster.finished)

    assert [(row.state, row.attempt) for row in planned(cluster.engine)] == [("done", 1)] * 2
    assert cluster.found(campaign) == alone
    assert not list((tmp_path / "spool").iterdir())


def test_a_signal_lets_the_slice_finish(cluster: Cluster, alone: dict[str, int]) -> None:
    campaign = cluster.enqueue(slice_cases=500)
    cluster.start("scheduler")
    worker = cluster.start("worker")

    cluster.until(lambda: "leased" in cluster.states())
    worker.send_signal(signal.SIGTERM)

    assert worker.wait(PATIENCE) == 0
    assert cluster.states() == ["done", "waiting"]
    cluster.start("worker")
    cluster.until(cluster.finished)
    assert cluster.found(campaign) == alone


VICTIMS: dict[str, Callable[[psutil.Process], psutil.Process]] = {
    "worker": lambda worker: worker,
    "process-of-the-job": lambda worker: worker.children()[0],
    "process-of-the-engine": lambda worker: engine_of(worker),
}


def engine_of(worker: psutil.Process) -> psutil.Process:
    return next(each for each in worker.children(recursive=True) if "spawn_main" in " ".join(each.cmdline()))


def lives(process: psutil.Process) -> bool:
    """An orphan that has ended may stay in the table of processes."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_process_that_is_killed_takes_its_own_with_it_and_loses_nothing(cluster: Cluster, alone: dict[str, int], victim: str) -> None:
    campaign = cluster.enqueue(slice_cases=CASES)
    cluster.start("scheduler")
    worker = psutil.Process(cluster.start("worker", "--lease", "5").pid)
    cluster.until(lambda: "leased" in cluster.states() and any("spawn_main" in " ".join(each.cmdline()) for each in worker.children(True)))
    time.sleep(0.5)
    below = [each for each in worker.children(recursive=True) if "resource_tracker" not in " ".join(each.cmdline())]
    assert len(below) == 2

    VICTIMS[victim](worker).kill()

    if victim == "worker":
        cluster.until(lambda: not any(lives(each) for each in below))
        cluster.start("worker", "--lease", "5")
    cluster.until(cluster.finished)
    (row,) = planned(cluster.engine)
    assert (row.state, row.attempt) == ("done", 1 if victim == "process-of-the-engine" else 2)
    assert cluster.found(campaign) == alone


def test_a_campaign_without_an_end_always_has_slices_ahead(cluster: Cluster) -> None:
    cluster.ask("enqueue", "--target", "snippets", "--forever", "--slice-cases", "10")
    cluster.start("scheduler")
    cluster.start("worker")

    cluster.until(lambda: cluster.states().count("done") >= 6)
    cluster.until(lambda: len(cluster.states()) > 34)

    assert not cluster.finished()
