from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from db_builders import a_bucket, a_campaign, a_case, a_finding, a_slice
from sqlalchemy import Engine

from db.errors import DatabaseError
from db.queries import bucket, buckets, campaign_buckets, campaign_totals, campaigns, case, findings
from db.records import bucket_id
from db.store import save_slice, set_status, start_campaign

MONDAY = datetime(2025, 3, 3, 12, tzinfo=UTC)
TUESDAY = MONDAY + timedelta(days=1)


def save_example_week(engine: Engine) -> None:
    """Monday: `rare` on Unicorn and linux4. Tuesday: `often` on Bochs and linux6."""
    campaign = start_campaign(engine, a_campaign())
    rare = a_finding(bucket=a_bucket("rare", area="gs", core="unicorn"), case=a_case(b"r", target="linux4"))
    often = a_finding(bucket=a_bucket("often", area="stack", core="bochs", kind="hang", profile="amd"), case=a_case(b"o", target="linux6"))
    save_slice(engine, campaign, a_slice(0, [rare], hits={"rare": 1}), at=MONDAY)
    save_slice(engine, campaign, a_slice(1, [often], hits={"often": 9}), at=TUESDAY)
    set_status(engine, bucket_id("often"), "reported")


def test_an_empty_database_has_nothing_to_say(engine: Engine) -> None:
    assert buckets(engine) == []
    assert campaigns(engine) == []
    assert findings(engine, "0123456789ab") == []
    assert (bucket(engine, "0"), case(engine, "0")) == (None, None)


def test_the_bucket_with_most_hits_comes_first(engine: Engine) -> None:
    save_example_week(engine)

    assert [(row.signature, row.hits) for row in buckets(engine)] == [("often", 9), ("rare", 1)]


def test_buckets_with_equal_hits_come_by_their_id(engine: Engine) -> None:
    save_slice(engine, start_campaign(engine, a_campaign()), a_slice(0, [a_finding(str(index)) for index in range(20)]))

    ids = [row.id for row in buckets(engine)]
    assert ids == sorted(bucket_id(str(index)) for index in range(20))
    assert [row.id for row in buckets(engine, limit=3)] == ids[:3]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param({}, ["often", "rare"], id="everything"),
        pytest.param({"area": "gs"}, ["rare"], id="area"),
        pytest.param({"core": "bochs"}, ["often"], id="core"),
        pytest.param({"kind": "hang"}, ["often"], id="kind"),
        pytest.param({"profile": "amd"}, ["often"], id="profile"),
        pytest.param({"target": "linux6"}, ["often"], id="target"),
        pytest.param({"since": TUESDAY}, ["often"], id="since-that-very-moment"),
        pytest.param({"since": TUESDAY + timedelta(seconds=1)}, [], id="since-later"),
        pytest.param({"status": "open"}, ["rare"], id="status"),
        pytest.param({"limit": 1}, ["often"], id="limit"),
        pytest.param({"area": "gs", "core": "bochs"}, [], id="both-must-fit"),
    ],
)
def test_buckets_fit_everything_asked_for(engine: Engine, asked: dict[str, Any], expected: list[str]) -> None:
    save_example_week(engine)

    assert [row.signature for row in buckets(engine, **asked)] == expected


@pytest.mark.parametrize("length", [4, 12])
def test_a_bucket_is_found_by_the_beginning_of_its_id_in_either_case(engine: Engine, length: int) -> None:
    save_example_week(engine)

    found = bucket(engine, bucket_id("rare")[:length].upper())

    assert found is not None
    assert (found.signature, found.hits, found.findings, found.targets) == ("rare", 1, 1, ("linux4",))


@pytest.mark.parametrize("typed", ["g", "%", "_", "rare", "\x00", "' OR 1=1"])
def test_what_is_not_hex_names_nothing(engine: Engine, typed: str) -> None:
    save_example_week(engine)

    assert bucket(engine, typed) is None
    assert case(engine, typed) is None


