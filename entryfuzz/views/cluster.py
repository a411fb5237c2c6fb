"""How a cluster stands."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from entryfuzz.views import listings, text

if TYPE_CHECKING:
    from db.work_records import ClusterStatus, PlannedRow, WorkerRow


def status(now: ClusterStatus) -> Iterator[RenderableType]:
    """Counts first, then who is doing what, and what failed."""
    yield Text(f"slices      {', '.join(f'{count:,} {state}' for state, count in now.slices.items())}, campaigns open {now.campaigns:,}")
    yield Text(f"speed       {now.cases_per_second:,.0f} cases/s")
    yield Text(f"buckets     {now.buckets:,}, {now.new_buckets:,} of them new in 24 hours")
    yield text.heading(f"{len(now.workers)} workers")
    table = listings.table("worker", "since", "seen", "cases", "slice", right=["cases"])
    for row in now.workers:
        table.add_row(row.name, _moment(row.started_at), _moment(row.seen_at), f"{row.cases:,}", _doing(row))
    yield table
    if now.failures:
        yield text.heading("failed slices, newest first")
        for failure in now.failures:
            yield Text(
                f"{failure.number} of campaign {failure.campaign_id}, attempt {failure.attempt}: {failure.reason}", style=text.DIFFERS
            )


def status_json(now: ClusterStatus) -> dict[str, Any]:
    """The same for programs."""
    return {
        "workers": [_worker_json(row) for row in now.workers],
        "slices": dict(now.slices),
        "campaigns": now.campaigns,
        "cases_per_second": now.cases_per_second,
        "buckets": now.buckets,
        "new_buckets": now.new_buckets,
        "failures": [_failure_json(row) for row in now.failures],
    }


def _worker_json(row: WorkerRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "started_at": row.started_at.isoformat(),
        "seen_at": row.seen_at.isoformat(),
        "cases": row.cases,
        "campaign": row.campaign_id,
        "slice": row.number,
    }


def _failure_json(row: PlannedRow) -> dict[str, Any]:
    return {"campaign": row.campaign_id, "slice": row.number, "attempt": row.attempt, "reason": row.reason}


def _doing(row: WorkerRow) -> str:
    return "" if row.number is None else f"{row.number} of campaign {row.campaign_id}"


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"
