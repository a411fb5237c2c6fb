"""The job of a cluster: one attempt at one slice, from the claim to what is stored. Of Redis and its library it knows nothing."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from db import work
from db.engine import open_when_up
from db.errors import DatabaseError
from db.work import StaleAttempt
from db.work_records import Claim, Held, Measured
from fuzzer.cores.core import CoreError
from workers import spool
from workers.about import about, about_attempt
from workers.modes import UnknownMode, mode
from workers.pool import Pool
from workers.report import Report, Tell, tell_nobody

log = logging.getLogger(__name__)

LEASE_SECONDS = 90.0
"""A worker that was not heard of for so long has lost its slice."""
RENEWALS = 9
"""Renewals in the time of a lease."""
MARGIN = 6
"""This part of a lease before its end, a worker that cannot renew it stops: two clocks do not agree to the second."""
MOST_SECONDS = 3600.0
"""No slice takes this long; an attempt that does is given up."""
OUTAGE_SECONDS = 60.0
"""How long a job waits at its start for a database that is away, instead of giving the slice to the next worker, who waits as well."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a worker works: database, folder for results that cannot be stored yet, its name, the seconds of a lease, and who counts."""

    database: str
    spool: Path
    worker: str
    lease: float = LEASE_SECONDS
    tell: Tell = tell_nobody


class LeaseLost(Exception):
    """The lease could not be renewed in time: somebody else may have the slice by now."""


class TooLong(Exception):
    """The slice takes longer than any slice may."""


def run_slice(site: Site, campaign: int, number: int) -> None:
    """Claim a slice, run it and store what it finds; a slice that does not wait is left alone.

    Whatever happens, the slice is done, waits again with the reason, or stays leased until the lease runs out. Failures of the database and
    of engines are told in the log; a bug of ours is raised once the slice is given back.
    """
    with about(campaign=campaign, slice=number, worker=site.worker):
        _claim_and_run(site, campaign, number)


def _claim_and_run(site: Site, campaign: int, number: int) -> None:
    try:
        engine = open_when_up(site.database, OUTAGE_SECONDS)
    except DatabaseError as error:
        log.warning("slice %d of campaign %d: not begun: %s", number, campaign, error)
        site.tell(Report("left"))
        return
    try:
        spool.store_kept(engine, site.spool)
        claim = work.claim(engine, campaign, number, site.worker, site.lease)
        if claim is None:
            log.info("slice %d of campaign %d: somebody else has it", number, campaign)
            site.tell(Report("taken"))
        else:
            with about_attempt(claim.held):
                _run(site, engine, claim)
    except DatabaseError as error:
        log.warning("slice %d of campaign %d: waits for its lease to run out: %s", number, campaign, error)
        site.tell(Report("left"))
    finally:
        engine.dispose()


def _run(site: Site, engine: Engine, claim: Claim) -> None:
    held = claim.held
    log.info("%s: begun", held)
    try:
        result = _result(site, engine, claim)
    except (StaleAttempt, LeaseLost) as lost:
        log.warning("%s: stopped: %s", held, lost)
        site.tell(Report("stopped"))
        return
    except Exception as error:
        work.give_up(engine, held, f"{type(error).__name__}: {error}")
        site.tell(Report("given back"))
        if not isinstance(error, CoreError | TooLong | UnknownMode):
            raise
        log.error("%s: given back: %s", held, error)
        return
    _store(site, engine, claim, result)


def _result(site: Site, engine: Engine, claim: Claim) -> Measured:
    """Run the slice in a process of its own, which a case may crash or stop, and renew the lease meanwhile."""
    piece, cores = mode(claim.mode).make(engine, claim.held.number, claim.arguments)
    with Pool[Measured](1, cores) as pool:
        (result,) = pool.run(iter([piece]), _Renewal(engine, claim.held, site.lease, site.tell).tick)
    return result


def _store(site: Site, engine: Engine, claim: Claim, result: Measured) -> None:
    site.tell(mode(claim.mode).report(_stored(site, engine, claim, result), result))


def _stored(site: Site, engine: Engine, claim: Claim, result: Measured) -> str:
    """Store a result, or keep it, and say how that went."""
    held = claim.held
    try:
        work.finish_with(engine, held, result, mode(claim.mode).put)
    except StaleAttempt as refused:
        log.warning("%s", refused)
        return "refused"
    except DatabaseError as away:
        try:
            kept = spool.keep(site.spool, held, result, claim.mode)
        except OSError as full:
            log.error("%s: lost, so it will be run again: %s; and %s: %s", held, away, site.spool, full)
            return "lost"
        log.warning("%s: kept in %s: %s", held, kept, away)
        return "kept"
    log.info("%s: done, %s, %d cases", held, claim.mode, result.cases)
    return "done"


class _Renewal:
    """The lease of an attempt, renewed now and then, for as long as it can be trusted."""

    def __init__(self, engine: Engine, held: Held, lease: float, tell: Tell = tell_nobody) -> None:
        self._engine, self._held, self._lease, self._tell = engine, held, lease, tell
        self._begun = self._renewed = self._tried = time.monotonic()

    def tick(self) -> None:
        """To be called often; StaleAttempt, LeaseLost or TooLong: the work has to stop."""
        now = time.monotonic()
        if now - self._begun > MOST_SECONDS:
            raise TooLong(f"not done after {MOST_SECONDS:.0f} s")
        if now - self._tried >= self._lease / RENEWALS:
            self._tried = now
            self._renew(now)
        if time.monotonic() - self._renewed > self._lease * (1 - 1 / MARGIN):
            raise LeaseLost(f"not renewed for {time.monotonic() - self._renewed:.0f} s")

    def _renew(self, now: float) -> None:
        try:
            work.renew(self._engine, self._held, self._lease)
        except DatabaseError as error:
            log.warning("%s: lease not renewed: %s", self._held, error)
            self._tell(Report(renewals_failed=1))
        else:
            self._renewed = now
