"""`entryfuzz nightly` and what the divergence commands tell of a bucket's life."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from entryfuzz_program import EXAMPLES, Entryfuzz, Stored

from db.engine import open_database
from db.life import put_replay
from db.life_records import ReplayedCase, ReplayFound
from db.records import NewCampaign
from db.store import start_campaign
from db.transactions import writing

TIMETABLE = """
[[nightly]]
name = "small"
at = "02:00"
job = "fuzz"
targets = ["snippets"]
cases = 40
slice_cases = 20

[[nightly]]
name = "clean"
at = "0 4 * * sun"
job = "retention"
"""


@pytest.fixture
def config(entryfuzz: Entryfuzz) -> str:
    Path("entryfuzz.toml").write_text(TIMETABLE, encoding="utf-8")
    assert entryfuzz("db", "upgrade").code == 0
    return "entryfuzz.toml"


def test_a_timetable_is_listed_with_when_and_how_it_went(entryfuzz: Entryfuzz, config: str) -> None:
    assert entryfuzz("nightly", "run", "clean").out.startswith("clean: thrown away: 0 examples")

    small, clean = entryfuzz("nightly", "list", "--json").json()
    shown = entryfuzz("nightly", "list").out

    assert (small["name"], small["job"], small["at"], small["last_run"]) == ("small", "fuzz", "02:00", None)
    assert small["next_due"].endswith("T02:00:00+00:00")
    assert clean["last_run"]["outcome"].startswith("thrown away")
    assert clean["options"] == {"examples": 20, "days": 30}
    assert "next due (UTC)" in shown
    assert "0 4 * * sun" in shown


def test_a_job_that_is_run_now_is_planned_and_in_the_history(entryfuzz: Entryfuzz, config: str) -> None:
    assert entryfuzz("nightly", "run", "small").out == "small: planned as campaign 1\n"
    assert entryfuzz("nightly", "run", "small", "--json").json()["campaigns"] == [2]
    entryfuzz("nightly", "run", "clean")

    rows = entryfuzz("nightly", "history", "--json").json()
    only = entryfuzz("nightly", "history", "--name", "small", "--limit", "1", "--json").json()

    assert [row["name"] for row in rows] == ["clean", "small", "small"]
    assert [(row["campaigns"], row["outcome"]) for row in only] == [([2], None)]
    assert "running" in entryfuzz("nightly", "history").out
    assert entryfuzz("status", "--json").json()["slices"]["waiting"] == 4


def test_the_example_is_a_timetable(entryfuzz: Entryfuzz, config: str) -> None:
    listed = entryfuzz("nightly", "list", "--config", str(EXAMPLES / "entryfuzz.toml"), "--json").json()

    assert [row["name"] for row in listed] == ["replay", "sweep", "fuzz", "guided", "corpus", "retention"]


@pytest.mark.parametrize("command", [("nightly", "list"), ("nightly", "run", "small"), ("scheduler",)], ids=" ".join)
def test_a_mistake_in_a_timetable_is_one_line(entryfuzz: Entryfuzz, config: str, command: tuple[str, ...]) -> None:
    Path("mine.toml").write_text(TIMETABLE.replace("02:00", "2 am"), encoding="utf-8")

    ran = entryfuzz(*command, "--config", "mine.toml")

    said = "mine.toml: [[nightly]] 1: at: '2 am' is no time; write \"02:00\", or a cron expression of five fields, in UTC\n"
    assert (ran.code, ran.out, ran.err) == (2, "", said)


def test_a_timetable_that_was_asked_for_has_to_be_there(entryfuzz: Entryfuzz) -> None:
    ran = entryfuzz("scheduler", env={"ENTRYFUZZ_CONFIG": "none.toml"})

    assert ran.code == 2
    assert ran.err.startswith("none.toml: No such file or directory")


def test_a_job_that_is_not_in_the_timetable_is_a_mistake(entryfuzz: Entryfuzz, config: str) -> None:
    ran = entryfuzz("nightly", "run", "large")

    assert (ran.code, ran.err) == (2, 'entryfuzz.toml: there is no [[nightly]] named "large"; known: small, clean\n')


def test_the_life_of_a_bucket_is_told(entryfuzz: Entryfuzz, stored: Stored) -> None:
    assert "status" not in entryfuzz("divergences", "list", "--db", stored.url).out
    engine = open_database(stored.url)
    for version, shows in (("3.0", ""), ("3.1", stored.signature)):
        campaign = start_campaign(engine, NewCampaign((), "unicorn", version, (), 0, 0, {}))
        with writing(engine) as connection:
            found = ReplayFound(0, "unicorn", version, 0.5, 0, [ReplayedCase(stored.bucket, stored.case, shows)])
            put_replay(connection, campaign, found, datetime(2026, 3, 1, tzinfo=UTC))
        told = entryfuzz("divergences", "list", "--db", stored.url, "--status", "fixed" if not shows else "regressed").out
        assert ("fixed in 3.0" if not shows else "regressed") in told
        assert stored.bucket in told
    engine.dispose()

    shown = entryfuzz("divergences", "show", stored.bucket, "--db", stored.url)
    value = entryfuzz("divergences", "show", stored.bucket, "--db", stored.url, "--json").json()

    assert "2026-03-01 fixed: none of its examples shows it on 3.0" in shown.out
    assert "2026-03-01 regressed: shown again by 3.1, after 3.0 had not" in shown.out
    assert "2026-03-01 on 3.1: 1 of 1 examples show it" in shown.out
    assert (value["status"], value["fixed_version"]) == ("regressed", "3.0")
    assert [change["status"] for change in value["changes"]] == ["fixed", "regressed"]
    assert [(row["core_version"], row["shown"], row["gone"]) for row in value["replays"]] == [("3.0", 0, 1), ("3.1", 1, 0)]
    assert len(entryfuzz("vote", "--all-open", "--db", stored.url, "--json").json()) == 1, "one that came back is open"
