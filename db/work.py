"""Planned work: who may do which slice, fenced by the number of the attempt (docs/decisions/0009).

Each function is one short transaction. A slice goes from `waiting` to `leased` and from there to `done`, back to `waiting`, or, after
too many attempts, to `failed`; `done` and `failed` are for ever.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, CursorResult, Engine, Select, Update, case, delete, func, literal, select, update

from db.models import Campaign, PlannedSlice, Worker
from db.queries import campaign_row
from db.records import NewCampaign, SliceResult
from db.store import insert_new, put_campaign, put_slice
from db.transactions import reading, writing
from db.work_records import Claim, Held, Measured, NewWork, OpenCampaign, PlannedRow

WAITING, LEASED, DONE, FAILED = STATES = ("waiting", "leased", "done", "failed")
MOST_ATTEMPTS = 5
_COLUMNS = tuple(PlannedSlice.__table__.columns)
R = TypeVar("R", bound=Measured)
Put = Callable[[Connection, int, R, datetime], None]
"""Stores a result of a campaign's slice within a transaction, as of a moment; again, it changes nothing."""


class StaleAttempt(Exception):
    """Somebody else has claimed the slice since, or it has ended: what this attempt has to say is refused, whole."""


def start_planned(engine: Engine, new: NewCampaign, works: Iterable[NewWork], *, at: datetime | None = None) -> int:
    """Store a campaign together with its first slices and return its number."""
    with writing(engine) as connection:
        return put_planned(connection, new, works, at or datetime.now(UTC))


def put_planned(connection: Connection, new: NewCampaign, works: Iterable[NewWork], at: datetime) -> int:
    """The same within a transaction."""
    campaign = put_campaign(connection, new, at)
    _put_works(connection, campaign, works, at)
    return campaign


def plan(engine: Engine, campaign_id: int, works: Iterable[NewWork], *, at: datetime | None = None) -> None:
    """Add slices to a campaign; a number that is planned already stays as it is."""
    with writing(engine) as connection:
        _put_works(connection, campaign_id, works, at or datetime.now(UTC))


def withdraw(engine: Engine, campaign_id: int) -> int:
    """Take back every slice of a campaign that nobody has begun, and return how many."""
    waiting = (PlannedSlice.campaign_id == campaign_id, PlannedSlice.state == WAITING)
    with writing(engine) as connection:
        return connection.execute(delete(PlannedSlice).where(*waiting)).rowcount


def claim(engine: Engine, campaign_id: int, number: int, worker: str, seconds: float, *, at: datetime | None = None) -> Claim | None:
    """Lease a waiting slice to a worker for some seconds, as a new attempt; None if it does not wait."""
    now = at or datetime.now(UTC)
    taking = (
        update(PlannedSlice)
        .where(PlannedSlice.campaign_id == campaign_id, PlannedSlice.number == number, PlannedSlice.state == WAITING)
        .values(state=LEASED, attempt=PlannedSlice.attempt + 1, worker=worker, lease_until=now + timedelta(seconds=seconds), changed_at=now)
        .returning(PlannedSlice.attempt, PlannedSlice.mode, PlannedSlice.arguments)
    )
    with writing(engine) as connection:
        row = connection.execute(taking).one_or_none()
        if row is None:
            return None
        connection.execute(_of_worker(worker).values(seen_at=now, campaign_id=campaign_id, number=number))
    return Claim(Held(campaign_id, number, row.attempt, worker), row.mode, row.arguments)


def renew(engine: Engine, held: Held, seconds: float, *, at: datetime | None = None) -> None:
    """Lease the slice for some seconds from now on; StaleAttempt if somebody else has it."""
    now = at or datetime.now(UTC)
    with writing(engine) as connection:
        values = {"state": LEASED, "worker": held.worker, "lease_until": now + timedelta(seconds=seconds)}
        _refuse_stale(held, connection.execute(_by(held).values(values)))
        connection.execute(_of_worker(held.worker).values(seen_at=now, campaign_id=held.campaign_id, number=held.number))


def finish(engine: Engine, held: Held, result: SliceResult, *, at: datetime | None = None) -> None:
    """`finish_with` for the result of a slice of cases."""
    finish_with(engine, held, result, put_slice, at=at)


def finish_with(engine: Engine, held: Held, result: R, put: Put[R], *, at: datetime | None = None) -> None:
    """Store what the slice found, by `put`, and call it done, both or neither; StaleAttempt if somebody else has it.

    Called again by the same attempt, whose first call was heard and the answer lost, it changes nothing.
    """
    if result.number != held.number:
        raise ValueError(f"{held}: the result is of slice {result.number}")
    now = at or datetime.now(UTC)
    with writing(engine) as connection:
        values = {"state": DONE, "worker": held.worker, "lease_until": None, "reason": None, "changed_at": now}
        changed = connection.execute(_by(held).values(values))
        if changed.rowcount == 0 and _was_done_by(connection, held):
            return
        _refuse_stale(held, changed)
        put(connection, held.campaign_id, result, now)
        idle = {"seen_at": now, "cases": Worker.cases + result.cases, "campaign_id": None, "number": None}
        connection.execute(_of_worker(held.worker).values(idle))


