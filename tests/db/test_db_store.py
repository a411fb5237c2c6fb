from datetime import UTC, datetime, timedelta, timezone

import pytest
from db_builders import a_bucket, a_campaign, a_case, a_finding, a_slice
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import IntegrityError, StatementError

from db.errors import DatabaseError
from db.models import Case
from db.queries import bucket, buckets, campaign_totals, campaigns, case, findings
from db.records import bucket_id
from db.store import FINDINGS_PER_BUCKET_AND_CAMPAIGN, finish_campaign, save_slice, set_status, start_campaign
from db.transactions import reading

MONDAY = datetime(2025, 3, 3, 12, tzinfo=UTC)
TUESDAY = MONDAY + timedelta(days=1)


def test_a_campaign_comes_back_as_it_was_started(engine: Engine) -> None:
    number = start_campaign(engine, a_campaign(targets=["linux4", "linux6"], seed=2**64 - 1), at=MONDAY)

    (row,) = campaigns(engine)
    assert (row.id, row.targets, row.profiles, row.seed) == (number, ("linux4", "linux6"), ("intel",), 2**64 - 1)
    assert (row.arguments, row.created_at, row.finished_at) == ({"events": ["nmi"]}, MONDAY, None)


def test_a_campaign_finishes_once(engine: Engine) -> None:
    number = start_campaign(engine, a_campaign())

    finish_campaign(engine, number, at=MONDAY)
    finish_campaign(engine, number, at=TUESDAY)

    assert campaigns(engine)[0].finished_at == MONDAY


def test_a_campaign_that_does_not_exist_cannot_finish(engine: Engine) -> None:
    with pytest.raises(DatabaseError, match="campaign 99: not in"):
        finish_campaign(engine, 99)


def test_a_finding_comes_back_as_it_went_in(engine: Engine) -> None:
    campaign = start_campaign(engine, a_campaign())
    new = a_finding(data=bytes(range(256)), spec={"rsp": 2**64 - 8, "log": [1, None, "ä"]}, observed=None)

    save_slice(engine, campaign, a_slice(0, [new]), at=MONDAY)

    (row,) = findings(engine, new.bucket.id)
    assert (row.case.data, row.case.digest, row.case.scenario) == (bytes(range(256)), new.case.digest, "int3-from-user")
    assert (row.spec, row.observed, row.differences) == ({"rsp": 2**64 - 8, "log": [1, None, "ä"]}, None, ["gs_base"])
    assert (row.core, row.core_version, row.campaign_id, row.found_at) == ("unicorn", "2.1.4", campaign, MONDAY)


def test_a_slice_that_is_saved_again_counts_once(engine: Engine) -> None:
    campaign = start_campaign(engine, a_campaign())
    found = a_slice(0, [a_finding()], hits={"swapgs/gs_base": 200}, tolerated={"undefined-af": 3})

    save_slice(engine, campaign, found, at=MONDAY)
    save_slice(engine, campaign, found, at=TUESDAY)

    (row,) = buckets(engine)
    assert (row.hits, row.findings, row.last_seen) == (200, 1, MONDAY)
    assert campaign_totals(engine, campaign).tolerated == {"undefined-af": 3}


def test_the_same_slice_number_in_two_campaigns_is_two_slices(engine: Engine) -> None:
    for campaign in (start_campaign(engine, a_campaign()), start_campaign(engine, a_campaign())):
        save_slice(engine, campaign, a_slice(0, [a_finding()], hits={"swapgs/gs_base": 5}))

    (row,) = buckets(engine)
    assert (row.hits, row.findings) == (10, 1)


def test_a_slice_that_cannot_be_stored_whole_is_not_stored_at_all(engine: Engine) -> None:
    campaign = start_campaign(engine, a_campaign())
    with pytest.raises((StatementError, TypeError), match="not JSON serializable"):
        save_slice(engine, campaign, a_slice(0, [a_finding(spec=object())]))
    assert buckets(engine) == []

    save_slice(engine, campaign, a_slice(0, [a_finding()]))

    assert campaign_totals(engine, campaign).slices == 1
    assert buckets(engine)[0].hits == 1


def test_a_slice_of_no_campaign_is_refused(engine: Engine) -> None:
    with pytest.raises(IntegrityError):
        save_slice(engine, 99, a_slice())


@pytest.mark.parametrize("wrong", [{"kind": "oddity"}, {"by": "nobody"}])
def test_a_bucket_of_no_known_kind_or_side_is_refused(engine: Engine, wrong: dict[str, str]) -> None:
    campaign = start_campaign(engine, a_campaign())
    with pytest.raises(IntegrityError):
        save_slice(engine, campaign, a_slice(0, [a_finding(bucket=a_bucket(**wrong))]))


def test_a_bucket_remembers_when_it_was_first_and_last_seen(engine: Engine) -> None:
    campaign = start_campaign(engine, a_campaign())

    save_slice(engine, campaign, a_slice(0, [a_finding()]), at=MONDAY)
    save_slice(engine, campaign, a_slice(1, [a_finding()]), at=TUESDAY)
    save_slice(engine, campaign, a_slice(2, [a_finding()]), at=MONDAY)

    (row,) = buckets(engine)
    assert (row.first_seen, row.last_seen, row.hits) == (MONDAY, TUESDAY, 3)


