"""A process that counts what a worker's processes tell, and shows it to Prometheus.

A worker forks a process for each slice: a server in a thread of its own, or counters in its memory, would be forked with it. So this is
a program beside it, `python -m workers.exporter HOST PORT SPOOL`, which reads reports from its standard input and ends when nobody is
left to write there. Its first line on standard output says whether it serves.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import BinaryIO

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from workers.report import OUTCOMES, Report, from_line

READY = "ready"


class WorkerMetrics:
    """The metrics of one worker since it began."""

    def __init__(self, registry: CollectorRegistry, spool: Path) -> None:
        self._slices = Counter("entryfuzz_worker_slices", "Attempts at slices, by how they ended.", ["outcome"], registry=registry)
        for outcome in OUTCOMES:
            self._slices.labels(outcome)
        self._cases = Counter("entryfuzz_worker_cases", "Cases of the slices that were run to their end.", registry=registry)
        self._seconds = Counter("entryfuzz_worker_slice_seconds", "Seconds that those slices took.", registry=registry)
        self._hits = Counter("entryfuzz_worker_hits", "Divergences in those slices, one for each case and core.", registry=registry)
        self._findings = Counter("entryfuzz_worker_findings", "Examples of divergences that those slices brought.", registry=registry)
        self._buckets = Gauge("entryfuzz_worker_buckets", "Different buckets that those slices hit.", registry=registry)
        self._renewals = Counter("entryfuzz_worker_lease_renewals_failed", "Leases that could not be renewed in time.", registry=registry)
        kept = Gauge("entryfuzz_worker_spool_files", "Results in the spool that wait for the database.", registry=registry)
        kept.set_function(lambda: sum(1 for _ in spool.glob("*.json")))
        self._seen: set[str] = set()

    def add(self, report: Report) -> None:
        """Count a report."""
        if report.outcome is not None:
            self._slices.labels(report.outcome).inc()
        self._cases.inc(report.cases)
        self._seconds.inc(report.seconds)
        self._hits.inc(report.hits)
        self._findings.inc(report.findings)
        self._seen.update(report.buckets)
        self._buckets.set(len(self._seen))
        self._renewals.inc(report.renewals_failed)


def serve(host: str, port: int, spool: Path, reports: BinaryIO) -> None:
    """Count reports, and show the sums, until the reports end."""
    # Ctrl-C on a terminal reaches the whole group; the worker finishes its slice first, and this ends with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry, spool)
    try:
        start_http_server(port, host, registry)
    except (OSError, OverflowError) as error:
        print(error, flush=True)
        return
    print(READY, flush=True)
    for line in reports:
        report = from_line(line)
        if report is not None:
            metrics.add(report)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.stdin.buffer)
