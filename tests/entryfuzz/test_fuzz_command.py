"""`entryfuzz fuzz` and `entryfuzz bench`: short campaigns on the real engine."""

import json

import pytest
from entryfuzz_program import Entryfuzz

FUZZ = ("fuzz", "--target", "snippets", "--profile", "intel", "--seed", "7", "--cases", "300", "--db", "found.db")


@pytest.fixture
def fuzzed(entryfuzz: Entryfuzz) -> Entryfuzz:
    """A command line with results in found.db."""
    assert entryfuzz(*FUZZ).code == 0
    return entryfuzz


class TestFuzz:
    def test_json_has_the_keys_that_others_build_on(self, entryfuzz: Entryfuzz) -> None:
        ran = entryfuzz(*FUZZ, "--json")

        result = ran.json()
        assert ran.code == 0
        assert {"cases", "seconds", "cases_per_second", "not_modelled", "buckets"} <= result.keys()
        assert (result["cases"], result["seed"], result["targets"]) == (300, 7, ["snippets"])
        assert all({"id", "area", "kind", "core", "signature", "hits"} <= bucket.keys() for bucket in result["buckets"])
        assert result["buckets"]

    def test_the_same_seed_finds_the_same_in_two_processes(self, entryfuzz: Entryfuzz) -> None:
        one = entryfuzz(*FUZZ, "--json").json()
        two = entryfuzz(*FUZZ[:-1], "other.db", "--jobs", "2", "--json").json()

        assert [(bucket["id"], bucket["hits"]) for bucket in one["buckets"]] == [
            (bucket["id"], bucket["hits"]) for bucket in two["buckets"]
        ]

    def test_the_summary_names_buckets_and_how_to_see_one(self, entryfuzz: Entryfuzz) -> None:
        ran = entryfuzz(*FUZZ)

        assert "seed 7" in ran.err
        assert "300 cases" in ran.out
        assert "entryfuzz divergences show" in ran.out

    def test_what_it_finds_can_be_listed_shown_and_run(self, fuzzed: Entryfuzz) -> None:
        rows = fuzzed("divergences", "list", "--db", "found.db", "--json").json()

        for row in rows[:10]:
            shown = fuzzed("divergences", "show", row["id"], "--db", "found.db")
            assert shown.code == 0
            assert row["title"] in shown.out.replace("\n", " ")
            assert fuzzed("case", "run", row["id"], "--db", "found.db").code == 1

    def test_a_seed_is_chosen_and_told_where_none_is_given(self, entryfuzz: Entryfuzz) -> None:
        result = entryfuzz("fuzz", "--cases", "10", "--json").json()

        assert isinstance(result["seed"], int)
        assert result["targets"] == ["linux4", "snippets"]

    def test_a_database_that_cannot_be_made_is_one_line(self, entryfuzz: Entryfuzz) -> None:
        ran = entryfuzz(*FUZZ[:-1], "no/such/folder/found.db")

        assert ran.code == 2
        assert "check that the folder exists" in ran.err.splitlines()[-1]


class TestBench:
    def test_json_is_a_row_for_each_target(self, entryfuzz: Entryfuzz) -> None:
        rows = json.loads(entryfuzz("bench", "--seconds", "0.2", "--json").out)

        assert {"target", "spec", "core", "pair", "copy"} <= rows[0].keys()
        assert [row["target"] for row in rows] == ["linux4", "linux4 (generated)", "snippets (generated)"]

    def test_the_table_has_the_same_rows(self, entryfuzz: Entryfuzz) -> None:
        assert "linux4" in entryfuzz("bench", "--seconds", "0.1").out
