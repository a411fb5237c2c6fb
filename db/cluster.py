"""The workers of a cluster, and how the cluster stands."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Engine, delete, func, select, update

from db.models import Bucket, Campaign, PlannedSlice, Slice, Worker
from db.store import insert_new
from db.transactions import reading, writing
from db.work import DONE, FAILED, STATES
from db.work_records import ClusterStatus, PlannedRow, WorkerRow

ALIVE_SECONDS = 60
"""A worker that was not heard of for so long is not shown."""
RATE_SECONDS = 600
"""What cases per second are measured over, or less where the workers are younger."""
NEW_HOURS = 24
FAILURES_SHOWN = 5
FORGOTTEN = timedelta(days=1)


def see_worker(engine: Engine, name: str, started_at: datetime, *, at: datetime | None = None) -> None:
    """Note that a worker is alive; one that started anew counts its cases from zero."""
    now = at or datetime.now(UTC)
    fresh = {"name": name, "started_at": started_at, "seen_at": now, "cases": 0}
    mine = update(Worker).where(Worker.name == name)
    with writing(engine) as connection:
        connection.execute(insert_new(connection, Worker).values(fresh))
        connection.execute(mine.values(seen_at=now))
        connection.execute(mine.where(Worker.started_at != started_at).values({**fresh, "campaign_id": None, "number": None}))


def forget_worker(engine: Engine, name: str) -> None:
    """Take out a worker that has ended."""
    with writing(engine) as connection:
        connection.execute(delete(Worker).where(Worker.name == name))


def forget_lost_workers(engine: Engine, *, at: datetime | None = None) -> None:
    """Take out the workers that were not heard of for a day."""
    with writing(engine) as connection:
        connection.execute(delete(Worker).where(Worker.seen_at < (at or datetime.now(UTC)) - FORGOTTEN))


def status(engine: Engine, *, at: datetime | None = None) -> ClusterStatus:
    """How the cluster stands now (or stood at `at`)."""
    now = at or datetime.now(UTC)
    with reading(engine) as connection:
        workers = _workers(connection, now)
        counted = connection.execute(select(PlannedSlice.state, func.count().label("slices")).group_by(PlannedSlice.state)).all()
        clustered = select(PlannedSlice.number).where(PlannedSlice.campaign_id == Campaign.id).exists()
        campaigns = select(func.count()).select_from(Campaign).where(Campaign.finished_at.is_(None), clustered)
        buckets = select(func.count()).select_from(Bucket)
        new = buckets.where(Bucket.first_seen >= now - timedelta(hours=NEW_HOURS))
        return ClusterStatus(
            workers=workers,
            slices=dict.fromkeys(STATES, 0) | {row.state: row.slices for row in counted},
            campaigns=connection.execute(campaigns).scalar_one(),
            cases_per_second=_rate(connection, workers, now),
            buckets=connection.execute(buckets).scalar_one(),
            new_buckets=connection.execute(new).scalar_one(),
            failures=_failures(connection),
        )


def _workers(connection: Connection, now: datetime) -> tuple[WorkerRow, ...]:
    alive = Worker.seen_at >= now - timedelta(seconds=ALIVE_SECONDS)
    query = select(*Worker.__table__.columns).where(alive).order_by(Worker.name)
    return tuple(WorkerRow(**row._mapping) for row in connection.execute(query))


def _rate(connection: Connection, workers: tuple[WorkerRow, ...], now: datetime) -> float:
    begun = max(min((worker.started_at for worker in workers), default=now), now - timedelta(seconds=RATE_SECONDS))
    same = (Slice.campaign_id == PlannedSlice.campaign_id) & (Slice.number == PlannedSlice.number)
    lately = (PlannedSlice.state == DONE) & (PlannedSlice.changed_at >= begun)
    cases = connection.execute(select(func.coalesce(func.sum(Slice.cases), 0)).join(PlannedSlice, same).where(lately)).scalar_one()
    seconds = (now - begun).total_seconds()
    return float(cases) / seconds if seconds else 0.0


def _failures(connection: Connection) -> tuple[PlannedRow, ...]:
    query = select(*PlannedSlice.__table__.columns).where(PlannedSlice.state == FAILED)
    rows = connection.execute(query.order_by(PlannedSlice.changed_at.desc(), PlannedSlice.number).limit(FAILURES_SHOWN))
    return tuple(PlannedRow(**row._mapping) for row in rows)
