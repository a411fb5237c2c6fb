"""What a replay makes of a bucket, and what it must not."""

from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from multiprocessing.synchronize import Barrier

import pytest
from db_builders import a_bucket, a_campaign, a_finding, a_slice
from sqlalchemy import Engine
from test_db_processes import in_two_processes

from db.engine import open_database
from db.life import put_replay, replayable, replays, status_changes
from db.life_records import ReplayedCase, ReplayFound
from db.queries import bucket, buckets
from db.records import bucket_id, case_digest
from db.store import save_slice, set_status, start_campaign
from db.transactions import writing

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = datetime(2026, 3, 2, 12, tzinfo=UTC)
SIGNATURE = "swapgs/gs_base"
KEY = bucket_id(SIGNATURE)
SMALL, LARGE = b"\x01", b"\x01\x02"


@pytest.fixture
def campaign(engine: Engine) -> int:
    """A campaign that has found one bucket, with two examples."""
    campaign = start_campaign(engine, a_campaign(), at=NOW)
    save_slice(engine, campaign, a_slice(0, [a_finding(data=SMALL), a_finding(data=LARGE)]), at=NOW)
    return campaign


def replayed(data: bytes, shows: str = "", told: bool = True) -> ReplayedCase:
    return ReplayedCase(KEY, case_digest(data), shows, told)


def replay(engine: Engine, *cases: ReplayedCase, version: str = "2.2", number: int = 0) -> int:
    campaign = start_campaign(engine, a_campaign())
    with writing(engine) as connection:
        put_replay(connection, campaign, ReplayFound(number, "unicorn", version, 1.0, 0, cases), LATER)
    return campaign


def status(engine: Engine) -> str:
    found = bucket(engine, KEY)
    assert found is not None
    return found.status


def test_a_bucket_is_fixed_when_no_example_shows_it_on_another_version(engine: Engine, campaign: int) -> None:
    run = replay(engine, replayed(SMALL), replayed(LARGE))

    (row,) = buckets(engine)
    assert (row.status, row.fixed_version, row.fixed_at) == ("fixed", "2.2", LATER)
    (line,) = status_changes(engine, KEY)
    assert (line.status, line.core_version, line.campaign_id, line.at) == ("fixed", "2.2", run, LATER)
    (fare,) = replays(engine, KEY)
    assert (fare.shown, fare.gone, fare.untold, fare.shown_at) == (0, 2, 0, None)


@pytest.mark.parametrize(
    "cases",
    [
        pytest.param([replayed(SMALL)], id="an-example-was-not-run"),
        pytest.param([replayed(SMALL), replayed(LARGE, told=False)], id="an-example-cannot-tell"),
        pytest.param([replayed(SMALL), replayed(LARGE, SIGNATURE)], id="an-example-shows-it"),
        pytest.param([], id="nothing-was-run"),
    ],
)
def test_a_bucket_stays_open_as_long_as_an_example_may_show_it(engine: Engine, campaign: int, cases: list[ReplayedCase]) -> None:
    replay(engine, *cases)

    assert status(engine) == "open"
    assert status_changes(engine, KEY) == []


def test_an_example_that_shows_another_bucket_does_not_show_this_one(engine: Engine, campaign: int) -> None:
    replay(engine, replayed(SMALL), replayed(LARGE, "another"))

    assert status(engine) == "fixed"


def test_an_example_that_was_stored_meanwhile_has_not_been_run(engine: Engine, campaign: int) -> None:
    save_slice(engine, campaign, a_slice(1, [a_finding(data=b"new")]))

    replay(engine, replayed(SMALL), replayed(LARGE))

    assert status(engine) == "open"


def test_a_version_that_has_shown_the_bucket_in_a_replay_does_not_mend_it_later(engine: Engine, campaign: int) -> None:
    replay(engine, replayed(SMALL, SIGNATURE), replayed(LARGE))
    replay(engine, replayed(SMALL), replayed(LARGE))
    replay(engine, replayed(SMALL), replayed(LARGE))

    (line,) = status_changes(engine, KEY)
    assert (status(engine), line.status) == ("open", "open")
    assert line.why.startswith("not shown any more by 2.2, which had shown it: not deterministic")


def test_a_fixed_bucket_comes_back_by_a_finding_once_and_keeps_what_had_mended_it(engine: Engine, campaign: int) -> None:
    replay(engine, replayed(SMALL), replayed(LARGE))
    for number in (1, 2):
        save_slice(engine, campaign, a_slice(number, [a_finding(data=SMALL, core_version="2.3")]))

    (row,) = buckets(engine)
    assert (row.status, row.fixed_version) == ("regressed", "2.2")
    assert [line.why for line in status_changes(engine, KEY)][1:] == ["shown again by 2.3, after 2.2 had not"]


def test_a_fixed_bucket_comes_back_by_the_example_of_another_one(engine: Engine, campaign: int) -> None:
    save_slice(engine, campaign, a_slice(1, [a_finding("another", data=b"other")]))
    replay(engine, replayed(SMALL), replayed(LARGE))

    replay(engine, ReplayedCase(bucket_id("another"), case_digest(b"other"), SIGNATURE), version="2.3")

    assert status(engine) == "regressed"


def test_a_status_by_hand_leaves_a_line(engine: Engine, campaign: int) -> None:
    set_status(engine, KEY, "reported", at=NOW)

    assert [(line.status, line.why) for line in status_changes(engine, KEY)] == [("reported", "by hand")]


def test_broken_contracts_are_not_replayed(engine: Engine, campaign: int) -> None:
    broken = replace(a_finding("promise", data=b"p"), bucket=a_bucket("promise", kind="contract", by="entry code"))
    save_slice(engine, campaign, a_slice(1, [broken]))

    assert [tuple(row) for row in replayable(engine)] == [(KEY, "unicorn", 2)]


def meet_or_mend(barrier: Barrier, which: int, url: str) -> None:
    engine = open_database(url)
    barrier.wait()
    for number in range(10):
        if which:
            replay(engine, replayed(SMALL), replayed(LARGE), version=f"3.{number}")
        else:
            save_slice(engine, 1, a_slice(number + 1, [a_finding(data=SMALL), a_finding("z", data=LARGE)]))
    engine.dispose()


def test_a_replay_and_a_campaign_at_once_leave_one_line_for_each_change(url: str, engine: Engine, campaign: int) -> None:
    in_two_processes(meet_or_mend, url)

    changes = [line.status for line in status_changes(engine, KEY)]
    assert all(one != other for one, other in pairwise(changes))
    assert status(engine) == changes[-1]
