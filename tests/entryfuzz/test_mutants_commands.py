"""`entryfuzz mutants` as a person uses it, and the page that is made of a stored result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from entryfuzz_program import Entryfuzz, program

from entryfuzz.views.planted_bugs import page
from fuzzer.mutants.catalogue import MUTANTS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def entryfuzz() -> Entryfuzz:
    return program()


@pytest.fixture(scope="module")
def ran(entryfuzz: Entryfuzz) -> Any:
    done = entryfuzz("mutants", "run", "exit-without-swapgs", "core-keeps-if", "--seconds-per-mutant", "0.5", "--jobs", "2", "--json")
    assert done.code == 0, done.err
    return done.json()


def test_the_list_names_every_mutant_with_its_story(entryfuzz: Entryfuzz) -> None:
    listed = entryfuzz("mutants", "list", "--json").json()

    assert [one["name"] for one in listed] == list(MUTANTS)
    assert all(one["story"] and one["source"] for one in listed)
    assert "exit-without-swapgs" in entryfuzz("mutants", "list").out


def test_a_run_reports_what_each_arm_needed(ran: Any) -> None:
    assert [row["name"] for row in ran["mutants"]] == ["exit-without-swapgs", "core-keeps-if"]
    for row in ran["mutants"]:
        assert row["witness"] is True
        assert row["found"] is True
        assert row["cases"] == row["arms"][row["arm"]]["cases"] < 100
        assert row["arms"]["sweep"]["seeds"] == 3


def test_the_clean_build_goes_through_the_same_arms(ran: Any) -> None:
    assert (ran["false_positives"], ran["false_positive_examples"]) == (0, [])
    assert ran["clean_cases"] > 0


def test_a_table_is_printed_without_json(entryfuzz: Entryfuzz) -> None:
    done = entryfuzz("mutants", "run", "exit-without-swapgs", "--seconds-per-mutant", "0.5")

    assert "shows it" in done.out
    assert "1 of 1 planted bugs found; 0 false positives" in done.out
    assert "18 of 18 trials" in done.err


def test_an_unknown_mutant_is_a_mistake_that_names_the_known_ones(entryfuzz: Entryfuzz) -> None:
    done = entryfuzz("mutants", "run", "no-such-mutant")

    assert done.code == 2
    assert 'there is no mutant "no-such-mutant"; known: debug-not-paranoid' in done.err


def test_the_page_says_of_each_mutant_what_became_of_it(entryfuzz: Entryfuzz, ran: Any, tmp_path: Path) -> None:
    stored = tmp_path / "result.json"
    ran["mutants"][0] |= {"found": False, "arm": None, "cases": None, "seconds": None}
    stored.write_text(json.dumps(ran))

    text = entryfuzz("mutants", "page", str(stored)).out

    assert "| `exit-without-swapgs` | " in text
    assert "**missed**" in text
    assert "## Core: 1 of 1 found" in text


def test_a_page_of_something_else_is_a_mistake(entryfuzz: Entryfuzz, tmp_path: Path) -> None:
    stored = tmp_path / "notes.txt"
    stored.write_text("found all of them")

    done = entryfuzz("mutants", "page", str(stored))

    assert done.code == 2
    assert "notes.txt: not a result of `entryfuzz mutants run --json`" in done.err


def test_the_published_page_is_the_one_of_the_published_result() -> None:
    result = json.loads((DOCS / "planted-bugs.json").read_text())

    assert (DOCS / "planted-bugs.md").read_text() == page(result)
    assert {row["name"] for row in result["mutants"]} == set(MUTANTS)
