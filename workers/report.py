"""What a worker's processes tell about their slices, for whoever counts it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

from db.records import SliceResult, bucket_id
from db.work_records import Measured

OUTCOMES = {
    "done": "stored",
    "kept": "finished while the database was away, and kept in the spool",
    "lost": "finished, but neither the database nor the spool would take it: it is run again",
    "refused": "finished too late: another worker had been given the slice",
    "stopped": "given up in the middle, because the lease was lost",
    "given back": "an engine that does not work, a slice that takes too long, or a bug of ours",
    "killed": "the process of the slice was killed",
    "left": "the database was away when the slice was begun or given back: it waits until its lease runs out",
    "taken": "somebody else had the slice already",
}
"""How an attempt at a slice ends, as far as its worker can see."""


@dataclass(frozen=True, slots=True)
class Report:
    """Something to add to what was counted; `buckets` are ids."""

    outcome: str | None = None
    cases: int = 0
    seconds: float = 0.0
    hits: int = 0
    findings: int = 0
    buckets: tuple[str, ...] = ()
    renewals_failed: int = 0

    def to_line(self) -> bytes:
        """One line. It begins with an end of line too: what a process that was killed left half written spoils no other line."""
        return b"\n" + json.dumps(asdict(self)).encode() + b"\n"


Tell = Callable[[Report], None]


def tell_nobody(report: Report) -> None:
    """Nobody counts."""


def measured(outcome: str, result: Measured) -> Report:
    """The report on a slice that was run to its end and looks for nothing new: how many cases it ran."""
    return Report(outcome, result.cases)


def finished(outcome: str, result: SliceResult) -> Report:
    """The report on a slice that was run to its end, with what it found."""
    found = tuple(sorted(bucket_id(signature) for signature in result.hits))
    return Report(outcome, result.cases, result.seconds, sum(result.hits.values()), len(result.findings), found)


def from_line(line: bytes) -> Report | None:
    """The report in a line; None of an empty line and of half a one."""
    try:
        value = json.loads(line)
        return Report(**value | {"buckets": tuple(value["buckets"])})
    except (ValueError, TypeError, KeyError):
        return None