def test_a_moment_in_another_time_zone_is_the_same_moment(engine: Engine) -> None:
    campaign = start_campaign(engine, a_campaign())

    save_slice(engine, campaign, a_slice(0, [a_finding()]), at=MONDAY.astimezone(timezone(timedelta(hours=-7))))

    assert buckets(engine)[0].last_seen == MONDAY
    assert buckets(engine)[0].last_seen.tzinfo is UTC


def test_a_moment_without_a_time_zone_is_refused(engine: Engine) -> None:
    with pytest.raises(StatementError, match="has no time zone"):
        start_campaign(engine, a_campaign(), at=MONDAY.replace(tzinfo=None))


def test_a_bucket_keeps_its_first_description_and_its_status(engine: Engine) -> None:
    campaign = start_campaign(engine, a_campaign())
    save_slice(engine, campaign, a_slice(0, [a_finding(bucket=a_bucket(title="as first told"))]))
    set_status(engine, bucket_id("swapgs/gs_base"), "reported")

    save_slice(engine, campaign, a_slice(1, [a_finding(bucket=a_bucket(title="as told later"))]))

    (row,) = buckets(engine)
    assert (row.title, row.status) == ("as first told", "reported")


def test_the_status_of_an_unknown_bucket_cannot_be_set(engine: Engine) -> None:
    with pytest.raises(DatabaseError, match="bucket 0123456789ab: not in"):
        set_status(engine, "0123456789ab", "reported")


def test_a_bucket_keeps_ten_examples_of_a_campaign_and_counts_all(engine: Engine) -> None:
    campaign = start_campaign(engine, a_campaign())
    for number in range(3):
        found = [a_finding(data=bytes([number, index])) for index in range(6)]
        save_slice(engine, campaign, a_slice(number, found))

    (row,) = buckets(engine)
    assert (row.hits, row.findings) == (18, FINDINGS_PER_BUCKET_AND_CAMPAIGN)
    kept = {finding.case.data[0] for finding in findings(engine, row.id)}
    assert kept == {0, 1}, "the first slices fill the places"


def test_the_smallest_cases_of_a_slice_are_kept_in_whatever_order_they_come(engine: Engine) -> None:
    found = [a_finding(data=bytes(length)) for length in range(1, 31)]
    for order in (found, found[::-1]):
        save_slice(engine, start_campaign(engine, a_campaign()), a_slice(0, order))

    kept = [finding.case.data for finding in findings(engine, bucket_id("swapgs/gs_base"))]
    assert kept == [bytes(length) for length in range(1, 11)]


def test_a_case_that_is_not_kept_as_an_example_is_not_stored(engine: Engine) -> None:
    campaign = start_campaign(engine, a_campaign())
    save_slice(engine, campaign, a_slice(0, [a_finding(data=bytes(length)) for length in range(1, 31)]))

    with reading(engine) as connection:
        assert connection.scalar(select(func.count()).select_from(Case)) == FINDINGS_PER_BUCKET_AND_CAMPAIGN


def test_another_campaign_adds_examples_of_its_own(engine: Engine) -> None:
    for start in (0, 100):
        found = [a_finding(data=bytes([start + index])) for index in range(12)]
        save_slice(engine, start_campaign(engine, a_campaign()), a_slice(0, found))

    assert buckets(engine)[0].findings == 20


def test_a_finding_twice_in_one_slice_is_one_example_and_two_hits(engine: Engine) -> None:
    campaign = start_campaign(engine, a_campaign())

    save_slice(engine, campaign, a_slice(0, [a_finding(), a_finding()]))

    assert [(row.hits, row.findings) for row in buckets(engine)] == [(2, 1)]


def test_another_version_of_the_core_makes_another_finding_of_the_same_case(engine: Engine) -> None:
    campaign = start_campaign(engine, a_campaign())

    save_slice(engine, campaign, a_slice(0, [a_finding(core_version="2.1.4"), a_finding(core_version="2.1.3")]))

    versions = {finding.core_version for finding in findings(engine, bucket_id("swapgs/gs_base"))}
    assert versions == {"2.1.3", "2.1.4"}


def test_one_case_can_show_two_buckets_and_is_stored_once(engine: Engine) -> None:
    campaign = start_campaign(engine, a_campaign())

    save_slice(engine, campaign, a_slice(0, [a_finding("first"), a_finding("second")]))

    assert {row.signature for row in buckets(engine)} == {"first", "second"}
    assert case(engine, a_case().digest) is not None


def test_a_target_counts_as_seen_even_when_its_example_is_not_kept(engine: Engine) -> None:
    campaign = start_campaign(engine, a_campaign())
    small = [a_finding(data=bytes([index])) for index in range(FINDINGS_PER_BUCKET_AND_CAMPAIGN)]
    large = a_finding(case=a_case(bytes(100), target="linux6"))

    save_slice(engine, campaign, a_slice(0, [*small, large]))

    row = bucket(engine, bucket_id("swapgs/gs_base"))
    assert row is not None
    assert row.targets == ("linux4", "linux6")
