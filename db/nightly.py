"""Runs of the timetable: each due time of a job is begun once, whoever asks, and ends with its campaigns."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, insert, select, update

from db.models import Campaign, NightlyCampaign, NightlyRun, PlannedSlice
from db.nightly_records import Begun, NightlyRunRow
from db.store import insert_new
from db.transactions import reading, writing

Begin = Callable[[Connection, datetime], Begun]
"""Plans what a run has to do, within the transaction that begins it, as of a moment."""


def begin_run(
    engine: Engine, name: str, job: str, due_at: datetime, begin: Begin, *, beside: bool = False, at: datetime | None = None
) -> NightlyRunRow | None:
    """Begin the run of a job that was due at a moment, all of it or nothing; None if somebody has begun it already.

    While the run before is not finished the new one is skipped, which is its outcome, unless it may run `beside` that.
    """
    now = at or datetime.now(UTC)
    row = {"name": name, "job": job, "due_at": due_at, "started_at": now}
    with writing(engine) as connection:
        # A second scheduler waits here until the first one has committed or failed.
        run_id = connection.execute(insert_new(connection, NightlyRun).values(row).returning(NightlyRun.id)).scalar()
        if run_id is None:
            return None
        busy = None if beside else _unfinished(connection, name, run_id)
        begun = begin(connection, now) if busy is None else Begun(outcome=f"skipped: the run of {busy:%Y-%m-%d %H:%M} UTC is not finished")
        if begun.campaigns:
            connection.execute(insert(NightlyCampaign), [{"campaign_id": each, "run_id": run_id} for each in begun.campaigns])
        if begun.outcome is not None:
            ended = {"finished_at": now, "outcome": begun.outcome}
            connection.execute(update(NightlyRun).where(NightlyRun.id == run_id).values(ended))
        return _rows(connection, NightlyRun.id == run_id)[0]


def _unfinished(connection: Connection, name: str, but: int) -> datetime | None:
    """The due time of a run of that name that goes on, other than `but`."""
    going = select(func.min(NightlyRun.due_at)).where(NightlyRun.name == name, NightlyRun.finished_at.is_(None), NightlyRun.id != but)
    return connection.execute(going).scalar()


def end_runs(engine: Engine, *, at: datetime | None = None) -> list[NightlyRunRow]:
    """End every run whose campaigns are all finished, and return those."""
    now = at or datetime.now(UTC)
    mine = select(NightlyCampaign.campaign_id).where(NightlyCampaign.run_id == NightlyRun.id)
    running = mine.join(Campaign, Campaign.id == NightlyCampaign.campaign_id).where(Campaign.finished_at.is_(None))
    ready = select(NightlyRun.id).where(NightlyRun.finished_at.is_(None), ~running.exists())
    with reading(engine) as connection:
        ids = connection.execute(ready.order_by(NightlyRun.id)).scalars().all()
    if not ids:
        return []
    with writing(engine) as connection:
        for run_id in ids:
            ended = {"finished_at": now, "outcome": _outcome(connection, run_id)}
            connection.execute(update(NightlyRun).where(NightlyRun.id == run_id, NightlyRun.finished_at.is_(None)).values(ended))
        return _rows(connection, NightlyRun.id.in_(ids))


def _outcome(connection: Connection, run_id: int) -> str:
    """How many slices were done, and how many failed."""
    counted = (
        select(PlannedSlice.state, func.count())
        .join(NightlyCampaign, NightlyCampaign.campaign_id == PlannedSlice.campaign_id)
        .where(NightlyCampaign.run_id == run_id)
        .group_by(PlannedSlice.state)
    )
    states = dict(connection.execute(counted).all())
    failed = states.get("failed", 0)
    return f"{states.get('done', 0)} slices done" + (f", {failed} failed" if failed else "")


def has_begun(engine: Engine, name: str, due_at: datetime) -> bool:
    """Whether the run of a job that was due at a moment has been begun."""
    with reading(engine) as connection:
        return connection.execute(select(NightlyRun.id).where(NightlyRun.name == name, NightlyRun.due_at == due_at)).scalar() is not None


def runs(engine: Engine, name: str | None = None, *, limit: int | None = None) -> list[NightlyRunRow]:
    """The runs, newest first: of one job, or of all."""
    with reading(engine) as connection:
        return _rows(connection, *([] if name is None else [NightlyRun.name == name]), limit=limit)


def _rows(connection: Connection, *conditions: Any, limit: int | None = None) -> list[NightlyRunRow]:
    order = (NightlyRun.due_at.desc(), NightlyRun.id.desc())
    found = connection.execute(select(*NightlyRun.__table__.columns).where(*conditions).order_by(*order).limit(limit)).all()
    ids = [row.id for row in found]
    pairs = select(NightlyCampaign.run_id, NightlyCampaign.campaign_id).where(NightlyCampaign.run_id.in_(ids))
    campaigns: dict[int, list[int]] = {}
    for run_id, campaign in connection.execute(pairs.order_by(NightlyCampaign.campaign_id)):
        campaigns.setdefault(run_id, []).append(campaign)
    return [_row(row, campaigns.get(row.id, [])) for row in found]


def _row(row: Row[Any], campaigns: list[int]) -> NightlyRunRow:
    return NightlyRunRow(**row._mapping, campaigns=tuple(campaigns))
