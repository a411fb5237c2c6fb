"""A vote with its progress on stderr, and the buckets that somebody named."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from entryfuzz.database import opened
from entryfuzz.errors import Mistake
from entryfuzz.output import console, note

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from db.records import BucketRow
    from db.vote_records import NewVerdict

_SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True, slots=True)
class Voted:
    """A bucket with the verdict on it, None where there was nothing to vote on: a broken contract, an engine that is not here."""

    bucket: BucketRow
    verdict: NewVerdict | None


def vote_with_progress(ids: Sequence[str], all_open: bool, database: str, jobs: int) -> list[Voted]:
    """Vote on the named buckets, or on all that are open; Mistake where one is not there."""
    from workers.voting import VoteSettings, run_votes, voters

    with opened(database) as engine:
        buckets = _named(engine, ids, all_open, database)
        cores = voters()
        note(f"{len(buckets)} buckets, engines: the specification, {', '.join(cores)}")
        found: dict[str, NewVerdict] = {}
        with _Progress(len(buckets)) as progress:

            def keep(verdict: NewVerdict) -> None:
                found[verdict.bucket_id] = verdict
                progress.tell(len(found))

            run_votes(engine, VoteSettings(buckets, cores, jobs), keep)
    return [Voted(bucket, found.get(bucket.id)) for bucket in buckets]


def _named(engine: Engine, ids: Sequence[str], all_open: bool, database: str) -> list[BucketRow]:
    from db import queries
    from db.life_records import Status

    if all_open:
        return [row for status in (Status.OPEN, Status.REGRESSED) for row in queries.buckets(engine, status=status)]
    rows = {}
    for each in ids:
        row = queries.bucket(engine, each)
        if row is None:
            raise Mistake(f"{each}: no bucket of {database} begins like this; see entryfuzz divergences list --db {database}")
        rows[row.id] = row
    return list(rows.values())


class _Progress:
    """How far the vote is: a line that changes on a terminal, a line now and then elsewhere."""

    def __init__(self, of: int) -> None:
        self._of = of
        self._status = console(error=True).status("starting") if sys.stderr.isatty() else None
        self._next = time.monotonic() + _SECONDS_BETWEEN_LINES

    def __enter__(self) -> _Progress:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._status is not None:
            self._status.stop()

    def tell(self, done: int) -> None:
        """Show how many have been voted on."""
        line = f"{done} of {self._of} buckets"
        if self._status is not None:
            self._status.update(line)
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + _SECONDS_BETWEEN_LINES
            note(line)
