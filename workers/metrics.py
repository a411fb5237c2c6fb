"""Metrics for Prometheus: how a worker hands its reports to the process that serves them, and what the scheduler shows."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, start_http_server
from rq import Queue
from sqlalchemy import Engine

from db import cluster
from workers.exporter import READY
from workers.report import Report

log = logging.getLogger(__name__)
ENDING_SECONDS = 5


class MetricsError(Exception):
    """Metrics cannot be served as asked: one line with the place and the way out."""


class Exporter:
    """The process that serves a worker's metrics. Forked processes of the worker may tell it too."""

    def __init__(self, host: str, port: int, spool: Path) -> None:
        command = [sys.executable, "-m", "workers.exporter", host, str(port), str(spool)]
        # Without a buffer: what is written is told, whatever happens to the process that wrote it.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._pipe, self._broken = self._process.stdin, False
        with self._process.stdout as answers:
            answer = answers.readline().decode().strip()
        if answer != READY:
            self.close()
            raise _cannot_serve(host, port, answer)

    def tell(self, report: Report) -> None:
        """Count a report. A process that is gone is told in the log, once, and stops nobody."""
        if self._broken:
            return
        try:
            self._pipe.write(report.to_line())
        except OSError as error:
            self._broken = True
            log.warning("metrics: no longer counted: %s", error)

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        try:
            self._process.wait(ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class SchedulerMetrics:
    """How the cluster stands, as the scheduler saw it last."""

    def __init__(self, host: str, port: int, engine: Engine, queue: Queue) -> None:
        self._engine, self._queue = engine, queue
        registry = CollectorRegistry()
        self._slices = Gauge("entryfuzz_slices", "Planned slices, by state.", ["state"], registry=registry)
        self._workers = Gauge("entryfuzz_workers_alive", "Workers that were heard of in the last minute.", registry=registry)
        self._queued = Gauge("entryfuzz_queue_length", "Slices in the queue of Redis.", registry=registry)
        self._campaigns = Gauge("entryfuzz_campaigns_open", "Campaigns of the cluster that are not finished.", registry=registry)
        self._rate = Gauge("entryfuzz_cases_per_second", "Cases stored per second, in the last ten minutes.", registry=registry)
        self._buckets = Gauge("entryfuzz_buckets", "Buckets in the database.", registry=registry)
        self._looked = Gauge("entryfuzz_scheduler_last_step_timestamp_seconds", "When all of this was true.", registry=registry)
        try:
            start_http_server(port, host, registry)
        except (OSError, OverflowError) as error:
            raise _cannot_serve(host, port, str(error)) from None

    def look(self) -> None:
        """See how the cluster stands; DatabaseError, RedisError: the figures stay as they were."""
        status = cluster.status(self._engine)
        for state, slices in status.slices.items():
            self._slices.labels(state).set(slices)
        self._workers.set(len(status.workers))
        self._campaigns.set(status.campaigns)
        self._rate.set(status.cases_per_second)
        self._buckets.set(status.buckets)
        self._queued.set(len(self._queue))
        self._looked.set_to_current_time()


def _cannot_serve(host: str, port: int, why: str) -> MetricsError:
    return MetricsError(f"metrics: {host}:{port}: {why or 'the process that serves them ended'}; give another port with --metrics-port")
