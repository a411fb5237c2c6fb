"""The log of workers and schedulers, for people and for programs."""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime

from db.work_records import Held
from entryfuzz.logs import JsonLines
from workers.about import about, about_attempt


def line(text: str, *arguments: object, exc_info: object = None) -> dict[str, object]:
    record = logging.LogRecord("workers.jobs", logging.WARNING, __file__, 1, text, arguments, exc_info)  # type: ignore[arg-type]
    written = JsonLines().format(record)
    assert "\n" not in written
    return json.loads(written)  # type: ignore[no-any-return]


def test_a_line_is_an_object_with_time_level_and_event() -> None:
    told = line('%d cases in "%s"', 7, "ä")

    assert {name: told[name] for name in ("level", "event")} == {"level": "warning", "event": '7 cases in "ä"'}
    assert abs((datetime.now(UTC) - datetime.fromisoformat(str(told["time"]))).total_seconds()) < 60
    assert set(told) == {"time", "level", "event"}


def test_a_line_says_what_it_is_about() -> None:
    with about(worker="one"), about_attempt(Held(3, 14, 2, "one")):
        inside = line("done")
    outside = line("idle")

    assert {name: inside[name] for name in ("campaign", "slice", "attempt", "worker")} == {
        "campaign": 3, "slice": 14, "attempt": 2, "worker": "one",
    }  # fmt: skip
    assert set(outside) == {"time", "level", "event"}


def test_a_process_that_is_forked_writes_about_the_same() -> None:
    reading, writing = os.pipe()
    with about(worker="one"):
        child = os.fork()
        if child == 0:
            os.write(writing, json.dumps(line("hello")).encode())
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)

    assert json.loads(os.read(reading, 4096))["worker"] == "one"
    os.close(reading)


def test_a_bug_brings_its_traceback() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        told = line("bug", exc_info=sys.exc_info())

    assert "ValueError: broken" in str(told["traceback"])
