"""A cluster that is watched: the ports of a real worker and a real scheduler, their logs, and the webhook."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from entryfuzz_program import Entryfuzz
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from servers import HOST, Server, free_port

from db.engine import open_database
from db.queries import buckets
from db.work import planned
from workers.report import OUTCOMES, Report, from_line

PATIENCE = 90.0
DOCS = Path(__file__).parents[2] / "docs"


class Watched:
    """A scheduler and workers with ports and JSON logs."""

    def __init__(self, database: str, redis: str, folder: Path) -> None:
        self.engine, self.folder = open_database(database), folder
        self._environment = os.environ | {"ENTRYFUZZ_DB": database, "ENTRYFUZZ_REDIS": redis, "ENTRYFUZZ_SPOOL": str(folder / "spool")}
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> tuple[subprocess.Popen[bytes], int]:
        port = free_port()
        options = ["--metrics-port", str(port), "--log-format", "json"]
        with open(self.folder / f"{arguments[0]}.log", "ab") as log:
            process = subprocess.Popen([sys.executable, "-m", "entryfuzz", *arguments, *options], env=self._environment, stderr=log)
        self._started.append(process)
        self.until(lambda: answers(port))
        return process, port

    def enqueue(self, cases: int, slice_cases: int) -> None:
        size = ["--cases", str(cases), "--slice-cases", str(slice_cases)]
        command = [sys.executable, "-m", "entryfuzz", "enqueue", "--target", "snippets", "--seed", "11", *size]
        subprocess.run(command, env=self._environment, capture_output=True, check=True)

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / f"{name}.log").read_text().splitlines()]

    def until(self, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not happened():
            assert time.monotonic() < deadline, [file.read_text() for file in self.folder.glob("*.log")]
            time.sleep(0.1)

    def states(self) -> list[str]:
        return [row.state for row in planned(self.engine)]

    def end(self) -> None:
        for process in self._started:
            for each in [*psutil.Process(process.pid).children(recursive=True), process] if process.poll() is None else []:
                each.kill()
            process.wait()
        self.engine.dispose()


def answers(port: int) -> bool:
    try:
        return bool(metrics(port))
    except OSError:
        return False


def metrics(port: int) -> dict[str, float]:
    """Every sample by its name and labels, as it is written."""
    with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=5) as response:
        families = text_string_to_metric_families(response.read().decode())
    return {
        sample.name + "".join(f"[{value}]" for value in sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@pytest.fixture
def cluster(database: str, redis: Server, connection: Redis, tmp_path: Path) -> Iterator[Watched]:
    cluster = Watched(database, redis.url, tmp_path)
    yield cluster
    cluster.end()


def test_a_worker_and_the_scheduler_show_what_they_do(cluster: Watched) -> None:
    cluster.enqueue(cases=300, slice_cases=100)
    scheduler, stands = cluster.start("scheduler")
    worker, works = cluster.start("worker", "--name", "one")

    cluster.until(lambda: metrics(works)["entryfuzz_worker_slices_total[done]"] == 3)
    cluster.until(lambda: metrics(stands)["entryfuzz_slices[done]"] == 3)
    seen, stood = metrics(works), metrics(stands)
    children = psutil.Process(worker.pid).children()
    for process in (worker, scheduler):
        process.send_signal(signal.SIGTERM)
    assert [process.wait(30) for process in (worker, scheduler)] == [0, 0]

    found = buckets(cluster.engine)
    assert seen["entryfuzz_worker_cases_total"] == 300
    assert seen["entryfuzz_worker_buckets"] == stood["entryfuzz_buckets"] == len(found)
    assert seen["entryfuzz_worker_hits_total"] == sum(row.hits for row in found)
    assert seen["entryfuzz_worker_findings_total"] >= len(found)
    assert seen["entryfuzz_worker_slice_seconds_total"] > 0
    assert seen["entryfuzz_worker_spool_files"] == seen["entryfuzz_worker_lease_renewals_failed_total"] == 0
    assert {name: stood[name] for name in ("entryfuzz_slices[waiting]", "entryfuzz_slices[failed]", "entryfuzz_queue_length")} == {
        "entryfuzz_slices[waiting]": 0, "entryfuzz_slices[failed]": 0, "entryfuzz_queue_length": 0,
    }  # fmt: skip
    assert stood["entryfuzz_workers_alive"] == 1
    assert not any(child.is_running() for child in children)
    assert documented() == {re.sub(r"\[.*", "", name) for name in {**seen, **stood}}
    done = [line for line in cluster.lines("worker") if "done, random, 100 cases" in line["event"]]
    assert [(line["campaign"], line["slice"], line["attempt"], line["worker"]) for line in done] == [
        (1, number, 1, "one") for number in range(3)
    ]
    assert any(line["event"] == "campaign 1: finished" and line["campaign"] == 1 for line in cluster.lines("scheduler"))


def documented() -> set[str]:
    return set(re.findall(r"^\| `(entryfuzz_\w+)", (DOCS / "operating.md").read_text(encoding="utf-8"), re.MULTILINE))


def test_every_outcome_is_documented() -> None:
    page = (DOCS / "operating.md").read_text(encoding="utf-8")

    assert [name for name in OUTCOMES if f"| `{name}` |" not in page] == []


def test_a_slice_whose_process_is_killed_and_a_database_that_is_away_are_counted(cluster: Watched, postgres: Server) -> None:
    cluster.enqueue(cases=20_000, slice_cases=20_000)
    cluster.start("scheduler")
    worker, port = cluster.start("worker", "--lease", "6")
    exporter, *_ = psutil.Process(worker.pid).children()
    cluster.until(lambda: "leased" in cluster.states())

    next(each for each in psutil.Process(worker.pid).children() if each != exporter).kill()
    cluster.until(lambda: metrics(port)["entryfuzz_worker_slices_total[killed]"] == 1)
    cluster.until(lambda: planned(cluster.engine)[0].attempt == 2)
    postgres.stop()
    try:
        cluster.until(lambda: metrics(port)["entryfuzz_worker_lease_renewals_failed_total"] >= 1)
    finally:
        postgres.start()

    worker.kill()
    worker.wait()
    cluster.until(lambda: not answers(port))


def test_a_port_that_is_taken_is_a_mistake(cluster: Watched, entryfuzz: Entryfuzz, redis: Server, database: str) -> None:
    _, port = cluster.start("scheduler")

    for command in ("worker", "scheduler"):
        ran = entryfuzz(command, "--metrics-port", str(port), "--db", database, "--redis", redis.url)

        assert ran.code == 2
        assert ran.err.splitlines()[-1].startswith(f"metrics: 127.0.0.1:{port}: [Errno 98] Address already in use")


def test_a_webhook_that_is_none_is_a_mistake(entryfuzz: Entryfuzz, redis: Server, database: str) -> None:
    ran = entryfuzz("scheduler", "--webhook", "file:///etc/passwd", "--db", database, "--redis", redis.url)

    assert (ran.code, ran.err) == (2, "webhook: not an http or https URL; write https://host/path\n")


def test_half_a_report_spoils_no_other() -> None:
    whole = Report("done", cases=3, buckets=("a", "b"))

    lines = (whole.to_line()[:20] + Report("kept").to_line()).splitlines()

    assert [from_line(line) for line in lines if from_line(line)] == [Report("kept")]
    assert from_line(whole.to_line().strip()) == whole
