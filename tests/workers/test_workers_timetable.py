"""The timetable: when jobs are due, and that a mistake is told with its file, table and key."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from workers.nightly import JOBS, OPTIONS
from workers.timetable import Entry, TimetableError, read_timetable

EXAMPLE = Path(__file__).parents[2] / "examples" / "entryfuzz.toml"
NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)  # a Wednesday


def entry(at: str) -> Entry:
    return Entry("name", at, "replay", {})


@pytest.mark.parametrize(
    ("at", "last", "following"),
    [
        pytest.param("02:00", datetime(2026, 3, 4, 2), datetime(2026, 3, 5, 2), id="this-night"),
        pytest.param("12:00", datetime(2026, 3, 4, 12), datetime(2026, 3, 5, 12), id="now"),
        pytest.param("12:01", datetime(2026, 3, 3, 12, 1), datetime(2026, 3, 4, 12, 1), id="not-yet"),
        pytest.param("0 3 * * sun", datetime(2026, 3, 1, 3), datetime(2026, 3, 8, 3), id="weekly"),
        pytest.param("*/5 * * * *", datetime(2026, 3, 4, 12), datetime(2026, 3, 4, 12, 5), id="often"),
    ],
)
def test_a_job_is_due_in_utc(at: str, last: datetime, following: datetime) -> None:
    elsewhere = NOON.astimezone(timezone(timedelta(hours=9)))

    for now in (NOON, elsewhere):
        assert entry(at).last_due(now) == last.replace(tzinfo=UTC)
        assert entry(at).next_due(now) == following.replace(tzinfo=UTC)


def test_seconds_do_not_move_what_is_due() -> None:
    assert entry("12:00").last_due(NOON.replace(second=59, microsecond=999_999)) == NOON


def test_the_example_is_right_and_what_it_leaves_out_is_filled_in() -> None:
    entries = {each.name: each for each in read_timetable(EXAMPLE, OPTIONS)}

    assert {each.job for each in entries.values()} == set(JOBS)
    assert entries["sweep"].options == {"targets": ["linux4"], "profiles": None, "cores": ["unicorn"], "depth": 1}
    assert entries["fuzz"].options["slice_cases"] == 20_000


def test_every_job_and_option_is_documented() -> None:
    text = (EXAMPLE.parents[1] / "docs" / "nightly.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}

    assert set(rows) == set(JOBS)
    for name, job in JOBS.items():
        assert [option for option in job.options if f"`{option}`" not in rows[name]] == []


GOOD = '[[nightly]]\nname = "a"\nat = "02:00"\njob = "sweep"\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[nightly]\n", "entryfuzz.toml: not TOML: "),
        ("[[nigthly]]\n", "entryfuzz.toml: nigthly: no such table; there is [[nightly]]"),
        ('[nightly]\nname = "a"\n', "entryfuzz.toml: nightly: write a table [[nightly]], in two brackets, for each job"),
        ('[[nightly]]\nname = "a"\njob = "sweep"\n', "entryfuzz.toml: [[nightly]] 1: at: is missing; "),
        (GOOD.replace('"a"', '"A b"'), "entryfuzz.toml: [[nightly]] 1: name: 'A b' is no name; "),
        (GOOD.replace("02:00", "24:00"), "entryfuzz.toml: [[nightly]] 1: at: '24:00' is no time; "),
        (GOOD.replace('"02:00"', "2"), "entryfuzz.toml: [[nightly]] 1: at: 2 is no time; "),
        (GOOD.replace("02:00", "0 2 * *"), "entryfuzz.toml: [[nightly]] 1: at: '0 2 * *' is no time; "),
        (GOOD.replace("02:00", "0 2 30 2 *"), "entryfuzz.toml: [[nightly]] 1: at: '0 2 30 2 *' is no time; "),
        (GOOD.replace("02:00", "0 0 2 * * *"), "entryfuzz.toml: [[nightly]] 1: at: '0 0 2 * * *' is no time; "),
        (
            GOOD.replace('"sweep"', '"sleep"'),
            "entryfuzz.toml: [[nightly]] 1: job: there is no 'sleep'; known: sweep, fuzz, guided, corpus-merge, replay, retention",
        ),
        (GOOD + "hours = 2\n", "entryfuzz.toml: [[nightly]] 1: hours: the job sweep has no such option; known: targets, "),
        (
            GOOD + 'targets = "linux4"\n',
            "entryfuzz.toml: [[nightly]] 1: targets: 'linux4' is no list of names; write ['linux4', 'snippets']",
        ),
        (GOOD + "targets = []\n", "entryfuzz.toml: [[nightly]] 1: targets: [] is no list of names; "),
        (GOOD + 'cores = ["unicron"]\n', "entryfuzz.toml: [[nightly]] 1: cores: there is no 'unicron'; known: "),
        (GOOD + "depth = true\n", "entryfuzz.toml: [[nightly]] 1: depth: True is no depth; write 1 or 2"),
        (GOOD + GOOD, 'entryfuzz.toml: [[nightly]] 2: name: there is a job "a" already'),
        (
            GOOD.replace("sweep", "fuzz") + "hours = 0\n",
            "entryfuzz.toml: [[nightly]] 1: hours: 0 is no number from 0.001 on",
        ),
        (
            GOOD.replace("sweep", "retention") + "examples = 0\n",
            "entryfuzz.toml: [[nightly]] 1: examples: 0 is no whole number from 1 on",
        ),
    ],
)
def test_a_mistake_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("entryfuzz.toml").write_text(text, encoding="utf-8")

    with pytest.raises(TimetableError) as raised:
        read_timetable(Path("entryfuzz.toml"), OPTIONS)

    assert str(raised.value).startswith(told)
    assert "\n" not in str(raised.value)


def test_a_timetable_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(TimetableError, match="No such file or directory; write one"):
        read_timetable(tmp_path / "none.toml", OPTIONS)


def test_an_empty_timetable_has_no_jobs(tmp_path: Path) -> None:
    (tmp_path / "entryfuzz.toml").write_text("", encoding="utf-8")

    assert read_timetable(tmp_path / "entryfuzz.toml", OPTIONS) == ()
