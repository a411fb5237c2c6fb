"""A bucket's life through real slices: found, fixed by a version without the defect, back again."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster_builders import a_cluster_campaign
from sqlalchemy import Engine

import workers.pool
from db import life, work
from db.engine import open_database
from db.nightly import end_runs
from db.nightly_records import NightlyRunRow
from db.queries import buckets, campaign_totals, findings
from db.records import BucketRow
from db.store import finish_campaign
from fuzzer.cores.registry import CORES
from workers.jobs import Site, run_slice
from workers.nightly import OPTIONS, begin_now
from workers.timetable import Entry

Versions = Callable[[str, str], None]
CORE = "mending"


@pytest.fixture
def becomes(monkeypatch: pytest.MonkeyPatch) -> Versions:
    """Installs a version of the core, with a defect or without."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    mending = importlib.import_module("mending_core")
    monkeypatch.setattr(workers.pool, "serve", mending.serve)
    monkeypatch.setitem(CORES, CORE, mending.INFO)

    def install(version: str, defect: str) -> None:
        monkeypatch.setenv(mending.VERSION, version)
        monkeypatch.setenv(mending.DEFECT, defect)

    return install


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(str(tmp_path / "results.db"))
    yield engine
    engine.dispose()


@pytest.fixture
def site(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Site:
    caplog.set_level(logging.INFO)
    return Site(str(tmp_path / "results.db"), tmp_path / "spool", "one", lease=60.0)


def fuzz(engine: Engine, site: Site, cases: int = 30) -> int:
    campaign = a_cluster_campaign(engine, slice_cases=cases, arguments={"cases": cases, "cores": [CORE]})
    run_slice(site, campaign, 0)
    return campaign


def replay(engine: Engine, site: Site, cases: int = 500) -> NightlyRunRow:
    """A replay as the timetable plans it, run whole."""
    options = {name: option.default for name, option in OPTIONS["replay"].items()} | {"cases": cases}
    run = begin_now(engine, Entry("replay", "02:00", "replay", options))
    assert run is not None
    (campaign,) = run.campaigns
    slices = work.planned(engine, campaign)
    for row in slices:
        run_slice(site, campaign, row.number)
    finish_campaign(engine, campaign)
    assert [run.outcome for run in end_runs(engine)] == [f"{len(slices)} slices done"]
    return run


def statuses(engine: Engine) -> set[tuple[str, str | None]]:
    return {(row.status, row.fixed_version) for row in buckets(engine)}


def lines(engine: Engine, bucket: BucketRow) -> list[tuple[str, str]]:
    return [(line.status, line.core_version) for line in life.status_changes(engine, bucket.id)]


def test_a_version_without_the_defect_fixes_every_bucket_and_its_return_is_a_regression(
    engine: Engine, site: Site, becomes: Versions
) -> None:
    becomes("1", "wrong")
    fuzz(engine, site)
    found = buckets(engine)
    assert found
    assert statuses(engine) == {("open", None)}

    becomes("2", "none")
    run = replay(engine, site, cases=5)

    assert len(work.planned(engine, run.campaigns[0])) > 1
    assert statuses(engine) == {("fixed", "2")}
    assert [row.hits for row in buckets(engine)] == [row.hits for row in found], "a replay counts no hits"
    assert campaign_totals(engine, run.campaigns[0]).cases == sum(row.findings for row in found)
    assert {(row.shown, row.untold) for each in found for row in life.replays(engine, each.id)} == {(0, 0)}

    becomes("3", "wrong")
    replay(engine, site)

    assert statuses(engine) == {("regressed", "2")}
    assert lines(engine, found[0]) == [("fixed", "2"), ("regressed", "3")]

    becomes("4", "none")
    replay(engine, site)

    assert statuses(engine) == {("fixed", "4")}


def test_a_fixed_bucket_that_any_campaign_meets_has_regressed(engine: Engine, site: Site, becomes: Versions) -> None:
    becomes("1", "wrong")
    fuzz(engine, site)
    becomes("2", "none")
    replay(engine, site)

    becomes("3", "wrong")
    campaign = fuzz(engine, site)

    (line,) = [line for line in life.status_changes(engine, buckets(engine)[0].id) if line.status == "regressed"]
    assert statuses(engine) == {("regressed", "2")}
    assert (line.core_version, line.campaign_id, line.why) == ("3", campaign, "shown again by 3, after 2 had not")


def test_a_version_that_still_shows_a_bucket_leaves_it_open(engine: Engine, site: Site, becomes: Versions) -> None:
    becomes("1", "wrong")
    fuzz(engine, site)
    becomes("2", "wrong")
    replay(engine, site)

    (row,) = life.replays(engine, buckets(engine)[0].id)
    assert statuses(engine) == {("open", None)}
    assert (row.core_version, row.shown, row.gone) == ("2", len(findings(engine, row.bucket_id)), 0)


def test_the_version_that_showed_a_bucket_does_not_mend_it_and_that_is_said_once(engine: Engine, site: Site, becomes: Versions) -> None:
    becomes("1", "wrong")
    fuzz(engine, site)
    becomes("1", "none")
    replay(engine, site)
    replay(engine, site)

    (line,) = life.status_changes(engine, buckets(engine)[0].id)
    assert statuses(engine) == {("open", None)}
    assert line.why == "not shown any more by 1, which had shown it: not deterministic, or the specification or the adapter has changed"


def test_a_case_that_takes_its_engine_with_it_shows_its_bucket_until_a_version_survives_it(
    engine: Engine, site: Site, becomes: Versions
) -> None:
    becomes("1", "crash")
    fuzz(engine, site, cases=2)
    assert {row.kind for row in buckets(engine)} == {"crash"}

    becomes("2", "crash")
    replay(engine, site)
    assert statuses(engine) == {("open", None)}

    becomes("3", "none")
    replay(engine, site)
    assert statuses(engine) == {("fixed", "3")}
