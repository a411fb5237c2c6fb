"""Sweeps: what is written of them and what is read. Each function is one short transaction and may be called again."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, Select, insert, select

from db.models import Campaign, Sweep, SweepPath
from db.queries import campaign_row
from db.records import NewCampaign
from db.store import insert_new, put_campaign, put_slice
from db.sweep_records import PathFound, SweepRow, SweptPath
from db.transactions import reading, writing


def start_sweep(engine: Engine, new: NewCampaign, key: str, paths: int, *, at: datetime | None = None) -> SweepRow:
    """The unfinished sweep with this key, or a new one that begins now (or at `at`)."""
    unfinished = _sweeps().where(Sweep.key == key, Campaign.finished_at.is_(None)).order_by(Sweep.id.desc()).limit(1)
    with writing(engine) as connection:
        known = connection.execute(unfinished).one_or_none()
        if known is None:
            campaign = put_campaign(connection, new, at or datetime.now(UTC))
            put_sweep(connection, campaign, key, paths)
            known = connection.execute(unfinished).one()
        return _row(known)


def save_path(engine: Engine, row: SweepRow, result: PathFound, *, at: datetime | None = None) -> None:
    """Store a path and all that was found on it, whole or not at all; one that is stored already changes nothing."""
    with writing(engine) as connection:
        put_path(connection, row.campaign.id, result, at or datetime.now(UTC))


def put_path(connection: Connection, campaign_id: int, result: PathFound, at: datetime) -> None:
    """The same within a transaction, for the sweep of this campaign."""
    put_slice(connection, campaign_id, result.found, at)
    sweep_id = connection.execute(select(Sweep.id).where(Sweep.campaign_id == campaign_id)).scalar_one()
    path = asdict(result.path) | {"sweep_id": sweep_id, "cells": dict(result.path.cells)}
    connection.execute(insert_new(connection, SweepPath).values(path))


def put_sweep(connection: Connection, campaign_id: int, key: str, paths: int) -> None:
    """Make a campaign the sweep with this key, within a transaction."""
    connection.execute(insert(Sweep).values(campaign_id=campaign_id, key=key, paths=paths))


def sweep(engine: Engine, sweep_id: int | None = None) -> SweepRow | None:
    """The sweep of this number, or the newest; None without one."""
    query = _sweeps().order_by(Sweep.id.desc()).limit(1)
    if sweep_id is not None:
        query = query.where(Sweep.id == sweep_id)
    with reading(engine) as connection:
        found = connection.execute(query).one_or_none()
    return None if found is None else _row(found)


def swept_paths(engine: Engine, sweep_id: int, *, scenario: str | None = None, profile: str | None = None) -> list[SweptPath]:
    """The stored paths of a sweep that fit what is asked for, by number."""
    columns = [column for column in SweepPath.__table__.columns if column.name != "sweep_id"]
    query = select(*columns).where(SweepPath.sweep_id == sweep_id).order_by(SweepPath.number)
    if scenario is not None:
        query = query.where(SweepPath.scenario == scenario)
    if profile is not None:
        query = query.where(SweepPath.profile == profile)
    with reading(engine) as connection:
        return [SweptPath(**row._mapping) for row in connection.execute(query)]


_OWN = [column.label(f"sweep_{column.name}") for column in Sweep.__table__.columns]


def _sweeps() -> Select[Any]:
    return select(*_OWN, *Campaign.__table__.columns).join(Campaign, Sweep.campaign_id == Campaign.id)


def _row(row: Row[Any]) -> SweepRow:
    return SweepRow(row.sweep_id, campaign_row(row), row.sweep_key, row.sweep_paths)
