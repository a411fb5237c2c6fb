"""A job: from the claim to the store, and what becomes of the slice when something fails on the way."""

from __future__ import annotations

import errno
import importlib
import logging
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cluster_builders import PROFILES, SEED, a_cluster_campaign
from servers import Server
from sqlalchemy import Engine

import workers.jobs
import workers.modes
import workers.pool
from db import work
from db.cluster import see_worker, status
from db.corpus import corpus
from db.engine import open_database
from db.errors import DatabaseError
from db.queries import buckets, campaign_buckets, campaign_totals, campaigns
from db.records import NewCampaign
from db.work_records import Claim, Held, Measured, NewWork
from workers.jobs import LeaseLost, Site, run_slice
from workers.local import Settings, run_campaign
from workers.modes import merge_arguments
from workers.report import Report
from workers.spool import store_kept

HERE = Path(__file__).parent
CLAIM = work.claim


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return open_database(str(tmp_path / "results.db"))


@pytest.fixture
def site(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Site:
    caplog.set_level(logging.INFO)
    return Site(str(tmp_path / "results.db"), tmp_path / "spool", "one", lease=60.0)


def states(engine: Engine) -> list[tuple[str, int]]:
    return [(row.state, row.attempt) for row in work.planned(engine)]


def test_the_jobs_of_a_campaign_find_what_the_local_campaign_finds(engine: Engine, site: Site, tmp_path: Path) -> None:
    campaign = a_cluster_campaign(engine, cases=100, slice_cases=40)
    see_worker(engine, "one", datetime.now(UTC))

    for number in (2, 0, 1):
        run_slice(site, campaign, number)

    local = run_campaign(Settings(("snippets",), ("unicorn",), SEED, 100, None, 1, PROFILES, str(tmp_path / "local.db")))
    assert states(engine) == [("done", 1)] * 3
    assert {row.id: row.hits for row in campaign_buckets(engine, campaign)} == {row.id: row.hits for row in local.buckets}
    assert status(engine).workers[0].cases == 100


def test_guided_slices_share_a_corpus_and_a_merge_makes_it_smaller(engine: Engine, site: Site) -> None:
    arguments = {"cases": 600, "cores": ["unicorn"], "mode": "guided"}
    campaign = a_cluster_campaign(engine, cases=600, slice_cases=300, arguments=arguments)

    run_slice(site, campaign, 0)
    first = {row.digest for row in corpus(engine, "snippets")}
    run_slice(site, campaign, 1)
    both = {row.digest for row in corpus(engine, "snippets")}
    merge = work.start_planned(engine, a_campaign_row(engine, campaign), [merge_arguments(0, "snippets", ("unicorn",))])
    run_slice(site, merge, 0)

    assert states(engine) == [("done", 1)] * 3
    assert first < both
    assert 0 < len(corpus(engine, "snippets")) < len(both)
    assert campaign_totals(engine, campaign).cases == 600
    assert campaign_buckets(engine, campaign)


def a_campaign_row(engine: Engine, campaign: int) -> NewCampaign:
    """Another campaign like that one."""
    row = next(each for each in campaigns(engine) if each.id == campaign)
    return NewCampaign(row.targets, row.core, row.core_version, row.profiles, row.seed, row.slice_cases, row.arguments)


def test_a_job_whose_slice_is_done_does_nothing(engine: Engine, site: Site) -> None:
    campaign = a_cluster_campaign(engine, cases=10)

    run_slice(site, campaign, 0)
    before = [(row.id, row.hits) for row in buckets(engine)]
    run_slice(site, campaign, 0)

    assert [(row.id, row.hits) for row in buckets(engine)] == before
    assert states(engine) == [("done", 1)]


@pytest.mark.parametrize(
    ("broken", "core"),
    [
        pytest.param({"arguments": {"cases": 10, "cores": ["no-such-core"]}}, "no-such-core", id="core"),
        pytest.param({"targets": ("no-such-target",)}, "unicorn", id="target"),
    ],
)
def test_a_slice_that_cannot_be_run_is_given_back_with_the_reason(engine: Engine, site: Site, broken: dict[str, object], core: str) -> None:
    campaign = a_cluster_campaign(engine, **{"cases": 10, **broken})

    run_slice(site, campaign, 0)

    (row,) = work.planned(engine)
    assert (row.state, row.attempt) == ("waiting", 1)
    assert row.reason is not None
    assert row.reason.startswith(f"CoreError: {core}: their process ended outside any case")


def test_an_unknown_mode_is_given_back_with_the_modes_there_are(engine: Engine, site: Site) -> None:
    campaign = a_cluster_campaign(engine, cases=10)
    work.plan(engine, campaign, [NewWork(7, "dreamt", {})])

    run_slice(site, campaign, 7)

    known = "random, guided, sweep, replay, corpus-merge"
    assert work.planned(engine)[-1].reason == f"UnknownMode: no mode dreamt; this program knows {known}: update the worker"


def test_a_bug_of_ours_is_raised_and_the_slice_given_back(engine: Engine, site: Site) -> None:
    campaign = a_cluster_campaign(engine, cases=10)
    work.plan(engine, campaign, [NewWork(7, "random", {})])

    with pytest.raises(KeyError):
        run_slice(site, campaign, 7)

    row = work.planned(engine)[-1]
    assert (row.state, row.reason) == ("waiting", "KeyError: 'target'")


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setattr(workers.pool, "serve", importlib.import_module("dying_core").serve)
    return "dying"


@pytest.mark.parametrize(("death", "kind"), [("crash", "crash"), ("hang", "hang")])
def test_a_case_that_takes_its_engine_with_it_is_found_and_the_slice_is_done_in_the_first_attempt(
    engine: Engine, site: Site, dying: str, monkeypatch: pytest.MonkeyPatch, death: str, kind: str
) -> None:
    monkeypatch.setenv("ENTRYFUZZ_TEST_DEATH", death)
    monkeypatch.setattr(workers.pool, "HANG_SECONDS", 3.0)
    campaign = a_cluster_campaign(engine, slice_cases=8, arguments={"cases": 8, "cores": [dying]})

    run_slice(site, campaign, 0)

    assert states(engine) == [("done", 1)]
    assert kind in {row.kind for row in buckets(engine)}


# What happens while the slice runs


def during(monkeypatch: pytest.MonkeyPatch, happens: object) -> None:
    """Let something happen after the claim and before the result."""
    result = workers.jobs._result

    def interrupted(site: Site, engine: Engine, claim: Claim) -> Measured:
        found = result(site, engine, claim)
        happens(engine, claim.held)  # type: ignore[operator]
        return found

    monkeypatch.setattr(workers.jobs, "_result", interrupted)


def taken_by_another(engine: Engine, held: Held) -> None:
    work.expire(engine, at=datetime.now(UTC) + timedelta(hours=1))
    assert CLAIM(engine, held.campaign_id, held.number, "two", 60) is not None


def test_a_slice_that_another_worker_has_by_now_is_not_stored(
    engine: Engine, site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    campaign = a_cluster_campaign(engine, cases=10)
    during(monkeypatch, taken_by_another)

    run_slice(site, campaign, 0)

    assert "attempt 1: refused" in caplog.text
    assert (states(engine), buckets(engine)) == ([("leased", 2)], [])


def test_a_worker_that_lost_its_slice_stops_running_it(engine: Engine, site: Site, caplog: pytest.LogCaptureFixture) -> None:
    campaign = a_cluster_campaign(engine, cases=10**6, slice_cases=10**6)

    def claim_and_lose(*arguments: object) -> Claim | None:
        claim = CLAIM(*arguments)  # type: ignore[arg-type]
        assert claim is not None
        taken_by_another(engine, claim.held)
        return claim

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "claim", claim_and_lose)
        patch.setattr(workers.jobs, "RENEWALS", 60)
        run_slice(site, campaign, 0)

    assert "stopped: slice 0 of campaign 1, attempt 1: refused" in caplog.text
    assert buckets(engine) == []


def test_a_lease_that_cannot_be_renewed_stops_the_work_before_it_runs_out(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(workers.jobs.time, "monotonic", lambda: now[0])

    def away(*arguments: object) -> None:
        raise DatabaseError("away")

    monkeypatch.setattr(work, "renew", away)
    renewal = workers.jobs._Renewal(engine, Held(1, 0, 1, "one"), 90.0)

    for now[0] in (11.0, 40.0, 74.0):
        renewal.tick()
    now[0] = 76.0
    with pytest.raises(LeaseLost, match="not renewed for 76 s"):
        renewal.tick()


def test_a_slice_that_takes_longer_than_any_may_is_stopped(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.jobs, "MOST_SECONDS", -1.0)
    with pytest.raises(workers.jobs.TooLong):
        workers.jobs._Renewal(engine, Held(1, 0, 1, "one"), 90.0).tick()


# The database is away when the slice is done


def test_an_answer_that_was_lost_is_made_good_by_the_spool_and_counts_once(
    engine: Engine, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = a_cluster_campaign(engine, cases=40)
    finish = work.finish_with

    def unheard(*arguments: object) -> None:
        finish(*arguments)  # type: ignore[arg-type]
        raise DatabaseError("the connection was lost")

    monkeypatch.setattr(work, "finish_with", unheard)
    run_slice(site, campaign, 0)
    once = [(row.id, row.hits) for row in buckets(engine)]
    assert len(list(site.spool.iterdir())) == 1

    assert store_kept(engine, site.spool) == 1

    assert once
    assert [(row.id, row.hits) for row in buckets(engine)] == once
    assert list(site.spool.iterdir()) == []


def test_a_spool_that_is_full_loses_the_run_and_not_the_slice(
    engine: Engine, site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    campaign = a_cluster_campaign(engine, cases=10)

    def away(*arguments: object) -> None:
        raise DatabaseError("away")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "finish_with", away)
        patch.setattr(os, "fsync", full)
        run_slice(site, campaign, 0)

    assert "lost, so it will be run again" in caplog.text
    assert (states(engine), buckets(engine)) == ([("leased", 1)], [])
    work.expire(engine, at=datetime.now(UTC) + timedelta(hours=1))
    run_slice(site, campaign, 0)
    assert states(engine) == [("done", 2)]


def test_a_postgresql_that_is_stopped_while_the_slice_runs_gets_the_result_when_it_is_back(
    postgres: Server, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = open_database(database)
    campaign = a_cluster_campaign(engine, cases=40)
    site = Site(database, tmp_path / "spool", "one")
    during(monkeypatch, lambda *_: postgres.stop())

    run_slice(site, campaign, 0)

    assert [file.name for file in site.spool.iterdir()] == [f"slice-{campaign}-0-1.json"]
    postgres.start()
    assert store_kept(engine, site.spool) == 1
    assert states(engine) == [("done", 1)]
    engine.dispose()


def test_whoever_counts_is_told_how_attempts_end(engine: Engine, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = a_cluster_campaign(engine, cases=80, slice_cases=40)
    told: list[Report] = []
    counted = replace(site, tell=told.append)

    run_slice(counted, campaign, 0)
    run_slice(counted, campaign, 0)
    monkeypatch.setattr(workers.modes, "MODES", {})
    run_slice(counted, campaign, 1)

    assert [report.outcome for report in told] == ["done", "taken", "given back"]
    found = campaign_buckets(engine, campaign)
    assert (told[0].cases, told[0].hits, set(told[0].buckets)) == (40, sum(row.hits for row in found), {row.id for row in found})


def test_a_result_that_has_to_be_kept_and_a_lease_that_cannot_be_renewed_are_counted(
    engine: Engine, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*arguments: object) -> None:
        raise DatabaseError("away")

    campaign = a_cluster_campaign(engine, cases=40)
    told: list[Report] = []
    monkeypatch.setattr(work, "finish_with", away)
    run_slice(replace(site, tell=told.append), campaign, 0)
    monkeypatch.setattr(work, "renew", away)
    workers.jobs._Renewal(engine, Held(1, 0, 1, "one"), 0.0, told.append)._renew(0.0)

    assert [(report.outcome, report.renewals_failed) for report in told] == [("kept", 0), (None, 1)]
