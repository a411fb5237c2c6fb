"""The commands of a cluster, as far as they need no servers."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

import pytest
from entryfuzz_program import Entryfuzz
from servers import Server

from db import work
from db.cluster import see_worker
from db.engine import open_database, open_when_up
from db.errors import DatabaseError
from db.migrations import HEAD


def test_enqueue_prints_the_number_of_the_campaign_and_plans_its_slices(entryfuzz: Entryfuzz) -> None:
    ran = entryfuzz("enqueue", "--target", "snippets", "--cases", "250", "--slice-cases", "100", "--seed", "7", "--profile", "amd")

    assert (ran.code, ran.out) == (0, "1\n")
    assert "campaign 1: snippets on unicorn, seed 7" in ran.err
    engine = open_database("entryfuzz.db")
    assert [row.arguments["count"] for row in work.planned(engine)] == [100, 100, 50]
    assert work.planned(engine)[2].arguments == {
        "target": "snippets", "profiles": ["amd"], "seed": 7, "first": 200, "count": 50, "cores": ["unicorn"],
    }  # fmt: skip
    engine.dispose()


def test_enqueue_tells_programs_what_it_planned(entryfuzz: Entryfuzz) -> None:
    told = entryfuzz("enqueue", "--forever", "--seed", str(2**64 - 1), "--json").json()

    assert told["campaign"] == 1
    assert (told["targets"], told["cores"], told["cases"]) == (["linux4", "snippets"], ["unicorn"], None)
    assert (told["seed"], told["slice_cases"]) == (2**64 - 1, 20_000)


def test_status_shows_workers_slices_and_why_some_failed(entryfuzz: Entryfuzz) -> None:
    entryfuzz("enqueue", "--target", "snippets", "--cases", "20", "--slice-cases", "10")
    engine = open_database("entryfuzz.db")
    see_worker(engine, "box-1", datetime.now(UTC))
    for number in (0, 1):
        claim = work.claim(engine, 1, number, "box-1", 60)
        assert claim is not None
        if number == 0:
            work.give_up(engine, claim.held, "CoreError: [qemu] is not here", most=1)
    engine.dispose()

    shown, told = entryfuzz("status").out, entryfuzz("status", "--json").json()

    assert "0 waiting, 1 leased, 0 done, 1 failed, campaigns open 1" in shown
    assert "1 of campaign 1" in shown
    assert "0 of campaign 1, attempt 1: CoreError: [qemu] is not here" in shown
    assert told["slices"] == {"waiting": 0, "leased": 1, "done": 0, "failed": 1}
    assert [(row["name"], row["campaign"], row["slice"]) for row in told["workers"]] == [("box-1", 1, 1)]
    assert told["failures"] == [{"campaign": 1, "slice": 0, "attempt": 1, "reason": "CoreError: [qemu] is not here"}]


def test_status_of_a_database_without_a_cluster_is_all_zero(entryfuzz: Entryfuzz) -> None:
    assert entryfuzz("db", "upgrade").err == f"entryfuzz.db: up to date, schema {HEAD}\n"

    assert "0 waiting, 0 leased, 0 done, 0 failed" in entryfuzz("status").out


def test_upgrade_waits_for_a_server_that_starts_later(postgres: Server) -> None:
    postgres.stop()
    later = threading.Timer(1.5, postgres.start)
    later.start()
    begun = time.monotonic()

    open_when_up(postgres.url + "?options=-csearch_path%3Dpg_temp", 30).dispose()

    assert time.monotonic() - begun > 1
    later.join()


def test_a_server_that_does_not_come_is_not_waited_for_longer_than_that() -> None:
    begun = time.monotonic()

    with pytest.raises(DatabaseError, match="check that the server runs"):
        open_when_up("postgresql://localhost:1/name", 1)

    assert 1 <= time.monotonic() - begun < 5
