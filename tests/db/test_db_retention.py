"""What retention throws away, and what it never does."""

from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Barrier

import pytest
from db_builders import a_campaign, a_finding, a_slice
from sqlalchemy import Engine, func, select
from test_db_processes import in_two_processes

from db import queries
from db.engine import open_database
from db.models import Case
from db.records import bucket_id, case_digest
from db.retention import Thrown, throw_away
from db.store import finish_campaign, save_slice, start_campaign
from db.transactions import reading, writing
from db.vote_records import NewVerdict
from db.votes import save_verdict
from db.work import claim, finish, plan, planned
from db.work_records import NewWork

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
KEY = bucket_id("swapgs/gs_base")


@pytest.fixture
def campaign(engine: Engine) -> int:
    return start_campaign(engine, a_campaign(), at=NOW - 40 * DAY)


def thrown(engine: Engine, examples: int = 2, days: int = 30) -> Thrown:
    with writing(engine) as connection:
        return throw_away(connection, examples, NOW - days * DAY)


def kept(engine: Engine) -> list[tuple[bytes, str]]:
    return [(row.case.data, row.core_version) for row in queries.findings(engine, KEY)]


def test_the_smallest_examples_of_each_version_are_kept_and_every_bucket_and_hit(engine: Engine, campaign: int) -> None:
    for version in ("2.1", "2.2"):
        other = start_campaign(engine, a_campaign())
        save_slice(engine, other, a_slice(0, [a_finding(data=b"x" * size, core_version=version) for size in (4, 1, 3, 2)]))
    before = queries.buckets(engine)[0].hits

    assert thrown(engine) == Thrown(findings=4, cases=2, folded=0, planned=0)

    assert kept(engine) == [(b"x", "2.1"), (b"x", "2.2"), (b"xx", "2.1"), (b"xx", "2.2")]
    assert queries.buckets(engine)[0].hits == before
    assert thrown(engine) == Thrown(0, 0, 0, 0)


def test_a_case_that_a_verdict_is_about_is_kept(engine: Engine, campaign: int) -> None:
    save_slice(engine, campaign, a_slice(0, [a_finding(data=b"x" * size) for size in (1, 2, 3)]))
    save_verdict(engine, NewVerdict(KEY, "engine-defect", "because", "completes", case_digest(b"xxx"), ()))

    assert thrown(engine, examples=1) == Thrown(findings=2, cases=1, folded=0, planned=0)

    with reading(engine) as connection:
        assert connection.execute(select(func.count()).select_from(Case)).scalar() == 2


def test_the_details_of_slices_of_old_campaigns_are_added_up_in_the_first(engine: Engine, campaign: int) -> None:
    young = start_campaign(engine, a_campaign(), at=NOW)
    for each in (campaign, young):
        for number in range(3):
            save_slice(engine, each, a_slice(number, not_modelled={"smi": 2}, tolerated={"af": number + 1}))
    finish_campaign(engine, campaign, at=NOW - 31 * DAY)
    finish_campaign(engine, young, at=NOW - DAY)
    before = [queries.campaign_totals(engine, each) for each in (campaign, young)]

    assert thrown(engine).folded == 2
    assert thrown(engine).folded == 0

    assert [queries.campaign_totals(engine, each) for each in (campaign, young)] == before


def test_planned_slices_go_when_they_and_their_campaign_ended_long_ago(engine: Engine, campaign: int) -> None:
    open_one = start_campaign(engine, a_campaign(), at=NOW - 40 * DAY)
    for each in (campaign, open_one):
        plan(engine, each, [NewWork(0, "random", {})], at=NOW - 40 * DAY)
        found = claim(engine, each, 0, "one", 60, at=NOW - 40 * DAY)
        assert found is not None
        finish(engine, found.held, a_slice(0), at=NOW - 39 * DAY)
    finish_campaign(engine, campaign, at=NOW - 39 * DAY)

    assert thrown(engine).planned == 1

    assert [row.campaign_id for row in planned(engine)] == [open_one]
    assert queries.campaign_totals(engine, campaign).slices == 1


def store_or_throw_away(barrier: Barrier, which: int, url: str) -> None:
    engine = open_database(url)
    barrier.wait()
    for number in range(30):
        if which:
            thrown(engine, examples=1)
        else:
            save_slice(engine, start_campaign(engine, a_campaign()), a_slice(number, [a_finding(data=b"x" * size) for size in range(1, 8)]))
    engine.dispose()


def test_examples_can_be_stored_while_their_cases_are_thrown_away(url: str, engine: Engine) -> None:
    in_two_processes(store_or_throw_away, url)
    thrown(engine, examples=1)

    assert kept(engine) == [(b"x", "2.1.4")]
    assert queries.buckets(engine)[0].hits == 30 * 7
