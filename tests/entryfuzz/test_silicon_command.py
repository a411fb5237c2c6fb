"""`entryfuzz cores silicon-check`: what it prints, and its exit codes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner

import fuzzer.silicon_check
from entryfuzz.cli import main
from fuzzer.cores.silicon import probe
from fuzzer.first_event import first_event
from reference.image import Image


@pytest.fixture
def _processor() -> None:
    version, reason = probe.available()
    if version is None:
        pytest.skip(f"silicon: {reason}")


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["cores", "silicon-check", *arguments], standalone_mode=False)


@pytest.mark.usefixtures("_processor")
def test_json_has_every_number() -> None:
    done = run("--cases", "200", "--seed", "4", "--json")

    found = json.loads(done.stdout)
    assert (done.return_value, found["differences"], found["cases"]) == (0, [], 200)
    assert found["compared"] + sum(found["not_asked"].values()) + found["not_repeatable"] == 200


@pytest.mark.usefixtures("_processor")
def test_a_difference_is_listed_with_its_case_and_is_exit_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(image: Image) -> Any:
        return replace(first_event(image), vector=99)

    monkeypatch.setattr(fuzzer.silicon_check, "first_event", wrong)

    done = run("--cases", "20")

    assert done.return_value == 1
    assert "spec vector 99" in done.stdout or "event" in done.stdout
    assert '"target": "snippets"' in done.stdout


def test_a_host_that_cannot_be_asked_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "available", lambda: (None, "the processor can be asked under Linux on x86-64 only"))

    done = run("--cases", "1")

    assert done.return_value == 2
    assert done.stderr == "silicon: the processor can be asked under Linux on x86-64 only\n"
