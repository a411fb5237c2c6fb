"""The timetable on a real PostgreSQL and Redis: once for each due time, whatever happens to schedulers and servers."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cluster_builders import a_cluster_campaign, a_result
from redis import Redis
from rq import Queue
from servers import Server
from sqlalchemy import Engine

import workers.nightly
from db import nightly, store, work
from db.cluster import see_worker
from db.engine import open_database
from db.queries import campaign_buckets, campaigns, findings
from db.sweeps import sweep, swept_paths
from workers.growing import AHEAD
from workers.jobs import Site, run_slice
from workers.nightly import OPTIONS, begin_due, begin_now
from workers.scheduler import step
from workers.sweeping import SweepSettings, run_sweep
from workers.timetable import Entry

NIGHT = datetime(2026, 3, 4, 2, tzinfo=UTC)
NOON = NIGHT + timedelta(hours=10)
DAY = timedelta(days=1)


def entry(job: str = "fuzz", at: str = "02:00", **options: object) -> Entry:
    defaults = {name: option.default for name, option in OPTIONS[job].items()}
    return Entry(job, at, job, defaults | options)


FUZZ = entry(cases=40, slice_cases=20, targets=["snippets"])


def due(engine: Engine) -> list[datetime]:
    return [run.due_at for run in reversed(nightly.runs(engine))]


def finish_all(engine: Engine) -> None:
    for row in work.planned(engine, state="waiting"):
        claim = work.claim(engine, row.campaign_id, row.number, "one", 60)
        assert claim is not None
        work.finish(engine, claim.held, a_result(row.number))


def test_what_is_due_is_planned_once_and_ends_with_its_campaign(engine: Engine, slices: Queue) -> None:
    for minute in range(3):
        step(engine, slices, [FUZZ], at=NOON + timedelta(minutes=minute))

    (run,) = nightly.runs(engine)
    assert (run.name, run.due_at, run.started_at, run.outcome) == ("fuzz", NIGHT, NOON, None)
    assert len(slices) == len(work.planned(engine, run.campaigns[0])) == 2

    finish_all(engine)
    step(engine, slices, [FUZZ], at=NOON + timedelta(hours=1))

    (run,) = nightly.runs(engine)
    assert (run.finished_at, run.outcome) == (NOON + timedelta(hours=1), "2 slices done")


def test_of_missed_nights_the_last_one_is_made_good(engine: Engine, slices: Queue) -> None:
    step(engine, slices, [FUZZ], at=NOON)
    finish_all(engine)
    step(engine, slices, [FUZZ], at=NOON)

    step(engine, slices, [FUZZ], at=NOON + 5 * DAY)
    step(engine, slices, [FUZZ], at=NOON + 5 * DAY)

    assert due(engine) == [NIGHT, NIGHT + 5 * DAY]


def test_two_schedulers_begin_a_job_once(database: str) -> None:
    engines = [open_database(database) for _ in range(2)]
    barrier = threading.Barrier(2)
    begun: list[object] = []

    def schedule(engine: Engine) -> None:
        for day in range(10):
            barrier.wait(timeout=20)
            for run in begin_due(engine, [entry("fuzz", cases=1)], NOON + day * DAY):
                begun.append(run)
                for campaign in run.campaigns:
                    store.finish_campaign(engine, campaign)
            barrier.wait(timeout=20)
            nightly.end_runs(engine)

    both = [threading.Thread(target=schedule, args=(engine,)) for engine in engines]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()

    assert len(begun) == len(due(engines[0])) == len(campaigns(engines[0])) == 10
    for engine in engines:
        engine.dispose()


def test_a_run_that_fails_to_begin_leaves_nothing_and_is_begun_by_the_next_step(
    engine: Engine, slices: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*arguments: object) -> int:
        work.put_planned(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(workers.nightly, "put_planned", dies)
        with pytest.raises(KeyboardInterrupt):
            step(engine, slices, [FUZZ], at=NOON)
    assert (due(engine), campaigns(engine)) == ([], [])

    step(engine, slices, [FUZZ], at=NOON)

    assert due(engine) == [NIGHT]


def test_servers_that_are_restarted_and_emptied_change_nothing(
    postgres: Server, database: str, redis: Server, connection: Redis, slices: Queue
) -> None:
    engine = open_database(database)
    step(engine, slices, [FUZZ], at=NOON)
    queued = sorted(slices.get_job_ids())

    redis.stop()
    redis.start()
    assert len(slices) == 0
    postgres.stop()
    postgres.start()
    engine.dispose()
    step(engine, slices, [FUZZ], at=NOON + timedelta(hours=1))

    assert due(engine) == [NIGHT]
    assert sorted(slices.get_job_ids()) == queued
    engine.dispose()


def test_a_night_is_skipped_while_the_one_before_goes_on(engine: Engine, slices: Queue) -> None:
    for day in range(2):
        step(engine, slices, [FUZZ], at=NOON + day * DAY)

    skipped, running = nightly.runs(engine)
    assert (running.outcome, skipped.campaigns) == (None, ())
    assert skipped.outcome == "skipped: the run of 2026-03-04 02:00 UTC is not finished"


def test_a_job_that_is_asked_for_runs_beside_the_one_that_was_due(engine: Engine, slices: Queue) -> None:
    step(engine, slices, [FUZZ], at=NOON)

    run = begin_now(engine, FUZZ)

    assert run is not None
    assert len(run.campaigns) == 1
    assert len(campaigns(engine)) == 2


def test_failed_slices_are_in_the_outcome(engine: Engine, slices: Queue) -> None:
    step(engine, slices, [FUZZ], at=NOON)
    (run,) = nightly.runs(engine)
    claim = work.claim(engine, run.campaigns[0], 0, "one", 60)
    assert claim is not None
    work.give_up(engine, claim.held, "no such core", most=1)
    finish_all(engine)

    step(engine, slices, [FUZZ], at=NOON)

    assert nightly.runs(engine)[0].outcome == "1 slices done, 1 failed"


def test_hours_end_a_campaign_and_what_runs_is_finished(engine: Engine, slices: Queue) -> None:
    hours = entry(hours=2.0, targets=["snippets"])
    step(engine, slices, [hours], at=NOON)
    (campaign,) = nightly.runs(engine)[0].campaigns
    claim = work.claim(engine, campaign, 0, "one", 600, at=NOON)
    assert claim is not None
    work.renew(engine, claim.held, 10**9)
    step(engine, slices, [hours], at=NOON + timedelta(hours=1))
    assert [row.state for row in work.planned(engine, campaign)] == ["leased"] + ["waiting"] * AHEAD

    step(engine, slices, [hours], at=NOON + timedelta(hours=2))
    assert [row.state for row in work.planned(engine, campaign)] == ["leased"]
    assert nightly.runs(engine)[0].outcome is None

    work.finish(engine, claim.held, a_result())
    step(engine, slices, [hours], at=NOON + timedelta(hours=2, minutes=1))
    assert nightly.runs(engine)[0].outcome == "1 slices done"


def test_hours_in_which_nobody_began_anything_end_as_well(engine: Engine, slices: Queue) -> None:
    step(engine, slices, [entry(hours=2.0)], at=NOON)

    step(engine, slices, [entry(hours=2.0)], at=NOON + timedelta(hours=3))

    assert nightly.runs(engine)[0].outcome == "0 slices done"
    assert work.planned(engine) == []


def test_a_replay_of_nothing_and_retention_are_over_at_once(engine: Engine, slices: Queue) -> None:
    step(engine, slices, [entry("replay"), entry("retention")], at=NOON)

    outcomes = {run.name: run.outcome for run in nightly.runs(engine)}
    assert outcomes["replay"] == "nothing to do: no examples are stored"
    assert (outcomes["retention"] or "").startswith("thrown away: 0 examples, 0 cases")
    assert all(run.finished_at == NOON for run in nightly.runs(engine))


def test_a_replay_keeps_the_examples_of_a_bucket_together(engine: Engine) -> None:
    rows = [("a", "qemu", 3), ("b", "unicorn", 3), ("c", "unicorn", 3), ("d", "unicorn", 9), ("e", "unicorn", 1)]

    planned = list(workers.nightly._replays(rows, 6))

    assert [(work.number, work.arguments["core"], work.arguments["buckets"]) for work in planned] == [
        (0, "qemu", ["a"]), (1, "unicorn", ["b", "c"]), (2, "unicorn", ["d"]), (3, "unicorn", ["e"]),
    ]  # fmt: skip


def test_the_slices_of_a_sweep_store_what_the_local_sweep_stores(
    engine: Engine, slices: Queue, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = workers.nightly._sweep_settings

    def short(*arguments: object) -> SweepSettings:
        settings = whole(*arguments)  # type: ignore[arg-type]
        return replace(settings, scenarios=("int3-from-user", "system-call-from-user"), kinds=("nmi", "mce"))

    monkeypatch.setattr(workers.nightly, "_sweep_settings", short)
    see_worker(engine, "one", datetime.now(UTC))
    step(engine, slices, [entry("sweep", targets=["linux4"], profiles=["intel"])], at=NOON)
    (campaign,) = nightly.runs(engine)[0].campaigns

    for number in range(2):
        run_slice(Site(database, tmp_path / "spool", "one"), campaign, number)
    step(engine, slices, at=NOON)

    settings = replace(short("linux4", "unicorn", entry("sweep", profiles=["intel"]).options), database=str(tmp_path / "local.db"))
    local = run_sweep(settings)
    beside = open_database(settings.database)
    mine = sweep(engine)
    assert mine is not None
    assert (mine.campaign.id, mine.paths, nightly.runs(engine)[0].outcome) == (campaign, 2, "2 slices done")
    assert [replace(path, seconds=0) for path in swept_paths(engine, mine.id)] == [
        replace(path, seconds=0) for path in swept_paths(beside, local.sweep_id)
    ]
    assert [(row.id, row.hits) for row in campaign_buckets(engine, campaign)] == [(row.id, row.hits) for row in local.buckets]
    for row in local.buckets:
        assert [each.case for each in findings(engine, row.id)] == [each.case for each in findings(beside, row.id)]
    beside.dispose()


def test_campaigns_that_people_enqueue_go_on_as_before(engine: Engine, slices: Queue) -> None:
    a_cluster_campaign(engine, cases=None)

    step(engine, slices, [FUZZ], at=NOON)

    assert len(work.planned(engine, state="waiting")) == AHEAD + 2
