"""A sweep is stored path by path, once each, and goes on where it was interrupted."""

from datetime import UTC, datetime
from typing import Any

from db_builders import a_campaign, a_finding, a_slice
from sqlalchemy import Engine

from db.queries import buckets, campaign_totals
from db.records import SliceResult
from db.store import finish_campaign
from db.sweep_records import PathFound, SweptPath, totals
from db.sweeps import save_path, start_sweep, sweep, swept_paths


def a_path(number: int = 0, found: SliceResult | None = None, **changes: Any) -> PathFound:
    fields: dict[str, Any] = {
        "number": number,
        "scenario": f"scenario-{number}",
        "profile": "intel",
        "start": "00ff",
        "boundaries": 4,
        "cells": {"nmi": "dmxc", "interrupt": "wwmm"},
        "runs": 9,
        "merged": 5,
        "contract_violations": 1,
        "divergences": 2,
        "seconds": 0.5,
    }
    return PathFound(SweptPath(**fields | changes), found or a_slice(number, cases=9))


def test_a_path_comes_back_as_it_was_stored(engine: Engine) -> None:
    row = start_sweep(engine, a_campaign(), "key", 2)

    save_path(engine, row, a_path(1))

    assert swept_paths(engine, row.id) == [a_path(1).path]
    assert campaign_totals(engine, row.campaign.id).cases == 9


def test_a_path_brings_its_findings(engine: Engine) -> None:
    row = start_sweep(engine, a_campaign(), "key", 1)

    save_path(engine, row, a_path(0, a_slice(0, [a_finding()])))

    assert [bucket.hits for bucket in buckets(engine)] == [1]


def test_storing_a_path_twice_changes_nothing(engine: Engine) -> None:
    row = start_sweep(engine, a_campaign(), "key", 1)
    found = a_path(0, a_slice(0, [a_finding()]))

    save_path(engine, row, found)
    save_path(engine, row, found)

    assert len(swept_paths(engine, row.id)) == 1
    assert [bucket.hits for bucket in buckets(engine)] == [1]


def test_an_unfinished_sweep_with_the_same_key_goes_on(engine: Engine) -> None:
    first = start_sweep(engine, a_campaign(), "key", 2)

    assert start_sweep(engine, a_campaign(), "key", 2) == first
    assert start_sweep(engine, a_campaign(), "other", 2).id != first.id


def test_a_finished_sweep_does_not(engine: Engine) -> None:
    first = start_sweep(engine, a_campaign(), "key", 2)
    finish_campaign(engine, first.campaign.id)

    assert start_sweep(engine, a_campaign(), "key", 2).id != first.id


def test_the_newest_sweep_is_the_one_that_is_meant_without_a_number(engine: Engine) -> None:
    at = datetime(2026, 1, 31, tzinfo=UTC)
    first, second = (start_sweep(engine, a_campaign(), key, 1, at=at) for key in ("one", "two"))

    assert (sweep(engine), sweep(engine, first.id), sweep(engine, 99)) == (second, first, None)
    assert second.campaign.created_at == at


def test_paths_are_found_by_scenario_and_profile(engine: Engine) -> None:
    row = start_sweep(engine, a_campaign(), "key", 3)
    for number, (scenario, profile) in enumerate([("a", "intel"), ("a", "amd"), ("b", "intel")]):
        save_path(engine, row, a_path(number, scenario=scenario, profile=profile))

    assert [path.number for path in swept_paths(engine, row.id, scenario="a")] == [0, 1]
    assert [path.number for path in swept_paths(engine, row.id, profile="intel")] == [0, 2]
    assert [path.number for path in swept_paths(engine, row.id, scenario="a", profile="amd")] == [1]


def test_totals_are_sums() -> None:
    added = totals([a_path(0).path, a_path(1).path])

    assert (added.paths, added.boundaries, added.runs, added.merged) == (2, 8, 18, 10)
    assert (added.contract_violations, added.divergences) == (2, 4)


def test_nothing_swept_adds_up_to_nothing() -> None:
    assert totals([]).paths == 0
