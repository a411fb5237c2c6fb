"""The timetable as data: `entryfuzz.toml` read and checked, and when its jobs are due. All times are UTC."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cronsim import CronSim, CronSimError

_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_OWN_KEYS = ("name", "at", "job")

Check = Callable[[Any], str]
"""What is wrong with a value, as the end of a sentence; empty if nothing is."""


class TimetableError(Exception):
    """A mistake in a timetable: the file, the table and the key, in one line."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A job of the timetable: when it is due, what it does, and with which options, those left out included."""

    name: str
    at: str
    job: str
    options: Mapping[str, Any]

    def last_due(self, now: datetime) -> datetime:
        """The last time at which it was due, now included."""
        # Backwards begins before the moment that it is given.
        return next(CronSim(_cron(self.at), now.astimezone(UTC) + timedelta(microseconds=1), reverse=True))

    def next_due(self, now: datetime) -> datetime:
        """The first time after now at which it is due."""
        return next(CronSim(_cron(self.at), now.astimezone(UTC)))


@dataclass(frozen=True, slots=True)
class Option:
    """A key that a job takes: what a value has to be, and what it is where nobody gave one."""

    check: Check
    default: Any = None


def read_timetable(file: Path, jobs: Mapping[str, Mapping[str, Option]]) -> tuple[Entry, ...]:
    """The jobs of a timetable, in its order; `jobs` are the options of each job there is. TimetableError for whatever is wrong with it."""
    try:
        whole = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise TimetableError(f"{file}: {error.strerror}; write one (docs/nightly.md), or name another with --config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TimetableError(f"{file}: not TOML: {error}") from None
    tables = whole.pop("nightly", [])
    if whole:
        raise TimetableError(f"{file}: {next(iter(whole))}: no such table; there is [[nightly]]")
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise TimetableError(f"{file}: nightly: write a table [[nightly]], in two brackets, for each job")
    entries: dict[str, Entry] = {}
    for number, table in enumerate(tables, start=1):
        entry = _entry(f"{file}: [[nightly]] {number}", table, jobs)
        if entry.name in entries:
            raise TimetableError(f'{file}: [[nightly]] {number}: name: there is a job "{entry.name}" already')
        entries[entry.name] = entry
    return tuple(entries.values())


def _entry(place: str, table: Mapping[str, Any], jobs: Mapping[str, Mapping[str, Option]]) -> Entry:
    for key, check in {"name": _is_name, "at": _is_time, "job": one_of(jobs)}.items():
        if key not in table:
            raise TimetableError(f"{place}: {key}: is missing; a job has a name, a time (at) and says what to do (job)")
        _refuse(place, key, table[key], check)
    options = jobs[table["job"]]
    for key, value in table.items():
        if key in _OWN_KEYS:
            continue
        if key not in options:
            raise TimetableError(f"{place}: {key}: the job {table['job']} has no such option; known: {', '.join(options) or 'none'}")
        _refuse(place, key, value, options[key].check)
    given = {key: table.get(key, option.default) for key, option in options.items()}
    return Entry(table["name"], table["at"], table["job"], given)


def _refuse(place: str, key: str, value: Any, check: Check) -> None:
    wrong = check(value)
    if wrong:
        raise TimetableError(f"{place}: {key}: {wrong}")


def _is_name(value: Any) -> str:
    if isinstance(value, str) and _NAME.fullmatch(value):
        return ""
    return f"{value!r} is no name; write small letters, digits, dots and dashes"


def _is_time(value: Any) -> str:
    try:
        if isinstance(value, str):
            next(CronSim(_cron(value), datetime(2000, 1, 1, tzinfo=UTC)))
            return ""
    except (CronSimError, StopIteration):
        pass
    return f'{value!r} is no time; write "02:00", or a cron expression of five fields, in UTC'


def _cron(at: str) -> str:
    clock = _CLOCK.fullmatch(at)
    if clock is None and len(at.split()) != 5:
        raise CronSimError("not five fields")
    return f"{int(clock[2])} {int(clock[1])} * * *" if clock else at


def one_of(known: Collection[str]) -> Check:
    """A check for one of some names."""

    def check(value: Any) -> str:
        return "" if isinstance(value, str) and value in known else f"there is no {value!r}; known: {', '.join(known)}"

    return check


def some_of(known: Callable[[], Collection[str]]) -> Check:
    """A check for a list of some names, which are asked for when a value is checked."""

    def check(value: Any) -> str:
        if not isinstance(value, list) or not value:
            return f"{value!r} is no list of names; write [{', '.join(repr(name) for name in list(known())[:2])}]"
        return next(filter(None, map(one_of(known()), value)), "")

    return check


def number(least: float, *, whole: bool = True) -> Check:
    """A check for a number that is not below `least`."""

    def check(value: Any) -> str:
        right = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        return "" if right and value >= least else f"{value!r} is no {'whole ' if whole else ''}number from {least:g} on"

    return check