def give_up(engine: Engine, held: Held, reason: str, *, most: int = MOST_ATTEMPTS, at: datetime | None = None) -> None:
    """Give the slice back with the reason: it waits again, or has failed if this was attempt number `most`; StaleAttempt as above."""
    now = at or datetime.now(UTC)
    with writing(engine) as connection:
        _refuse_stale(held, connection.execute(_by(held).values(_given_back(literal(reason), most, now))))
        connection.execute(_of_worker(held.worker).values(seen_at=now, campaign_id=None, number=None))


def expire(engine: Engine, *, most: int = MOST_ATTEMPTS, at: datetime | None = None) -> list[PlannedRow]:
    """Give back every slice whose lease has run out, and return them as they are now."""
    now = at or datetime.now(UTC)
    reason = literal("the lease ran out in the hands of worker ") + func.coalesce(PlannedSlice.worker, "?")
    statement = (
        update(PlannedSlice)
        .where(PlannedSlice.state == LEASED, PlannedSlice.lease_until < now)
        .values(_given_back(reason, most, now))
        .returning(*_COLUMNS)
    )
    with writing(engine) as connection:
        rows = [PlannedRow(**row._mapping) for row in connection.execute(statement)]
    return sorted(rows, key=lambda row: (row.campaign_id, row.number))


def planned(engine: Engine, campaign_id: int | None = None, *, state: str | None = None, limit: int | None = None) -> list[PlannedRow]:
    """The planned slices that fit, low numbers first, so that campaigns take turns."""
    query = select(*_COLUMNS).order_by(PlannedSlice.number, PlannedSlice.campaign_id).limit(limit)
    if campaign_id is not None:
        query = query.where(PlannedSlice.campaign_id == campaign_id)
    if state is not None:
        query = query.where(PlannedSlice.state == state)
    with reading(engine) as connection:
        return [PlannedRow(**row._mapping) for row in connection.execute(query)]


def open_campaigns(engine: Engine) -> list[OpenCampaign]:
    """The unfinished campaigns that have planned slices, by number."""
    mine = PlannedSlice.campaign_id == Campaign.id
    last = select(func.max(PlannedSlice.number)).where(mine).scalar_subquery().label("last")
    waiting = _count(mine, [WAITING]).label("waiting")
    unfinished = _count(mine, [WAITING, LEASED]).label("unfinished")
    planned_at_all = select(PlannedSlice.number).where(mine).exists()
    query: Select[Any] = (
        select(*Campaign.__table__.columns, last, waiting, unfinished)
        .where(Campaign.finished_at.is_(None), planned_at_all)
        .order_by(Campaign.id)
    )
    with reading(engine) as connection:
        rows = connection.execute(query).all()
    return [OpenCampaign(campaign_row(row), row.last + 1, row.waiting, row.unfinished) for row in rows]


def _count(mine: ColumnElement[bool], states: Sequence[str]) -> Any:
    return select(func.count()).select_from(PlannedSlice).where(mine, PlannedSlice.state.in_(states)).scalar_subquery()


def _put_works(connection: Connection, campaign: int, works: Iterable[NewWork], at: datetime) -> None:
    fresh = {"campaign_id": campaign, "state": WAITING, "attempt": 0, "changed_at": at}
    rows = [fresh | {"number": work.number, "mode": work.mode, "arguments": dict(work.arguments)} for work in works]
    if rows:
        connection.execute(insert_new(connection, PlannedSlice), rows)


def _by(held: Held) -> Update:
    """An update that finds the slice only while the attempt is the last one: a lease that ran out harms nobody until the next claim."""
    return update(PlannedSlice).where(
        PlannedSlice.campaign_id == held.campaign_id,
        PlannedSlice.number == held.number,
        PlannedSlice.attempt == held.attempt,
        PlannedSlice.state.in_([LEASED, WAITING]),
    )


def _given_back(reason: ColumnElement[str], most: int, at: datetime) -> dict[str, Any]:
    state = case((PlannedSlice.attempt >= most, FAILED), else_=WAITING)
    return {"state": state, "lease_until": None, "reason": reason, "changed_at": at}


def _was_done_by(connection: Connection, held: Held) -> bool:
    found = select(PlannedSlice.number).where(
        PlannedSlice.campaign_id == held.campaign_id,
        PlannedSlice.number == held.number,
        PlannedSlice.attempt == held.attempt,
        PlannedSlice.state == DONE,
    )
    return connection.execute(found).one_or_none() is not None


def _refuse_stale(held: Held, changed: CursorResult[Any]) -> None:
    if changed.rowcount == 0:
        raise StaleAttempt(f"{held}: refused; the slice has ended or was given to another worker")


def _of_worker(name: str) -> Update:
    return update(Worker).where(Worker.name == name)
