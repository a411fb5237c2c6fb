"""The timetable for people: what is due when, and how it went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from entryfuzz.database import opened
from entryfuzz.errors import Mistake

if TYPE_CHECKING:
    from db.nightly_records import NightlyRunRow
    from workers.timetable import Entry


@dataclass(frozen=True, slots=True)
class Due:
    """A job of the timetable, when it is due next, and its last run, if there was one."""

    entry: Entry
    next_due: datetime
    last: NightlyRunRow | None


def timetable(config: Path) -> tuple[Entry, ...]:
    """The jobs of a timetable."""
    from workers.nightly import OPTIONS
    from workers.timetable import read_timetable

    return read_timetable(config, OPTIONS)


def list_due(database: str, config: Path) -> list[Due]:
    """Every job of the timetable, in its order."""
    from db.nightly import runs

    now = datetime.now(UTC)
    entries = timetable(config)
    with opened(database) as engine:
        return [Due(entry, entry.next_due(now), next(iter(runs(engine, entry.name, limit=1)), None)) for entry in entries]


def run_now(database: str, config: Path, name: str) -> NightlyRunRow:
    """Plan a job now, though it is not due; Mistake if the timetable has none of that name."""
    from db.engine import open_database
    from workers.nightly import begin_now

    entries = {entry.name: entry for entry in timetable(config)}
    if name not in entries:
        raise Mistake(f'{config}: there is no [[nightly]] named "{name}"; known: {", ".join(entries) or "none"}')
    engine = open_database(database)
    try:
        run = begin_now(engine, entries[name])
    finally:
        engine.dispose()
    if run is None:
        raise Mistake(f"{name}: somebody began it at this very moment; see entryfuzz nightly history")
    return run


def history(database: str, name: str | None, limit: int | None) -> Sequence[NightlyRunRow]:
    """The runs of one job or of all, newest first."""
    from db.nightly import runs

    with opened(database) as engine:
        return runs(engine, name, limit=limit)