def test_a_beginning_that_several_share_names_the_candidates(engine: Engine) -> None:
    save_slice(engine, start_campaign(engine, a_campaign()), a_slice(0, [a_finding(str(index)) for index in range(3)]))

    with pytest.raises(DatabaseError, match="bucket '': several begin like this") as refused:
        bucket(engine, "")

    assert all(bucket_id(str(index)) in str(refused.value) for index in range(3))


def test_a_long_list_of_candidates_is_cut(engine: Engine) -> None:
    found = [a_finding(str(index), data=bytes([index])) for index in range(17)]
    save_slice(engine, start_campaign(engine, a_campaign()), a_slice(0, found))

    with pytest.raises(DatabaseError, match=r", \.\.\.; give more digits$"):
        case(engine, "")


def test_a_case_is_found_by_the_beginning_of_its_digest(engine: Engine) -> None:
    save_example_week(engine)
    wanted = a_case(b"r")

    found = case(engine, wanted.digest[:6])

    assert found is not None
    assert (found.digest, found.data, found.target, found.instance) == (wanted.digest, b"r", "linux4", "int3 at k=0")


def test_the_smallest_example_comes_first(engine: Engine) -> None:
    cases = [a_case(data) for data in (b"ccc", b"a", b"b", b"dd")]
    save_slice(engine, start_campaign(engine, a_campaign()), a_slice(0, [a_finding(case=new) for new in cases]))

    listed = [finding.case.digest for finding in findings(engine, bucket_id("swapgs/gs_base"))]

    assert listed == [new.digest for new in sorted(cases, key=lambda new: (len(new.data), new.digest))]
    assert [finding.case.digest for finding in findings(engine, bucket_id("swapgs/gs_base"), 2)] == listed[:2]


def test_the_newest_campaign_comes_first(engine: Engine) -> None:
    first, second = start_campaign(engine, a_campaign(seed=1)), start_campaign(engine, a_campaign(seed=2))

    assert [(row.id, row.seed) for row in campaigns(engine)] == [(second, 2), (first, 1)]
    assert [row.id for row in campaigns(engine, limit=1)] == [second]


def test_the_slices_of_a_campaign_add_up(engine: Engine) -> None:
    campaign = start_campaign(engine, a_campaign())
    other = start_campaign(engine, a_campaign())
    save_slice(engine, campaign, a_slice(0, cases=10, seconds=0.5, not_modelled={"VERW": 1, "CLUI": 2}, crashes=1))
    save_slice(engine, campaign, a_slice(1, cases=20, seconds=0.25, not_modelled={"VERW": 4}, tolerated={"undefined-af": 3}))
    save_slice(engine, other, a_slice(0, cases=1000))

    totals = campaign_totals(engine, campaign)

    assert (totals.slices, totals.cases, totals.seconds, totals.crashes) == (2, 30, 0.75, 1)
    assert (totals.not_modelled, totals.tolerated) == ({"CLUI": 2, "VERW": 5}, {"undefined-af": 3})


def test_a_campaign_without_slices_adds_up_to_nothing(engine: Engine) -> None:
    totals = campaign_totals(engine, start_campaign(engine, a_campaign()))

    assert (totals.slices, totals.cases, totals.not_modelled) == (0, 0, {})


def test_a_campaigns_buckets_count_that_campaigns_hits_only(engine: Engine) -> None:
    first, second = start_campaign(engine, a_campaign()), start_campaign(engine, a_campaign())
    save_slice(engine, first, a_slice(0, [a_finding("both")], hits={"both": 100}))
    save_slice(engine, second, a_slice(0, [a_finding("both"), a_finding("second only")], hits={"both": 1, "second only": 2}))
    save_slice(engine, second, a_slice(1, [a_finding("both")], hits={"both": 4}))

    assert [(row.signature, row.hits) for row in campaign_buckets(engine, second)] == [("both", 5), ("second only", 2)]
    assert [(row.signature, row.hits) for row in campaign_buckets(engine, first)] == [("both", 100)]
    assert buckets(engine)[0].hits == 105
