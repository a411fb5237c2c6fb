"""The timetable and its runs. All times are UTC."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.table import Table

from entryfuzz.views.listings import table

if TYPE_CHECKING:
    from db.nightly_records import NightlyRunRow
    from entryfuzz.nightly import Due


def timetable(rows: Iterable[Due]) -> Table:
    """A line for each job."""
    result = table("name", "job", "at", "next due (UTC)", "last run", "outcome")
    for row in rows:
        last = row.last
        result.add_row(
            row.entry.name,
            row.entry.job,
            row.entry.at,
            _moment(row.next_due),
            _moment(last.started_at) if last else "-",
            _outcome(last) if last else "-",
        )
    return result


def timetable_json(row: Due) -> dict[str, Any]:
    """A job for programs."""
    entry = row.entry
    return {
        "name": entry.name,
        "job": entry.job,
        "at": entry.at,
        "options": dict(entry.options),
        "next_due": row.next_due.isoformat(),
        "last_run": run_json(row.last) if row.last else None,
    }


def runs(rows: Iterable[NightlyRunRow]) -> Table:
    """A line for each run."""
    result = table("name", "job", "due (UTC)", "started", "finished", "campaigns", "outcome")
    for row in rows:
        finished = _moment(row.finished_at) if row.finished_at else "-"
        campaigns = ", ".join(map(str, row.campaigns)) or "-"
        result.add_row(row.name, row.job, _moment(row.due_at), _moment(row.started_at), finished, campaigns, _outcome(row))
    return result


def run_json(row: NightlyRunRow) -> dict[str, Any]:
    """A run for programs."""
    return {
        "name": row.name,
        "job": row.job,
        "due_at": row.due_at.isoformat(),
        "started_at": row.started_at.isoformat(),
        "finished_at": row.finished_at.isoformat() if row.finished_at else None,
        "outcome": row.outcome,
        "campaigns": list(row.campaigns),
    }


def _outcome(row: NightlyRunRow) -> str:
    return "running" if row.outcome is None else row.outcome


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M}"
