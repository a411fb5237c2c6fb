"""`entryfuzz sweep`: short sweeps on the real engine, stored, continued and shown."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from entryfuzz_program import Entryfuzz
from sqlalchemy import text

from db.engine import open_database
from db.sweep_records import SweptPath
from db.sweeps import swept_paths
from db.transactions import writing
from entryfuzz.sweeping import places
from fuzzer.sweep.outcomes import Outcome

SWEEP = ("sweep", "--scenario", "nmi-from-user", "--event", "nmi", "--profile", "intel", "--db", "swept.db")
DIVERGES = ("sweep", "--scenario", "alignment-check-from-user", "--event", "nmi", "--profile", "intel", "--db", "swept.db")
"""Unicorn checks no alignment (docs/findings.md)."""


@pytest.fixture
def swept(entryfuzz: Entryfuzz) -> Entryfuzz:
    """A command line with a sweep in swept.db."""
    assert entryfuzz(*SWEEP).code == 0
    return entryfuzz


class TestSweep:
    def test_json_has_the_keys_that_others_build_on(self, entryfuzz: Entryfuzz) -> None:
        ran = entryfuzz(*SWEEP, "--json")

        result = ran.json()
        assert ran.code == 0
        assert {"paths", "boundaries", "runs", "merged", "contract_violations", "divergences", "seconds"} <= result.keys()
        assert (result["paths"], result["contract_violations"], result["divergences"]) == (1, 0, 0)
        assert result["runs"] == result["boundaries"], "the path as it is, and every boundary but that of its own NMI"
        assert 0 < result["merged"] < result["runs"]

    def test_a_divergence_is_exit_1_and_a_bucket_that_can_be_shown_and_run(self, entryfuzz: Entryfuzz) -> None:
        ran = entryfuzz(*DIVERGES, "--json")

        (first, *_) = ran.json()["buckets"]
        assert ran.code == 1
        assert ran.json()["divergences"] > 0
        assert entryfuzz("divergences", "show", first["id"], "--db", "swept.db").code == 0
        assert entryfuzz("case", "run", first["id"], "--db", "swept.db").code == 1

    def test_the_summary_names_the_sweep_and_how_to_see_it(self, entryfuzz: Entryfuzz) -> None:
        ran = entryfuzz(*SWEEP)

        assert "sweeping 1 paths of linux4" in ran.err
        assert "sweep 1: 1 paths" in ran.out
        assert "entryfuzz sweep show 1 --db swept.db" in ran.out

    def test_depth_two_says_so(self, entryfuzz: Entryfuzz) -> None:
        result = entryfuzz(*SWEEP, "--depth", "2", "--second", "mce", "--json").json()

        assert (result["depth"], result["second"]) == (2, ["mce"])

    @pytest.mark.parametrize(
        ("option", "value", "complaint"),
        [
            ("--scenario", "nowhere", 'there is no scenario "nowhere" in linux4'),
            ("--event", "smi", 'there is no event "smi"; known: interrupt, nmi, mce'),
            ("--profile", "via", 'there is no profile "via"'),
            ("--target", "windows", 'there is no target "windows"'),
        ],
    )
    def test_a_name_that_is_not_known_is_one_line(self, entryfuzz: Entryfuzz, option: str, value: str, complaint: str) -> None:
        ran = entryfuzz("sweep", option, value)

        assert (ran.code, ran.out) == (2, "")
        assert complaint in ran.err
        assert len(ran.err.splitlines()) == 1


class Page(HTMLParser):
    """What a page holds: its elements in order, and whether they are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag != "meta":
            self.open.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


class TestShow:
    def test_the_map_has_a_letter_for_each_boundary(self, swept: Entryfuzz) -> None:
        matrix = swept("sweep", "show", "--db", "swept.db", "--json").json()
        ran = swept("sweep", "show", "1", "--db", "swept.db")

        (path,) = matrix["paths_swept"]
        assert len(path["cells"]["nmi"]) == path["boundaries"]
        assert set(path["cells"]["nmi"]) <= set(matrix["legend"])
        assert path["cells"]["nmi"][:20] in ran.out
        assert "nmi-from-user" in ran.out

    def test_a_scenario_is_shown_beside_its_code(self, swept: Entryfuzz) -> None:
        ran = swept("sweep", "show", "--scenario", "nmi-from-user", "--db", "swept.db")
        code = swept("sweep", "show", "--scenario", "nmi-from-user", "--db", "swept.db", "--json").json()["paths_swept"][0]["code"]

        assert "user_code" in code[0]["at"]
        assert "iretq" in {each["instruction"] for each in code}
        assert all(each["instruction"] in ran.out for each in code)

    def test_the_page_stands_alone_and_has_every_instruction(self, swept: Entryfuzz) -> None:
        ran = swept("sweep", "show", "--html", "sweep.html", "--db", "swept.db")

        page = Page(Path("sweep.html").read_text())
        assert (ran.code, ran.out) == (0, "")
        assert (page.open, page.links) == ([], [])
        assert "iretq" in page.texts
        assert {outcome.value for outcome in Outcome} <= set(page.texts)

    def test_code_that_has_changed_is_not_shown_as_if_it_had_not(self, swept: Entryfuzz) -> None:
        engine = open_database("swept.db")
        (path,) = swept_paths(engine, 1)
        engine.dispose()

        assert len(places("linux4", path)) == path.boundaries
        assert places("linux4", changed(path)) == []
        assert places("gone", path) == []

    def test_an_interrupted_sweep_says_so(self, swept: Entryfuzz) -> None:
        engine = open_database("swept.db")
        with writing(engine) as connection:
            connection.execute(text("UPDATE campaign SET finished_at = NULL"))
        engine.dispose()

        assert "interrupted" in swept("sweep", "show", "--db", "swept.db").out
        again = swept(*SWEEP, "--json").json()
        assert (again["sweep"], again["resumed"]) == (1, 1)

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (("7",), "there is no sweep 7"),
            (("--scenario", "nowhere"), "nowhere has not been swept"),
            (("--profile", "amd"), "amd has not been swept"),
            (("--html", "no/such/folder.html"), "no/such/folder.html: cannot be written"),
        ],
    )
    def test_what_is_not_there_is_one_line(self, swept: Entryfuzz, arguments: tuple[str, ...], complaint: str) -> None:
        ran = swept("sweep", "show", *arguments, "--db", "swept.db")

        assert (ran.code, ran.out) == (2, "")
        assert complaint in ran.err

    def test_no_sweep_at_all_says_what_to_run(self, entryfuzz: Entryfuzz) -> None:
        open_database("empty.db").dispose()

        ran = entryfuzz("sweep", "show", "--db", "empty.db")

        assert ran.code == 2
        assert "run entryfuzz sweep --db empty.db" in ran.err

    def test_json_and_a_page_at_once(self, swept: Entryfuzz) -> None:
        ran = swept("sweep", "show", "--html", "both.html", "--json", "--db", "swept.db")

        assert json.loads(ran.out)["sweep"] == 1
        assert Path("both.html").exists()


def changed(path: SweptPath) -> SweptPath:
    return replace(path, start="0" * 16)
